//! The config and the names under which diffusers could hold an edited U-Net.
//!
//! Its config has a list or a scalar for most of what block removal changes: layers by level, the types of blocks, widths,
//! a missing mid block. Members of its module lists are counted from 0 in the student, so those that are left move up.
//! Whether that config gives the edited graph is for the caller to find out.

use std::collections::BTreeSet;

use pomona_graph::{Graph, renumber};
use serde_json::{Value, json};

use crate::families::network::Stock;
use crate::stock::Renumbering;

/// Lists of the config with an entry a level.
const BY_LEVEL: &[&str] = &[
    "block_out_channels",
    "attention_head_dim",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "only_cross_attention",
    "num_attention_heads",
];

pub(super) fn stock(config: &Value, before: &Graph, edited: &Graph) -> Stock {
    let levels = members(before, "down_blocks");
    let left = members(edited, "down_blocks");
    let missing = |what: &str| Err(vec![format!("no {what} is left")]);
    if left.is_empty() {
        return missing("down block");
    }
    let n = levels.len();
    let ups: Vec<usize> = left.iter().rev().map(|i| n - 1 - i).collect();
    if members(edited, "up_blocks") != ups {
        return Err(vec![format!(
            "up blocks {:?} are left; down blocks {left:?} need {ups:?}",
            members(edited, "up_blocks")
        )]);
    }
    let mut out = config.clone();
    let Some(map) = out.as_object_mut() else { return missing("config") };
    for key in BY_LEVEL {
        if let Some(Value::Array(items)) = map.get_mut(*key)
            && items.len() == n
        {
            *items = left.iter().filter_map(|i| items.get(*i)).cloned().collect();
        }
    }
    let layers: Vec<usize> =
        left.iter().map(|i| members(edited, &format!("down_blocks.{i}.resnets")).len()).collect();
    if let Some(i) = layers.iter().position(|l| *l == 0) {
        return Err(vec![format!("no resnet of `down_blocks.{}` is left", left[i])]);
    }
    map.insert("layers_per_block".to_owned(), uniform(&layers));
    let depth = |i: &usize| {
        let lists = [format!("down_blocks.{i}.attentions"), format!("up_blocks.{}.attentions", n - 1 - i)];
        let blocks = |list: &String| {
            let first = *members(edited, list).first()?;
            Some(members(edited, &format!("{list}.{first}.transformer_blocks")).len())
        };
        lists.iter().find_map(blocks).unwrap_or(1).max(1)
    };
    let depths: Vec<usize> = left.iter().map(depth).collect();
    if map.contains_key("transformer_layers_per_block") || depths.iter().any(|d| *d != 1) {
        map.insert("transformer_layers_per_block".to_owned(), uniform(&depths));
    }
    for (key, list, members) in
        [("down_block_types", "down_blocks", &left), ("up_block_types", "up_blocks", &ups)]
    {
        let types: Vec<String> =
            members.iter().map(|i| block_type(before, edited, &format!("{list}.{i}"))).collect();
        map.insert(key.to_owned(), json!(types));
    }
    if !edited.nodes.iter().any(|node| node.path.starts_with("mid_block.")) {
        map.insert("mid_block_type".to_owned(), Value::Null);
    }
    let counted = |list: &str| {
        let last = list.rsplit('.').next().unwrap_or(list);
        matches!(
            last,
            "down_blocks"
                | "up_blocks"
                | "resnets"
                | "attentions"
                | "transformer_blocks"
                | "downsamplers"
                | "upsamplers"
        )
    };
    Ok((out, Renumbering::of(renumber(edited, &counted))))
}

/// One number where all are equal, else the list.
fn uniform(values: &[usize]) -> Value {
    match values {
        [first, rest @ ..] if rest.iter().all(|v| v == first) => json!(first),
        _ => json!(values),
    }
}

/// The class of a block, without attention where none of its attentions is left.
fn block_type(before: &Graph, edited: &Graph, path: &str) -> String {
    let side = if path.starts_with("up_blocks") { "Up" } else { "Down" };
    if members(edited, &format!("{path}.attentions")).is_empty() {
        return format!("{side}Block2D");
    }
    before.modules.get(path).cloned().unwrap_or_default()
}

/// The numbers of a module list that nodes of the graph still have, in order.
fn members(graph: &Graph, list: &str) -> Vec<usize> {
    let number = |path: &str| {
        let rest = path.strip_prefix(list)?.strip_prefix('.')?;
        rest.split('.').next()?.parse::<usize>().ok()
    };
    graph.nodes.iter().filter_map(|n| number(&n.path)).collect::<BTreeSet<_>>().into_iter().collect()
}
