//! The config under which transformers could hold an edited ViT, DeiT or BERT: fewer layers and one width for all of them.
//!
//! The widths are read off the first layer that is left; whether the others have them too is for the caller to find out.

use pomona_graph::{Graph, Op};
use serde_json::{Value, json};

use crate::config_edit::cut_config;
use crate::families::network::Stock;
use crate::opaque::{number_after, numbers};
use crate::stock::Renumbering;

const LAYERS: [&str; 4] = ["encoder.layer", "vit.encoder.layer", "deit.encoder.layer", "bert.encoder.layer"];

pub(super) fn stock(config: &Value, before: &Graph, edited: &Graph) -> Stock {
    let none = || Err(vec!["no layer is left".to_owned()]);
    let Some(list) = LAYERS.iter().find(|l| !numbers(before, l).is_empty()) else { return none() };
    let all: Vec<usize> = numbers(before, list).into_iter().collect();
    let mut left = numbers(edited, list);
    left.extend(edited.nodes.iter().filter_map(|n| number_after(&n.path, list)));
    let Some(first) = left.first() else { return none() };
    let kept: Vec<usize> = (0..all.len()).filter(|i| left.contains(&all[*i])).collect();
    let mut config = cut_config(config, &["num_hidden_layers"], all.len(), &kept);
    // A removed head or feed-forward part leaves nothing to read a width off; the comparison then names it.
    widths(&mut config, edited, list.trim_end_matches("encoder.layer"), &format!("{list}.{first}"));
    Ok((config, Renumbering::blocks(list, 0, left)))
}

fn widths(config: &mut Value, graph: &Graph, prefix: &str, layer: &str) {
    let size = |name: &str, axis: usize| {
        let tensor = graph.tensor(graph.find_tensor(name)?);
        tensor.shape.get(axis).copied()
    };
    let hidden = size(&format!("{layer}.output.dense.weight"), 0);
    if let Some(hidden) = hidden {
        config["hidden_size"] = json!(hidden);
        let pooled = size(&format!("{prefix}pooler.dense.weight"), 0);
        if let Some(pooled) = pooled.filter(|p| *p != hidden) {
            config["pooler_output_size"] = json!(pooled);
        }
    }
    if let Some(inner) = size(&format!("{layer}.intermediate.dense.weight"), 0) {
        config["intermediate_size"] = json!(inner);
    }
    let attention = graph.nodes.iter().find_map(|n| match &n.op {
        Op::Attention(a) if n.path.starts_with(&format!("{layer}.")) => Some(a.heads),
        _ => None,
    });
    let query = ["attention.attention", "attention.self"];
    let query = query.iter().find_map(|m| size(&format!("{layer}.{m}.query.weight"), 0));
    if let (Some(heads), Some(query)) = (attention, query) {
        config["num_attention_heads"] = json!(heads);
        let head = query / heads.max(1);
        if config.get("head_dim").is_some() || hidden.is_some_and(|h| h != head * heads) {
            config["head_dim"] = json!(head);
        }
    }
}
