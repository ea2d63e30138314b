//! Parts that methods may remove, with what goes when they go.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use pomona_graph::{Graph, NodeId, Role};

use crate::report::{BlockCost, OperatorCost};

/// A part as the graph's analysis gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSpec {
    /// Path for people and plans.
    pub path: String,
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// Whether the graph stays sound without it.
    pub removable: bool,
}

/// Costs of parts: tensors that a node outside the part also uses are not theirs.
pub(crate) fn costs(
    graph: &Graph,
    specs: &[BlockSpec],
    operators: &[OperatorCost],
    tensor_bytes: &[u64],
) -> Vec<BlockCost> {
    let mut uses = vec![0_usize; graph.tensors.len()];
    for id in graph.nodes.iter().flat_map(|n| n.weights.values()) {
        uses[id.0 as usize] += 1;
    }
    let orphans = orphans_by_prefix(graph, specs, &uses);
    specs.iter().map(|s| one(graph, s, operators, tensor_bytes, &uses, &orphans)).collect()
}

fn one(
    graph: &Graph,
    spec: &BlockSpec,
    operators: &[OperatorCost],
    tensor_bytes: &[u64],
    uses: &[usize],
    orphans: &BTreeMap<&str, Vec<usize>>,
) -> BlockCost {
    let nodes: BTreeSet<NodeId> = spec.nodes.iter().copied().collect();
    let mut inside: BTreeMap<usize, usize> = BTreeMap::new();
    let mut macs = 0_u64;
    for id in nodes {
        macs = macs.saturating_add(operators[id.0 as usize].macs.full);
        for t in graph.node(id).weights.values() {
            *inside.entry(t.0 as usize).or_default() += 1;
        }
    }
    let owned = inside.into_iter().filter(|(t, n)| uses[*t] == *n).map(|(t, _)| t);
    let unused = orphans.get(spec.path.as_str()).into_iter().flatten().copied();
    let (mut parameters, mut weight_bytes) = (0_u64, 0_u64);
    for t in owned.chain(unused) {
        weight_bytes = weight_bytes.saturating_add(tensor_bytes[t]);
        if graph.tensors[t].role == Role::Parameter {
            parameters = parameters.saturating_add(graph.tensors[t].elements());
        }
    }
    BlockCost {
        path: spec.path.clone(),
        class: graph.modules.get(&spec.path).cloned(),
        parameters,
        weight_bytes,
        macs,
        removable: spec.removable,
    }
}

/// Tensors that no node uses belong to the part whose path their name begins with: those of an opaque model.
fn orphans_by_prefix<'a>(
    graph: &Graph,
    specs: &'a [BlockSpec],
    uses: &[usize],
) -> BTreeMap<&'a str, Vec<usize>> {
    let paths: HashSet<&'a str> = specs.iter().map(|s| s.path.as_str()).collect();
    let mut out: BTreeMap<&'a str, Vec<usize>> = BTreeMap::new();
    for (i, t) in graph.tensors.iter().enumerate().filter(|(i, _)| uses[*i] == 0) {
        let found = prefixes(&t.name).find_map(|p| paths.get(p).copied());
        if let Some(path) = found {
            out.entry(path).or_default().push(i);
        }
    }
    out
}

/// `a`, `a.b`, `a.b.c` of `a.b.c.d`.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(at, _)| &path[..at])
}

/// Repeated modules `prefix.N`, the outermost ones, in the order of the graph: parts in name, none marked removable.
pub(crate) fn repeated(graph: &Graph) -> Vec<BlockSpec> {
    let mut order: Vec<BlockSpec> = Vec::new();
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    let mut add = |path: &str, node: Option<NodeId>| {
        let Some(block) = prefixes(path).find(|p| is_numbered(p)) else { return };
        let i = *at.entry(block.to_owned()).or_insert_with(|| {
            order.push(BlockSpec { path: block.to_owned(), nodes: Vec::new(), removable: false });
            order.len() - 1
        });
        order[i].nodes.extend(node);
    };
    for (id, node) in graph.iter() {
        add(&node.path, Some(id));
    }
    if graph.nodes.is_empty() {
        graph.tensors.iter().for_each(|t| add(&t.name, None));
    }
    order
}

fn is_numbered(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())
}
