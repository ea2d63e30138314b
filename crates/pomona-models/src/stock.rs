//! Whether stock loaders can hold an edited graph, and under which config and names.
//!
//! The config is cut to what is left, the family builds the graph that a stock loader would build from it,
//! and that graph must be the edited one under its new numbers. Nothing here knows what a block contains.

use std::collections::BTreeMap;

use pomona_graph::{Graph, Op, Plan, RopeScaling};
use pomona_store::Format;
use serde_json::Value;

use crate::config::Fields;
use crate::config_edit::{DEPTH_KEYS, cut_config, depth_keys};
use crate::error::Result;
use crate::families::{Family, Known, Network};
use crate::gguf;
use crate::model::Component;
use crate::opaque::{block_lists, number_after, numbers};
use crate::save::norm_offsets;

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
    /// What is added to the weights of norms that stock files store otherwise, by the graph's name.
    pub shifts: BTreeMap<String, f64>,
    /// What whoever uses the output should know, a sentence each.
    pub notes: Vec<String>,
}

/// New names, by prefix: the longest prefix of a path, in whole parts, that is listed gets its new name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renumbering {
    map: BTreeMap<String, String>,
}

impl Renumbering {
    /// New names of prefixes.
    pub(crate) fn of(map: BTreeMap<String, String>) -> Self {
        Self { map }
    }

    /// The blocks that are left, in order, as `first`, `first + 1`, ...
    pub(crate) fn blocks(prefix: &str, first: usize, left: impl IntoIterator<Item = usize>) -> Self {
        let name = |n: usize| format!("{prefix}.{n}");
        let map = left.into_iter().enumerate().map(|(new, old)| (name(old), name(first + new))).collect();
        Self { map }
    }

    /// New prefix by old prefix.
    pub(crate) fn map(&self) -> &BTreeMap<String, String> {
        &self.map
    }

    /// The stock name of a path or tensor.
    pub(crate) fn apply(&self, path: &str) -> String {
        pomona_graph::renamed(path, &self.map)
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
    component: &Component,
    lineage: &[Plan],
    edited: &Graph,
    loader: Loader,
) -> Result<std::result::Result<StockForm, Vec<String>>> {
    let known = component.known().filter(|_| !component.is_opaque());
    let form = match known {
        None if !component.is_opaque() => {
            return Ok(Err(vec!["it came as ONNX, which has no config for stock loaders".to_owned()]));
        }
        None if component.config.as_object().is_some_and(serde_json::Map::is_empty) => {
            return Ok(Err(vec!["it came as a state dict without a config".to_owned()]));
        }
        None => return Ok(opaque_form(component, lineage, edited)),
        Some(Known::Decoder(family)) => decoder_form(component, family, edited),
        Some(Known::Network(network)) => network_form(component, network, edited),
    };
    let mut form = match form {
        Ok(form) => form,
        Err(reasons) => return Ok(Err(reasons)),
    };
    let fields = Fields::new(&component.path, &form.config)?;
    let built = match (component.checkpoint.as_ref(), known) {
        (Some(file), _) if loader == Loader::LlamaCpp && file.format() == Format::Gguf => {
            gguf::cut_graph(file, &form.kept)
        }
        (_, Some(known)) => known.graph(&fields),
        (_, None) => return Ok(Ok(form)),
    };
    let stock = match built {
        Ok(graph) => graph,
        Err(e) => return Ok(Err(vec![e.to_string()])),
    };
    let reasons = differences(edited, &stock, &form.numbers);
    if loader == Loader::Transformers {
        form.shifts = shifts(edited, &stock, &form.numbers);
    }
    Ok(if reasons.is_empty() { Ok(form) } else { Err(reasons) })
}

/// The blocks that are left, under consecutive numbers and a config that counts them.
fn decoder_form(
    component: &Component,
    family: &Family,
    edited: &Graph,
) -> std::result::Result<StockForm, Vec<String>> {
    let numbered = |g: &Graph| {
        let mut all = numbers(g, family.names().blocks);
        all.extend(g.nodes.iter().filter_map(|n| number_after(&n.path, family.names().blocks)));
        all
    };
    let (before, left) = (numbered(&component.graph), numbered(edited));
    let kept: Vec<usize> = positions(before.iter(), &|n| left.contains(n));
    if kept.is_empty() {
        return Err(vec!["no block is left".to_owned()]);
    }
    let mut config = cut_config(&component.config, &[family.keys.depth], before.len(), &kept);
    let mut notes = Vec::new();
    if kept.len() != before.len() && family.windows_by_number && config.get("layer_types").is_none() {
        config["layer_types"] = windows_of(component, family, &kept)?;
        notes.push(
            "layer_types in config.json says which blocks have a window: transformers reads it from 4.53 on, and \
             older versions would go by the number of the block"
                .to_owned(),
        );
    }
    let numbers = Renumbering::blocks(family.names().blocks, 0, left);
    Ok(StockForm { config, numbers, depth: before.len(), kept, shifts: BTreeMap::new(), notes })
}

/// `layer_types` of the blocks that are left, from the rule by number.
fn windows_of(
    component: &Component,
    family: &Family,
    kept: &[usize],
) -> std::result::Result<Value, Vec<String>> {
    let fields = Fields::new(&component.path, &component.config);
    let decoder = fields.and_then(|f| family.describe(&f)).map_err(|e| vec![e.to_string()])?;
    let kind = |i: &usize| match decoder.layers.get(*i).is_some_and(|l| l.slides) {
        true => "sliding_attention",
        false => "full_attention",
    };
    Ok(kept.iter().map(kind).collect())
}

/// What the network's own rule says.
fn network_form(
    component: &Component,
    network: &Network,
    edited: &Graph,
) -> std::result::Result<StockForm, Vec<String>> {
    let (config, numbers) = (network.stock)(&component.config, &component.graph, edited)?;
    Ok(StockForm { config, numbers, depth: 0, kept: Vec::new(), shifts: BTreeMap::new(), notes: Vec::new() })
}

fn positions<'a>(of: impl Iterator<Item = &'a usize>, left: &dyn Fn(&usize) -> bool) -> Vec<usize> {
    of.enumerate().filter(|(_, n)| left(n)).map(|(i, _)| i).collect()
}

