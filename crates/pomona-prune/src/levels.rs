//! Levels of a network by resolution: 0 is that of the input, each coarser one the next; and the edits that take the innermost
//! levels out.

use std::collections::BTreeSet;

use pomona_cost::default_bindings;
use pomona_graph::{ChannelGroup, Edit, Graph, NodeId, Op, ValueId, apply};

use crate::error::{PruneError, Result};

/// Number of positions of each value, for values that have positions; at the default sizes. Behind a linear layer the
/// channels stand last, elsewhere second.
fn volumes(graph: &Graph) -> Result<Vec<Option<u64>>> {
    let bound = graph.bind(&default_bindings(graph))?;
    let producers = bound.producers();
    let linear = |v: usize| producers[v].is_some_and(|(n, _)| matches!(bound.node(n).op, Op::Linear {}));
    let size = |d: &pomona_graph::Dim| d.as_int().and_then(|n| u64::try_from(n).ok());
    let volume = |(i, v): (usize, &pomona_graph::Value)| {
        let positions = if linear(i) { v.shape.get(1..v.shape.len().max(1) - 1) } else { v.shape.get(2..) };
        let positions = positions.filter(|p| !p.is_empty())?;
        positions.iter().try_fold(1_u64, |n, d| n.checked_mul(size(d)?))
    };
    Ok(bound.values.iter().enumerate().map(volume).collect())
}

/// The resolutions of the network, finest first: those at which convolutions work on what comes from the input with most
/// positions. Another input's branch (speech beside a picture) has resolutions of its own, which are no levels.
fn resolutions(graph: &Graph, volumes: &[Option<u64>]) -> Vec<u64> {
    let volume = |v: ValueId| volumes[v.0 as usize];
    // Of equals the first.
    let main = graph.inputs.iter().rev().max_by_key(|p| volume(p.value)).map(|p| p.value);
    let mut from_main = vec![false; graph.values.len()];
    let mut distinct: BTreeSet<u64> = main.and_then(volume).into_iter().collect();
    main.iter().for_each(|v| from_main[v.0 as usize] = true);
    for node in &graph.nodes {
        if node.inputs.iter().any(|v| from_main[v.0 as usize]) {
            node.outputs.iter().for_each(|v| from_main[v.0 as usize] = true);
            if matches!(node.op, Op::Conv(_) | Op::ConvTranspose { .. }) {
                distinct.extend(node.outputs.iter().filter_map(|v| volume(*v)));
            }
        }
    }
    distinct.into_iter().rev().collect()
}

/// The level of each group: how many resolutions are finer than that of what its channels are made at; none for channels
/// without positions.
///
/// # Errors
/// [`PruneError::Unfit`] where the network has one resolution only.
pub fn group_levels(graph: &Graph, groups: &[ChannelGroup]) -> Result<Vec<Option<usize>>> {
    let volumes = volumes(graph)?;
    let finest_first = resolutions(graph, &volumes);
    if finest_first.len() < 2 {
        return Err(PruneError::Unfit(format!(
            "`{}` works at one resolution: it has no inner levels; use --method filters",
            graph.name
        )));
    }
    let level = |v: ValueId| {
        let volume = volumes[v.0 as usize]?;
        Some(finest_first.iter().filter(|finer| **finer > volume).count())
    };
    let of = |g: &ChannelGroup| {
        let made = g.makers(graph).filter_map(|(id, _)| graph.node(id).outputs.first());
        // A group that is made at several resolutions belongs to the outermost: it is cut there too.
        made.filter_map(|v| level(*v)).min()
    };
    Ok(groups.iter().map(of).collect())
}

/// Edits that take out the `count` innermost levels: the join behind each loses what comes from within, and where the old
/// innermost level had no norm on its way down, the new one has none either.
///
/// # Errors
/// [`PruneError::Unfit`] where a network has no such join, or an input is read within the levels alone.
pub fn drop_levels(graph: &Graph, count: usize) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    let mut current = graph.clone();
    for done in 0..count {
        let found = innermost(&current)?.ok_or_else(|| {
            PruneError::Unfit(format!(
                "`{}` has {done} inner levels that can be taken out, {count} were asked for: a level ends where a Concat or Add \
                 joins it with a skip of a finer resolution",
                graph.name
            ))
        })?;
        edits.extend(found);
        current = apply(graph, &edits)?.0;
        if let Some(input) =
            graph.inputs.iter().find(|p| is_read(graph, &p.name) && !is_read(&current, &p.name))
        {
            return Err(PruneError::Unfit(format!(
                "`{}` reads its input `{}` only within the {} innermost levels: without them the output would not depend on it; \
                 cut their filters instead (--from-level)",
                graph.name,
                input.name,
                done + 1
            )));
        }
    }
    Ok(edits)
}

