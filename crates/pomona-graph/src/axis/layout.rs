//! Links of operators that move elements without changing them.

use super::links::{Axis, AxisMap};
use super::relations::{broadcast, identity, lock_rest};
use crate::dim::Dim;
use crate::graph::{Graph, Node, ValueId};
use crate::op::{Op, PadMode, SplitMap};

/// Links a layout operator; false where it is none.
pub(super) fn link(map: &mut AxisMap, graph: &Graph, node: &Node) -> bool {
    let (Some(&x), Some(&y)) = (node.inputs.first(), node.outputs.first()) else { return false };
    match &node.op {
        Op::Concat { axis } => {
            let mut offset = Some(0);
            for v in &node.inputs {
                identity(map, *v, y, |a| a != *axis);
                let len = map.len(Axis::Value(*v, *axis));
                match (offset, len) {
                    (Some(o), Some(n)) => {
                        map.link(Axis::Value(*v, *axis), Axis::Value(y, *axis), (0..n).map(|i| (i, o + i)));
                        offset = Some(o + n);
                    }
                    _ => offset = None,
                }
                if offset.is_none() {
                    lock_rest(map, node, &[*v, y], |a| a == *axis, "has a symbolic part in");
                }
            }
        }
        Op::Split { axis, map: parts } => {
            node.outputs.iter().for_each(|v| identity(map, x, *v, |a| a != *axis));
            let (groups, sizes) = match parts {
                SplitMap::Parts { sizes } => (1, sizes),
                SplitMap::Interleaved { groups, sizes } => (*groups, sizes),
            };
            let sizes: Option<Vec<usize>> =
                sizes.iter().map(|d| d.as_int().and_then(|n| usize::try_from(n).ok())).collect();
            let Some(sizes) = sizes else {
                lock_rest(map, node, &[x], |a| a == *axis, "has symbolic parts in");
                node.outputs.iter().for_each(|v| {
                    lock_rest(map, node, &[*v], |a| a == *axis, "is a symbolic part of");
                });
                return true;
            };
            let stride: usize = sizes.iter().sum();
            let mut start = 0;
            for (v, size) in node.outputs.iter().zip(sizes) {
                let pairs = (0..groups * size).map(|i| (i / size * stride + start + i % size, i));
                map.link(Axis::Value(x, *axis), Axis::Value(*v, *axis), pairs);
                start += size;
            }
        }
        Op::Slice { axis, .. } => {
            identity(map, x, y, |a| a != *axis);
            lock_rest(map, node, &[x, y], |a| a == *axis, "is counted along by");
        }
        Op::Reshape { .. } => reshape(map, graph, node, x, y),
        Op::Transpose { axes } => {
            for (to, from) in axes.iter().enumerate() {
                map.same(Axis::Value(x, *from), Axis::Value(y, to));
            }
        }
        Op::Expand { .. } => broadcast(map, x, y, 0),
        Op::Gather { axis } => {
            let Some(&indices) = node.inputs.get(1) else { return false };
            let added = map.rank(indices);
            for a in 0..map.rank(x) {
                match a.cmp(axis) {
                    std::cmp::Ordering::Less => map.same(Axis::Value(x, a), Axis::Value(y, a)),
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => {
                        map.same(Axis::Value(x, a), Axis::Value(y, a + added - 1));
                    }
                }
            }
            for a in 0..added {
                map.same(Axis::Value(indices, a), Axis::Value(y, axis + a));
            }
            lock_rest(map, node, &[x], |a| a == *axis, "is indexed by");
        }
        Op::Pad { amounts, mode } => {
            let padded = |a: usize| amounts.get(a).is_none_or(|p| *p != [0, 0]);
            identity(map, x, y, |a| !padded(a));
            if matches!(mode, PadMode::Constant { .. }) {
                // New elements belong to nothing here: what they are joined with later decides about them.
                for (a, [before, _]) in amounts.iter().enumerate().filter(|(a, _)| padded(*a)) {
                    let n = map.len(Axis::Value(x, a)).unwrap_or(0);
                    map.link(Axis::Value(x, a), Axis::Value(y, a), (0..n).map(|i| (i, before + i)));
                }
            } else {
                lock_rest(map, node, &[x, y], padded, "is padded by");
            }
        }
        Op::PixelShuffle { factor, inverse } => {
            identity(map, x, y, |a| a == 0);
            lock_rest(map, node, &[x, y], |a| a > 1, "is a spatial axis of");
            let (wide, narrow) = if *inverse { (y, x) } else { (x, y) };
            let per = factor.saturating_mul(*factor).max(1);
            let (wide, narrow) = (Axis::Value(wide, 1), Axis::Value(narrow, 1));
            let n = map.len(wide).unwrap_or(0);
            map.link(wide, narrow, (0..n).map(|i| (i, i / per)));
        }
        Op::Reduce { axes, keep, .. } => {
            kept_axes(map, x, y, axes, *keep);
            lock_rest(map, node, &[x], |a| axes.contains(&a), "is reduced over by");
        }
        Op::ArgMax { axis, keep } => {
            kept_axes(map, x, y, &[*axis], *keep);
            lock_rest(map, node, &[x], |a| a == *axis, "is indexed by");
        }
        Op::TopK { .. } => {
            let last = map.rank(x).saturating_sub(1);
            node.outputs.iter().for_each(|v| identity(map, x, *v, |a| a < last));
            lock_rest(map, node, &[x], |a| a == last, "is indexed by");
            node.outputs.iter().for_each(|v| lock_rest(map, node, &[*v], |a| a == last, "is made by"));
        }
        _ => return false,
    }
    true
}

