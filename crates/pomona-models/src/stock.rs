//! Whether stock loaders can hold an edited graph, and under which config and names.
//!
//! The config is cut to the blocks that are left, the family builds the graph that a stock loader would build from it,
//! and that graph must be the edited one under its new numbers. Nothing here knows what a block contains.

use std::collections::BTreeMap;

use pomona_graph::{Graph, Op, RopeScaling};
use pomona_store::Format;
use serde_json::Value;

use crate::config::Fields;
use crate::config_edit::{DEPTH_KEYS, cut_config, depth_keys};
use crate::error::Result;
use crate::gguf;
use crate::model::Model;
use crate::opaque::{block_lists, number_after, numbers};

/// Most reasons that are listed.
const MAX_REASONS: usize = 4;

/// How an edited graph looks to stock loaders.
#[derive(Clone, Debug)]
pub(crate) struct StockForm {
    /// The config with the new depth.
    pub config: Value,
    pub numbers: Renumbering,
    /// Blocks before, and which of these positions are left.
    pub depth: usize,
    pub kept: Vec<usize>,
}

/// New block numbers. Paths elsewhere keep their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renumbering {
    prefix: String,
    to: BTreeMap<usize, usize>,
}

impl Renumbering {
    /// The blocks that are left, in order, as `first`, `first + 1`, ...
    fn new(prefix: &str, first: usize, left: impl IntoIterator<Item = usize>) -> Self {
        let to = left.into_iter().enumerate().map(|(new, old)| (old, first + new)).collect();
        Self { prefix: prefix.to_owned(), to }
    }

    /// The stock name of a path or tensor.
    pub(crate) fn apply(&self, path: &str) -> String {
        let new = number_after(path, &self.prefix).and_then(|old| Some((old, *self.to.get(&old)?)));
        let Some((old, new)) = new else { return path.to_owned() };
        let head = format!("{}.{old}", self.prefix);
        match path.strip_prefix(&head) {
            Some(rest) => format!("{}.{new}{rest}", self.prefix),
            None => path.to_owned(),
        }
    }
}

/// Whose loader it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loader {
    /// transformers, from config.json.
    Transformers,
    /// llama.cpp, from GGUF metadata, which can have sizes by block.
    LlamaCpp,
}

/// The stock form of an edited graph, or why there is none.
pub(crate) fn stock_form(
    model: &Model,
    edited: &Graph,
    loader: Loader,
) -> Result<std::result::Result<StockForm, Vec<String>>> {
    match model.family() {
        Some(family) if !model.is_opaque() => {
            let numbered = |g: &Graph| {
                let mut all = numbers(g, family.blocks);
                all.extend(g.nodes.iter().filter_map(|n| number_after(&n.path, family.blocks)));
                all
            };
            let (before, left) = (numbered(model.graph()?), numbered(edited));
            let kept: Vec<usize> = positions(before.iter(), &|n| left.contains(n));
            if kept.is_empty() {
                return Ok(Err(vec!["no block is left".to_owned()]));
            }
            let config = cut_config(&model.config, &[family.depth_key], before.len(), &kept);
            let form = StockForm {
                config,
                numbers: Renumbering::new(family.blocks, 0, left),
                depth: before.len(),
                kept,
            };
            let fields = Fields::new(&model.path, &form.config)?;
            let built = match model.checkpoint.as_ref() {
                Some(file) if loader == Loader::LlamaCpp && file.format() == Format::Gguf => {
                    gguf::cut_graph(file, &form.kept)
                }
                _ => family.graph(&fields),
            };
            let stock = match built {
                Ok(graph) => graph,
                Err(e) => return Ok(Err(vec![e.to_string()])),
            };
            let reasons = differences(edited, &stock, &form.numbers);
            Ok(if reasons.is_empty() { Ok(form) } else { Err(reasons) })
        }
        _ => Ok(opaque_form(model, model.graph()?, edited)),
    }
}

fn positions<'a>(of: impl Iterator<Item = &'a usize>, left: &dyn Fn(&usize) -> bool) -> Vec<usize> {
    of.enumerate().filter(|(_, n)| left(n)).map(|(i, _)| i).collect()
}

