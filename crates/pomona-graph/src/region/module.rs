//! Regions of modules: the nodes under a path, if they are removable together.

use std::collections::HashSet;

use super::between::between;
use super::{Flow, Region, RegionKind};
use crate::graph::{NodeId, ValueId};
use crate::op::{BinaryFn, Op};

/// Whether `path` is `module` or lies under it.
pub(crate) fn is_under(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Modules by path.
pub(super) type Modules = indexmap::IndexMap<String, Vec<NodeId>>;

/// Every module path of the graph with its nodes: each node's own path and all prefixes of it, in order of appearance.
pub(super) fn modules(flow: &Flow<'_>) -> Modules {
    let mut out = Modules::new();
    for (id, node) in flow.graph.iter() {
        let cuts = node.path.match_indices('.').map(|(i, _)| i).chain([node.path.len()]);
        for end in cuts {
            out.entry(node.path[..end].to_owned()).or_default().push(id);
        }
    }
    out
}

/// The region of a module, or a sentence that says why it cannot go.
pub(super) fn module_region(
    flow: &Flow<'_>,
    path: &str,
    nodes: &[NodeId],
    kind: RegionKind,
) -> Result<Region, String> {
    let members: HashSet<NodeId> = nodes.iter().copied().collect();
    let graph = flow.graph;
    let made = nodes.iter().flat_map(|n| &graph.node(*n).outputs);
    let used = |v: &&ValueId| {
        flow.port(**v).is_some() || flow.readers(**v).iter().any(|(n, _)| !members.contains(n))
    };
    let outputs: Vec<ValueId> = made.filter(used).copied().collect();
    let to = *outputs.last().ok_or("nothing outside it reads what it computes")?;
    let mut inputs: Vec<ValueId> = Vec::new();
    for v in nodes.iter().flat_map(|n| &graph.node(*n).inputs) {
        let outside = flow.producer(*v).is_none_or(|n| !members.contains(&n));
        let state = graph.states.iter().any(|s| s.input == *v);
        if outside && !state && !inputs.contains(v) {
            inputs.push(*v);
        }
    }
    let from = main_stream(flow, &inputs, to).ok_or_else(|| {
        let show =
            |v: &ValueId| format!("`{}` {}", flow.name(*v).0, crate::dim::show_shape(&graph.value(*v).shape));
        let list: Vec<String> = inputs.iter().map(show).collect();
        let list = if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
        format!("it gives {} and reads {list}: no input has the shape of its output", show(&to))
    })?;
    let region = between(flow, from, to, path.to_owned(), kind)?;
    let inside: HashSet<NodeId> = region.nodes.iter().copied().collect();
    // Another output that does not come from the stream would stay behind with its nodes.
    for v in outputs.iter().filter(|v| **v != to) {
        if flow.producer(*v).is_some_and(|n| !inside.contains(&n)) {
            return Err(format!("it has a further output, `{}`, that others read", flow.name(*v).0));
        }
    }
    let through = flow.paths(from, to).into_iter().find(|n| !members.contains(n));
    if let Some(n) = through {
        return Err(format!("what it computes passes through `{}` outside it", graph.node(n).path));
    }
    Ok(region)
}

/// Which input is the main stream: an operand of the join that makes the output, else the first one read that has its
/// shape.
fn main_stream(flow: &Flow<'_>, inputs: &[ValueId], to: ValueId) -> Option<ValueId> {
    let fits = |v: &&ValueId| flow.same_type(**v, to) && !flow.paths(**v, to).is_empty();
    let join = flow.producer(to).map(|n| flow.graph.node(n));
    let operands: &[ValueId] = match join {
        Some(n) if matches!(n.op, Op::Add {} | Op::Binary { function: BinaryFn::Add }) => &n.inputs,
        _ => &[],
    };
    let direct = inputs.iter().filter(|v| operands.contains(v)).find(fits);
    direct.or_else(|| inputs.iter().find(fits)).copied()
}