/// Whether an output is computed from an input.
fn is_read(graph: &Graph, input: &str) -> bool {
    let Some(from) = graph.input(input) else { return false };
    let mut reached = vec![false; graph.values.len()];
    reached[from.0 as usize] = true;
    for node in &graph.nodes {
        if node.inputs.iter().any(|v| reached[v.0 as usize]) {
            node.outputs.iter().for_each(|v| reached[v.0 as usize] = true);
        }
    }
    graph.outputs.iter().any(|p| reached[p.value.0 as usize])
}

/// The edits that take out the innermost level.
fn innermost(graph: &Graph) -> Result<Option<Vec<Edit>>> {
    let volumes = volumes(graph)?;
    let ancestors = Ancestors::of(graph);
    let volume = |v: ValueId| volumes[v.0 as usize];
    let mut best: Option<(u64, NodeId, usize, Vec<NodeId>)> = None;
    for (id, node) in graph.iter() {
        if !matches!(node.op, Op::Concat { axis: 1 } | Op::Add {}) || node.inputs.len() != 2 {
            continue;
        }
        let Some(own) = node.outputs.first().and_then(|v| volume(*v)) else { continue };
        for inner in 0..2 {
            let (from, skip) = (node.inputs[inner], node.inputs[1 - inner]);
            let within = ancestors.only(from, skip);
            let coarser =
                |n: &NodeId| graph.node(*n).outputs.iter().any(|v| volume(*v).is_some_and(|c| c < own));
            if within.iter().any(coarser) && best.as_ref().is_none_or(|b| own < b.0) {
                best = Some((own, id, inner, within));
            }
        }
    }
    let Some((own, join, inner, within)) = best else { return Ok(None) };
    let node = graph.node(join);
    let mut edits = vec![Edit::DropOperand { node: node.path.clone(), index: inner }];
    let down = within.iter().map(|n| graph.node(*n)).find(|n| {
        n.outputs.first().and_then(|v| volume(*v)).is_some_and(|c| c < own) && matches!(n.op, Op::Conv(_))
    });
    let bare = down.is_some_and(|n| {
        n.outputs.iter().all(|v| !graph.nodes.iter().any(|r| r.inputs.contains(v) && is_norm(&r.op)))
    });
    if bare && let Some((from, to)) = norm_before(graph, node.inputs[1 - inner]) {
        edits.push(Edit::Bypass { from: graph.value_ref(from), to: graph.value_ref(to) });
    }
    Ok(Some(edits))
}

fn is_norm(op: &Op) -> bool {
    matches!(op, Op::BatchNorm { .. } | Op::InstanceNorm { .. } | Op::GroupNorm { .. })
}

/// The norm directly behind the convolution that makes a value, activations between left out: its input and output.
fn norm_before(graph: &Graph, value: ValueId) -> Option<(ValueId, ValueId)> {
    let producers = graph.producers();
    let maker = |v: ValueId| Some(graph.node(producers.get(v.0 as usize).copied().flatten()?.0));
    let mut node = maker(value)?;
    while matches!(node.op, Op::Activation { .. } | Op::Dropout { .. }) {
        node = maker(*node.inputs.first()?)?;
    }
    let from = *node.inputs.first()?;
    let conv = matches!(maker(from)?.op, Op::Conv(_));
    (is_norm(&node.op) && conv).then_some((from, *node.outputs.first()?))
}

/// Which nodes each value is computed from, as bits.
struct Ancestors {
    of: Vec<Vec<u64>>,
    nodes: usize,
}

impl Ancestors {
    fn of(graph: &Graph) -> Ancestors {
        let words = graph.nodes.len().div_ceil(64);
        let mut of = vec![vec![0; words]; graph.values.len()];
        for (id, node) in graph.iter() {
            let mut bits = vec![0_u64; words];
            for v in &node.inputs {
                bits.iter_mut().zip(&of[v.0 as usize]).for_each(|(a, b)| *a |= b);
            }
            bits[id.0 as usize / 64] |= 1 << (id.0 % 64);
            for v in &node.outputs {
                of[v.0 as usize].clone_from(&bits);
            }
        }
        Ancestors { of, nodes: graph.nodes.len() }
    }

    /// Nodes that `value` is computed from and `other` is not, in graph order.
    fn only(&self, value: ValueId, other: ValueId) -> Vec<NodeId> {
        let (a, b) = (&self.of[value.0 as usize], &self.of[other.0 as usize]);
        let bit = |i: usize| (a[i / 64] & !b[i / 64]) >> (i % 64) & 1 == 1;
        (0..self.nodes).filter(|i| bit(*i)).map(|i| NodeId(i as u32)).collect()
    }
}
