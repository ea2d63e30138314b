//! Cutting: classes of elements go, and tensors, attributes and shapes follow.

use std::collections::{BTreeMap, HashSet};

use super::links::{Axis, AxisMap};
use super::notes::cut_notes;
use crate::dim::Dim;
use crate::edit::Work;
use crate::graph::{Graph, Node, Value};
use crate::op::{Direction, Op, SplitMap};
use crate::shape::infer;
use crate::tensor::{Slot, TensorDef, TensorId};

/// What a cut may do to normalised groups of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupRule {
    /// The same number of channels may go from every group, or whole groups.
    EqualCounts,
    /// Only whole groups, so that the statistics of the others stay what they were.
    WholeGroups,
}

/// Indices of an axis that stay.
struct Kept<'a> {
    map: &'a AxisMap,
    /// Whether each class goes, by its number.
    gone: Vec<bool>,
}

impl Kept<'_> {
    /// None where the axis is whole or not tracked.
    fn of(&self, axis: Axis) -> Option<Vec<u32>> {
        if !self.map.classes(axis).any(|c| self.gone[c as usize]) {
            return None;
        }
        let left = (0..).zip(self.map.classes(axis)).filter(|(_, c)| !self.gone[*c as usize]);
        Some(left.map(|(i, _)| i).collect())
    }
}

/// Removes the classes from the graph and the recipe. Whole heads of keys take their values along and the other way round.
pub(crate) fn cut(
    work: &mut Work,
    map: &AxisMap,
    removed: &mut HashSet<u32>,
    rule: GroupRule,
) -> Result<(), String> {
    whole_heads(&work.graph, map, removed);
    if let Some(class) = removed.iter().find(|c| map.lock_of(**c).is_some()) {
        return Err(format!("an index cannot go: {}", map.lock_of(*class).unwrap_or("it is locked")));
    }
    let mut gone = vec![false; map.bound()];
    removed.iter().for_each(|c| gone[*c as usize] = true);
    let kept = Kept { map, gone };
    let mut ops = Vec::with_capacity(work.graph.nodes.len());
    for node in &work.graph.nodes {
        let op = cut_op(&kept, node, rule)
            .map_err(|why| format!("`{}` ({}): {why}", node.path, node.op.name()))?;
        ops.push(op);
    }
    for i in 0..work.graph.tensors.len() {
        let id = TensorId(i as u32);
        for axis in 0..work.graph.tensors[i].shape.len() {
            if let Some(indices) = kept.of(Axis::Tensor(id, axis)) {
                let def = &mut work.graph.tensors[i];
                if indices.is_empty() {
                    return Err(format!(
                        "no index of axis {axis} of `{}` would be left: remove its module",
                        def.name
                    ));
                }
                def.shape[axis] = indices.len();
                let mut expr = std::mem::replace(&mut work.exprs[i], crate::Expr::copy(""));
                // Quantised rows are cut as they are; along a row the blocks must be opened first.
                if axis + 1 == def.shape.len() && !crate::is_plain_dtype(&def.dtype) {
                    expr = crate::Expr::Decode { of: Box::new(expr) };
                    "f32".clone_into(&mut def.dtype);
                }
                work.exprs[i] = expr.gather(axis, indices);
            }
        }
    }
    for node in &work.graph.nodes {
        if let Some(notes) = work.graph.annotations.get_mut(&node.path) {
            *notes = cut_notes(node, notes, |axis| kept.of(axis))?;
        }
    }
    for state in 0..work.graph.states.len() {
        let id = work.graph.states[state].input;
        for axis in 0..map.rank(id) {
            if let Some(indices) = kept.of(Axis::Value(id, axis)) {
                work.graph.values[id.0 as usize].shape[axis] = indices.len().into();
            }
        }
    }
    for (node, op) in work.graph.nodes.iter_mut().zip(ops) {
        if let Some(op) = op {
            node.op = op;
        }
    }
    Ok(())
}

/// Computes every shape anew after attributes or tensors changed.
pub(crate) fn reinfer(graph: &mut Graph) -> Result<(), String> {
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        let inputs: Vec<&Value> = node.inputs.iter().map(|v| graph.value(*v)).collect();
        let weights: BTreeMap<Slot, &TensorDef> =
            node.weights.iter().map(|(s, t)| (*s, graph.tensor(*t))).collect();
        let values = infer(&node.path, &node.op, &inputs, &weights).map_err(|e| e.to_string())?;
        let outputs = graph.nodes[i].outputs.clone();
        for (id, value) in outputs.into_iter().zip(values) {
            graph.values[id.0 as usize] = value;
        }
    }
    Ok(())
}