/// Without a family only whole blocks of the only stack may be gone, and a key of the config must count them.
fn opaque_form(
    component: &Component,
    lineage: &[Plan],
    edited: &Graph,
) -> std::result::Result<StockForm, Vec<String>> {
    let before = &component.graph;
    let stacks = block_lists(before);
    let [prefix] = stacks.as_slice() else {
        if before.tensors.len() == edited.tensors.len() {
            let (config, numbers) = (component.config.clone(), Renumbering::default());
            return Ok(StockForm {
                config,
                numbers,
                depth: 0,
                kept: Vec::new(),
                shifts: BTreeMap::new(),
                notes: Vec::new(),
            });
        }
        let list = if stacks.is_empty() { "none".to_owned() } else { stacks.join(", ") };
        return Err(vec![format!("one stack of blocks was expected; found {list}")]);
    };
    let (all, left) = (numbers(before, prefix), numbers(edited, prefix));
    let keys = depth_keys(&component.config, all.len());
    if keys.is_empty() && all.len() != left.len() {
        return Err(vec![format!(
            "none of the keys {} of the config is {}, the number of blocks",
            DEPTH_KEYS.join(", "),
            all.len()
        )]);
    }
    let kept = positions(all.iter(), &|n| left.contains(n));
    let config = cut_config(&component.config, &keys, all.len(), &kept);
    // Some models count from 1; in one that was cut before, the first number may be any.
    let first = if lineage.is_empty() { all.first().copied().unwrap_or(0) } else { 0 };
    Ok(StockForm {
        config,
        numbers: Renumbering::blocks(prefix, first, left),
        depth: all.len(),
        kept,
        shifts: BTreeMap::new(),
        notes: Vec::new(),
    })
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

/// Where the edited graph's norms add something else to their weights than the stock one's.
fn shifts(edited: &Graph, stock: &Graph, numbers: &Renumbering) -> BTreeMap<String, f64> {
    let stock = norm_offsets(stock);
    let mine = norm_offsets(edited);
    let mut out = BTreeMap::new();
    for node in edited.nodes.iter().filter(|n| matches!(n.op, Op::RmsNorm { .. })) {
        for t in node.weights.values() {
            let name = edited.tensor(*t).name.as_str();
            let of = |all: &BTreeMap<&str, f64>, name: &str| all.get(name).copied().unwrap_or(0.0);
            let by = of(&mine, name) - of(&stock, &numbers.apply(name));
            if by != 0.0 {
                out.insert(name.to_owned(), by);
            }
        }
    }
    out
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
        // What is added to a weight is a matter of how files store it.
        (Op::RmsNorm { eps: x, .. }, Op::RmsNorm { eps: y, .. }) => x == y,
        _ => a == b,
    }
}