/// Without a family only whole blocks of the only stack may be gone, and a key of the config must count them.
fn opaque_form(model: &Model, before: &Graph, edited: &Graph) -> std::result::Result<StockForm, Vec<String>> {
    let stacks = block_lists(before);
    let [prefix] = stacks.as_slice() else {
        if before.tensors.len() == edited.tensors.len() {
            let (config, numbers) = (model.config.clone(), Renumbering::default());
            return Ok(StockForm { config, numbers, depth: 0, kept: Vec::new() });
        }
        let list = if stacks.is_empty() { "none".to_owned() } else { stacks.join(", ") };
        return Err(vec![format!("one stack of blocks was expected; found {list}")]);
    };
    let (all, left) = (numbers(before, prefix), numbers(edited, prefix));
    let keys = depth_keys(&model.config, all.len());
    if keys.is_empty() && all.len() != left.len() {
        return Err(vec![format!(
            "none of the keys {} of the config is {}, the number of blocks",
            DEPTH_KEYS.join(", "),
            all.len()
        )]);
    }
    let kept = positions(all.iter(), &|n| left.contains(n));
    let config = cut_config(&model.config, &keys, all.len(), &kept);
    // Some models count from 1; in one that was cut before, the first number may be any.
    let first = if model.lineage.is_empty() { all.first().copied().unwrap_or(0) } else { 0 };
    Ok(StockForm { config, numbers: Renumbering::new(prefix, first, left), depth: all.len(), kept })
}

/// Where the edited graph, renumbered, is not the stock one.
fn differences(edited: &Graph, stock: &Graph, numbers: &Renumbering) -> Vec<String> {
    let mut reasons = Vec::new();
    let ours: BTreeMap<String, usize> =
        edited.nodes.iter().enumerate().map(|(i, n)| (numbers.apply(&n.path), i)).collect();
    let old = |i: usize| &edited.nodes[i].path;
    for node in &stock.nodes {
        let Some(&i) = ours.get(&node.path) else {
            reasons.push(format!("`{}` (by its new number) is gone, and no config key says so", node.path));
            continue;
        };
        let mine = &edited.nodes[i];
        if !same_op(&mine.op, &node.op) {
            reasons.push(format!("`{}` has attributes that no config key sets for one block", old(i)));
        }
        let weights = |g: &Graph, n: &pomona_graph::Node, rename: bool| -> Vec<_> {
            let name = |t: &str| if rename { numbers.apply(t) } else { t.to_owned() };
            n.weights
                .iter()
                .map(|(s, t)| (*s, name(&g.tensor(*t).name), g.tensor(*t).shape.clone()))
                .collect()
        };
        let (a, b) = (weights(edited, mine, true), weights(stock, node, false));
        if let Some((x, y)) = a.iter().zip(&b).find(|(x, y)| x.2 != y.2) {
            reasons.push(format!("`{}` has shape {:?}; the config asks for {:?}", x.1, x.2, y.2));
        } else if a != b {
            reasons.push(format!("`{}` reads other tensors than in the stock model", old(i)));
        }
        let reads = |g: &Graph, n: &pomona_graph::Node, rename: bool| -> Vec<String> {
            let name = |v: &pomona_graph::ValueId| g.value_ref(*v).0;
            n.inputs.iter().map(name).map(|r| if rename { renamed(&r, numbers) } else { r }).collect()
        };
        if reads(edited, mine, true) != reads(stock, node, false) {
            reasons.push(format!("`{}` reads other values than in the stock model", old(i)));
        }
    }
    for (new, i) in &ours {
        if !stock.nodes.iter().any(|n| n.path == *new) {
            reasons.push(format!("`{}` is not a part of the stock model", old(*i)));
        }
    }
    if let Some(path) = edited.annotations.keys().next() {
        reasons.push(format!("`{path}` carries an annotation"));
    }
    let more = reasons.len().saturating_sub(MAX_REASONS);
    if more > 0 {
        reasons.truncate(MAX_REASONS);
        reasons.push(format!("and {more} more"));
    }
    reasons
}

fn renamed(value: &str, numbers: &Renumbering) -> String {
    match value.strip_prefix('@') {
        Some(port) => format!("@{}", numbers.apply(port)),
        None => numbers.apply(value),
    }
}

/// Equal attributes; divisors that the config spells as a rule are compared by what they do elsewhere.
fn same_op(a: &Op, b: &Op) -> bool {
    match (a, b) {
        (Op::Rope(x), Op::Rope(y)) => {
            let from_file = matches!(x.scaling, RopeScaling::Divisors { .. });
            let ruled = matches!(y.scaling, RopeScaling::Llama3 { .. } | RopeScaling::Divisors { .. });
            let scaling = x.scaling == y.scaling || (from_file && ruled);
            scaling && (x.heads, x.rotary, x.theta, x.pairing) == (y.heads, y.rotary, y.theta, y.pairing)
        }
        _ => a == b,
    }
}