/// A head whose keys or whose values are all gone goes as a whole.
fn whole_heads(graph: &Graph, map: &AxisMap, removed: &mut HashSet<u32>) {
    let attentions: Vec<(&Node, usize)> = graph
        .nodes
        .iter()
        .filter_map(|n| match &n.op {
            Op::Attention(a) if n.inputs.len() > 2 => Some((n, a.kv_heads.max(1))),
            _ => None,
        })
        .collect();
    loop {
        let before = removed.len();
        for (node, heads) in &attentions {
            let heads_of = |v| {
                let classes: Vec<u32> = map.classes(Axis::Value(v, 2)).collect();
                let width = (classes.len() / heads).max(1);
                classes.chunks(width).map(<[u32]>::to_vec).collect::<Vec<_>>()
            };
            for (k, v) in heads_of(node.inputs[1]).into_iter().zip(heads_of(node.inputs[2])) {
                let gone = |head: &[u32]| head.iter().all(|c| removed.contains(c));
                if gone(&k) || gone(&v) {
                    removed.extend(k);
                    removed.extend(v);
                }
            }
        }
        if removed.len() == before {
            return;
        }
    }
}

/// How many indices stay in each of `runs` equal runs: those that keep any must keep the same number.
fn per_run(kept: &[u32], len: usize, runs: usize, what: &str) -> Result<Vec<usize>, String> {
    let width = (len / runs.max(1)).max(1);
    let mut counts = vec![0; runs];
    for i in kept {
        if let Some(c) = counts.get_mut(*i as usize / width) {
            *c += 1;
        }
    }
    let mut left = counts.iter().filter(|c| **c > 0);
    let first = left.next();
    match left.find(|c| Some(*c) != first) {
        Some(other) => Err(format!(
            "{what} would keep {} and {other} indices: keep the same number in each, or none",
            first.copied().unwrap_or(0)
        )),
        None => Ok(counts),
    }
}