fn kept_axes(map: &mut AxisMap, x: ValueId, y: ValueId, reduced: &[usize], keep: bool) {
    let mut to = 0;
    for a in 0..map.rank(x) {
        if !reduced.contains(&a) {
            map.same(Axis::Value(x, a), Axis::Value(y, to));
        }
        to += usize::from(keep || !reduced.contains(&a));
    }
}

/// Links a reshape run by run: equal axes are the same; where one axis is shared out or several are joined, the outermost
/// goes with its run of elements and the inner ones stay whole.
fn reshape(map: &mut AxisMap, graph: &Graph, node: &Node, x: ValueId, y: ValueId) {
    let (from, to) = (&graph.value(x).shape, &graph.value(y).shape);
    let whole = "is shared out or joined by";
    let mut at = (0, 0);
    while at.0 < from.len() || at.1 < to.len() {
        let Some((m, n)) = next_run(&from[at.0..], &to[at.1..]) else {
            lock_rest(map, node, &[x], |a| a >= at.0, whole);
            return lock_rest(map, node, &[y], |a| a >= at.1, whole);
        };
        match (m, n) {
            (1, 1) => map.same(Axis::Value(x, at.0), Axis::Value(y, at.1)),
            // An axis of size 1 comes or goes: nothing is linked to it.
            (1, 0) | (0, 1) => {}
            (1, _) | (_, 1) => {
                let (joined, outer) = if m == 1 {
                    (Axis::Value(x, at.0), Axis::Value(y, at.1))
                } else {
                    (Axis::Value(y, at.1), Axis::Value(x, at.0))
                };
                match (map.len(joined), map.len(outer)) {
                    (Some(all), Some(count)) if count > 0 && all % count == 0 => {
                        let run = (all / count).max(1);
                        map.link(joined, outer, (0..all).map(|i| (i, i / run)));
                    }
                    _ => {
                        map.lock(joined, "it is joined with an axis of symbolic size");
                        map.lock(outer, "it is joined with an axis of symbolic size");
                    }
                }
                lock_rest(map, node, &[x], |a| a > at.0 && a < at.0 + m, whole);
                lock_rest(map, node, &[y], |a| a > at.1 && a < at.1 + n, whole);
            }
            _ => {
                lock_rest(map, node, &[x], |a| a >= at.0 && a < at.0 + m, whole);
                lock_rest(map, node, &[y], |a| a >= at.1 && a < at.1 + n, whole);
            }
        }
        at = (at.0 + m, at.1 + n);
    }
}

/// The fewest leading axes of both shapes with one product; an axis of size 1 without a partner is a run of its own.
pub(super) fn next_run(from: &[Dim], to: &[Dim]) -> Option<(usize, usize)> {
    let one = Dim::from(1);
    match (from.first(), to.first()) {
        (Some(a), Some(b)) if a == b => return Some((1, 1)),
        (Some(a), _) if *a == one => return Some((1, 0)),
        (_, Some(b)) if *b == one => return Some((0, 1)),
        _ => {}
    }
    let product = |dims: &[Dim]| dims.iter().try_fold(Dim::from(1), |p, d| p.checked_mul(d).ok());
    (2..=from.len() + to.len())
        .flat_map(|total| (1..total).map(move |m| (m, total - m)))
        .filter(|(m, n)| *m <= from.len() && *n <= to.len())
        .find(|(m, n)| product(&from[..*m]).is_some_and(|p| Some(p) == product(&to[..*n])))
}
