//! Residual regions: a join of the stream with a branch computed from it.

use super::between::between;
use super::module::is_under;
use super::{Flow, Region, RegionKind};
use crate::graph::{NodeId, ValueId};
use crate::op::{BinaryFn, Op};

/// A region for every join `x + f(x)` whose branch is closed, in graph order.
pub(super) fn residual_regions(flow: &Flow<'_>) -> Vec<Region> {
    flow.graph.iter().filter_map(|(id, _)| residual_region(flow, id)).collect()
}

fn is_join(op: &Op) -> bool {
    matches!(op, Op::Add {} | Op::Binary { function: BinaryFn::Add })
}

fn residual_region(flow: &Flow<'_>, join: NodeId) -> Option<Region> {
    let node = flow.graph.node(join);
    let out = *node.outputs.first()?;
    if !is_join(&node.op) {
        return None;
    }
    let feeds_the_others = |x: &&ValueId| {
        let others = || node.inputs.iter().filter(|v| v != x);
        flow.same_type(**x, out)
            && others().next().is_some()
            && others().all(|v| !flow.paths(**x, *v).is_empty())
    };
    let stream = *node.inputs.iter().find(feeds_the_others)?;
    let inside = flow.paths(stream, out);
    let to = trailing_norm(flow, stream, join, &inside).unwrap_or(out);
    let mut region = between(flow, stream, to, node.path.clone(), RegionKind::Sublayer).ok()?;
    if let Some(path) = own_module(flow, &region.nodes) {
        region.path = path;
    }
    Some(region)
}

/// Post-norm: where the branch does not begin with a norm and only a norm reads the join, the norm belongs to the
/// sublayer.
fn trailing_norm(flow: &Flow<'_>, stream: ValueId, join: NodeId, inside: &[NodeId]) -> Option<ValueId> {
    let is_norm = |n: NodeId| matches!(flow.graph.node(n).op, Op::LayerNorm { .. } | Op::RmsNorm { .. });
    let begins_with_norm =
        flow.readers(stream).iter().any(|(n, _)| *n != join && inside.contains(n) && is_norm(*n));
    let out = *flow.graph.node(join).outputs.first()?;
    match flow.readers(out) {
        [(only, _)] if !begins_with_norm && is_norm(*only) && flow.port(out).is_none() => {
            // A final norm after pre-norm blocks stands outside the block; a block's own norm shares its module.
            let parent = |n: NodeId| flow.graph.node(n).path.rsplit_once('.').map(|(p, _)| p.to_owned());
            let norm = flow.graph.node(*only);
            let near = parent(join).is_some_and(|p| is_under(&norm.path, &p));
            near.then(|| norm.outputs.first().copied())?
        }
        _ => None,
    }
}

/// The module of the region's matrix weights, where all of it lies in the region.
fn own_module(flow: &Flow<'_>, nodes: &[NodeId]) -> Option<String> {
    let graph = flow.graph;
    let heavy = |n: &&NodeId| {
        matches!(
            graph.node(**n).op,
            Op::Linear {} | Op::Conv(_) | Op::ConvTranspose { .. } | Op::Attention(_) | Op::Recurrent { .. }
        )
    };
    let mut paths = nodes.iter().filter(heavy).map(|n| graph.node(*n).path.as_str());
    let first = paths.next()?;
    let mut common: Vec<&str> = first.split('.').collect();
    let mut several = false;
    for path in paths {
        several = true;
        let same = common.iter().zip(path.split('.')).take_while(|(a, b)| *a == b).count();
        common.truncate(same);
    }
    if !several {
        // A single operator's module is its parent: the branch is more than the operator.
        common.pop();
    }
    let module = common.join(".");
    let inside: std::collections::HashSet<NodeId> = nodes.iter().copied().collect();
    let whole = graph.iter().all(|(id, n)| !is_under(&n.path, &module) || inside.contains(&id));
    (!module.is_empty() && whole).then_some(module)
}