/// The operator after the cut; none where it stays as it is.
fn cut_op(kept: &Kept<'_>, node: &Node, rule: GroupRule) -> Result<Option<Op>, String> {
    let value = |list: &[crate::ValueId], i: usize, axis: usize| {
        let axis = Axis::Value(*list.get(i)?, axis);
        Some((kept.of(axis)?, kept.map.len(axis)?))
    };
    let input = |i: usize, axis: usize| value(&node.inputs, i, axis);
    let output = |i: usize, axis: usize| value(&node.outputs, i, axis);
    let nonempty = |counts: &[usize]| counts.iter().filter(|c| **c > 0).count();
    let last = |list: &[crate::ValueId]| list.first().map_or(0, |v| kept.map.rank(*v).saturating_sub(1));
    Ok(match &node.op {
        Op::GroupNorm { groups, eps } => match input(0, 1) {
            Some((indices, len)) => {
                let size = (len / groups.max(&1)).max(1);
                let mut left = vec![0; *groups];
                for i in &indices {
                    if let Some(n) = left.get_mut(*i as usize / size) {
                        *n += 1;
                    }
                }
                if rule == GroupRule::WholeGroups && left.iter().any(|n| *n != 0 && *n != size) {
                    return Err(format!(
                        "its {groups} groups of {size} channels would be cut within a group, which changes the \
                         statistics of what is left: only whole groups can go"
                    ));
                }
                let counts = per_run(&indices, len, *groups, "groups")?;
                Some(Op::GroupNorm { groups: nonempty(&counts), eps: *eps })
            }
            None => None,
        },
        Op::LayerNorm { .. } | Op::RmsNorm { .. } if rule == GroupRule::WholeGroups => {
            match input(0, last(&node.inputs)) {
                Some(_) => {
                    return Err(
                        "it normalises over the joined channels, so that the others would change: only \
                                a part that no such norm reads can be dropped"
                            .to_owned(),
                    );
                }
                None => None,
            }
        }
        Op::Conv(attrs) if attrs.groups > 1 => match (input(0, 1), output(0, 1)) {
            (None, None) => None,
            (x, y) => {
                let mut attrs = attrs.clone();
                let depthwise = x.as_ref().is_some_and(|(_, len)| *len == attrs.groups);
                if let Some((indices, len)) = y {
                    let counts = per_run(&indices, len, attrs.groups, "channel groups")?;
                    if !depthwise && counts.contains(&0) {
                        return Err("a channel group would lose all its outputs".to_owned());
                    }
                }
                if let (Some((indices, _)), true) = (&x, depthwise) {
                    attrs.groups = indices.len();
                }
                Some(Op::Conv(attrs))
            }
        },
        Op::ConvTranspose { conv, output_padding } if conv.groups > 1 => input(0, 1).map(|(indices, _)| {
            let mut conv = conv.clone();
            conv.groups = indices.len();
            Op::ConvTranspose { conv, output_padding: output_padding.clone() }
        }),
        Op::Attention(attrs) => {
            let mut attrs = attrs.clone();
            let (heads, kv) = (attrs.heads, attrs.kv_heads);
            for (i, runs) in [(0, heads), (1, kv), (2, kv)] {
                if let Some((indices, len)) = input(i, 2) {
                    let counts = per_run(&indices, len, runs, "heads")?;
                    if nonempty(&counts) == 0 {
                        return Err("no head would be left: remove the attention".to_owned());
                    }
                    if i == 0 {
                        attrs.heads = nonempty(&counts);
                    } else {
                        attrs.kv_heads = nonempty(&counts);
                    }
                }
            }
            Some(Op::Attention(attrs))
        }
        Op::Rope(attrs) => {
            match input(0, last(&node.inputs)) {
                Some((indices, len)) => {
                    let counts = per_run(&indices, len, attrs.heads, "heads")?;
                    let width = (len / attrs.heads.max(1)).max(1);
                    let mut turning = vec![0; attrs.heads];
                    for i in indices.iter().map(|i| *i as usize).filter(|i| i % width < attrs.rotary) {
                        turning[i / width] += 1;
                    }
                    if counts.iter().zip(&turning).any(|(c, t)| *c > 0 && *t != attrs.rotary) {
                        return Err("channels of a head turn at frequencies of their own: only whole heads, or channels \
                                that do not turn, can go"
                        .to_owned());
                    }
                    let mut attrs = attrs.clone();
                    attrs.heads = nonempty(&counts);
                    Some(Op::Rope(attrs))
                }
                None => None,
            }
        }
        Op::Recurrent { cell, direction, reset_after, .. } => match output(0, 2) {
            Some((indices, len)) => {
                let runs = if *direction == Direction::Both { 2 } else { 1 };
                let counts = per_run(&indices, len, runs, "directions")?;
                if nonempty(&counts) < runs {
                    return Err("a direction would lose all its hidden units".to_owned());
                }
                let hidden = indices.len() / runs;
                Some(Op::Recurrent { cell: *cell, hidden, direction: *direction, reset_after: *reset_after })
            }
            None => None,
        },
        Op::Split { axis, map: SplitMap::Parts { sizes } } => {
            let sizes = part_sizes(sizes, |p| output(p, *axis).map(|(i, _)| i.len()));
            Some(Op::Split { axis: *axis, map: SplitMap::Parts { sizes } })
        }
        Op::Split { axis, map: SplitMap::Interleaved { groups, sizes } } => {
            let mut left = None;
            let mut widths = Vec::with_capacity(sizes.len());
            for p in 0..sizes.len() {
                let Some((indices, len)) = output(p, *axis) else {
                    widths.push(None);
                    continue;
                };
                let counts = per_run(&indices, len, *groups, "runs")?;
                let mine: Vec<bool> = counts.iter().map(|c| *c > 0).collect();
                if left.get_or_insert_with(|| mine.clone()) != &mine {
                    return Err("its parts would lose different runs".to_owned());
                }
                widths.push(counts.into_iter().max());
            }
            let runs = left.map_or(*groups, |l: Vec<bool>| l.into_iter().filter(|b| *b).count());
            if runs != *groups && widths.contains(&None) {
                return Err("a run would go from some of its parts only".to_owned());
            }
            let sizes = part_sizes(sizes, |p| widths.get(p).copied().flatten());
            Some(Op::Split { axis: *axis, map: SplitMap::Interleaved { groups: runs, sizes } })
        }
        Op::Reshape { shape } => {
            let sizes = part_sizes(shape, |a| output(0, a).map(|(i, _)| i.len()));
            Some(Op::Reshape { shape: sizes })
        }
        Op::Pad { amounts, mode } => {
            let mut amounts = amounts.clone();
            for (axis, [before, after]) in amounts.iter_mut().enumerate() {
                if let Some((indices, len)) = output(0, axis) {
                    let (start, end) = (*before, len.saturating_sub(*after));
                    *before = indices.iter().filter(|i| (**i as usize) < start).count();
                    *after = indices.iter().filter(|i| **i as usize >= end).count();
                }
            }
            Some(Op::Pad { amounts, mode: *mode })
        }
        Op::Expand { shape } => {
            let sizes = part_sizes(shape, |a| output(0, a).map(|(i, _)| i.len()));
            Some(Op::Expand { shape: sizes })
        }
        _ => None,
    })
}

fn part_sizes(sizes: &[Dim], new: impl Fn(usize) -> Option<usize>) -> Vec<Dim> {
    sizes.iter().enumerate().map(|(i, d)| new(i).map_or_else(|| d.clone(), Dim::from)).collect()
}
