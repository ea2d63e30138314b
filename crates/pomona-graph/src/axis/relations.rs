//! Which indices of a node's inputs, weights and outputs go together, one rule an operator.

use super::layout;
use super::links::{Axis, AxisMap};
use super::recurrent;
use crate::graph::{Graph, Node, ValueId};
use crate::op::{AttentionAttrs, Op};
use crate::tensor::Slot;

/// Links and locks of one node. What no rule links is locked.
pub(super) fn link_node(map: &mut AxisMap, graph: &Graph, node: &Node) {
    let Some(&y) = node.outputs.first() else { return };
    let x = node.inputs.first().copied();
    match (&node.op, x) {
        (Op::Linear {}, Some(x)) => {
            let last = map.rank(x).saturating_sub(1);
            identity(map, x, y, |a| a < last);
            weight_in(map, node, x, last, 1);
            weight_out(map, node, y, last, 0);
        }
        (Op::Conv(attrs), Some(x)) => {
            identity(map, x, y, |a| a == 0);
            lock_rest(map, node, &[x, y], |a| a > 1, "is a spatial axis of");
            lock_kernel(map, node);
            let (channels, out) = (map.len(Axis::Value(x, 1)), map.len(Axis::Value(y, 1)));
            match (attrs.groups, channels, out) {
                (1, ..) => {
                    weight_in(map, node, x, 1, 1);
                    weight_out(map, node, y, 1, 0);
                }
                (groups, Some(c), Some(o)) if groups > 0 && c % groups == 0 && o % groups == 0 => {
                    weight_out(map, node, y, 1, 0);
                    if c == groups {
                        let per = (o / groups).max(1);
                        map.link(Axis::Value(x, 1), Axis::Value(y, 1), (0..o).map(|k| (k / per, k)));
                        lock_tensor(map, node, Slot::Weight, 1, "each group has one channel");
                    } else if let Some(w) = node.weights.get(&Slot::Weight) {
                        // Every group shares the axis of its input channels: one index goes in all of them.
                        let per = c / groups;
                        map.link(Axis::Value(x, 1), Axis::Tensor(*w, 1), (0..c).map(|k| (k, k % per)));
                    }
                }
                _ => lock_all(map, node),
            }
        }
        (Op::ConvTranspose { conv, .. }, Some(x)) => {
            identity(map, x, y, |a| a == 0);
            lock_rest(map, node, &[x, y], |a| a > 1, "is a spatial axis of");
            lock_kernel(map, node);
            let (channels, out) = (map.len(Axis::Value(x, 1)), map.len(Axis::Value(y, 1)));
            if conv.groups == 1 {
                weight_in(map, node, x, 1, 0);
                weight_out(map, node, y, 1, 1);
            } else if channels == Some(conv.groups) && out == channels {
                weight_in(map, node, x, 1, 0);
                map.same(Axis::Value(x, 1), Axis::Value(y, 1));
                bias_like(map, node, y, 1);
                lock_tensor(map, node, Slot::Weight, 1, "each group has one channel");
            } else {
                lock_all(map, node);
            }
        }
        (Op::Embedding {}, Some(x)) => {
            let width = map.rank(x);
            identity(map, x, y, |_| true);
            if let Some(w) = node.weights.get(&Slot::Weight) {
                map.same(Axis::Tensor(*w, 1), Axis::Value(y, width));
            }
            lock_tensor(map, node, Slot::Weight, 0, "its rows are what the ids stand for");
        }
        (Op::LayerNorm { axes, .. }, Some(x)) => {
            identity(map, x, y, |_| true);
            let first = map.rank(x).saturating_sub(*axes);
            for slot in [Slot::Weight, Slot::Bias] {
                for k in 0..*axes {
                    tensor_axis(map, node, slot, k, x, first + k);
                }
            }
        }
        (Op::RmsNorm { .. }, Some(x)) => {
            identity(map, x, y, |_| true);
            let last = map.rank(x).saturating_sub(1);
            tensor_axis(map, node, Slot::Weight, 0, x, last);
        }
        (Op::GroupNorm { .. } | Op::BatchNorm { .. } | Op::InstanceNorm { .. } | Op::PRelu {}, Some(x)) => {
            identity(map, x, y, |_| true);
            for slot in [Slot::Weight, Slot::Bias, Slot::RunningMean, Slot::RunningVar] {
                tensor_axis(map, node, slot, 0, x, 1);
            }
        }
        (Op::Activation { .. } | Op::Dropout { .. } | Op::Clip { .. }, Some(x))
        | (Op::Scalar { .. } | Op::Cast { .. }, Some(x)) => identity(map, x, y, |_| true),
        (Op::Attention(attrs), _) => attention(map, node, attrs),
        (Op::Rope(_), Some(x)) => {
            identity(map, x, y, |_| true);
            node.inputs.iter().skip(1).for_each(|p| lock_value(map, node, *p));
        }
        (Op::Softmax { axis, .. } | Op::CumSum { axis }, Some(x)) => {
            identity(map, x, y, |_| true);
            lock_rest(map, node, &[x], |a| a == *axis, "all its elements are needed by");
        }
        (Op::Binary { .. } | Op::Add {} | Op::Where {}, _) => {
            node.inputs.iter().for_each(|v| broadcast(map, *v, y, 0));
        }
        (Op::Recurrent { cell, hidden, direction, .. }, Some(_)) => {
            recurrent::link(map, node, *cell, *hidden, *direction);
        }
        (Op::MatMul { transpose_b }, _) => matmul(map, node, *transpose_b),
        (Op::Pool { .. } | Op::AdaptivePool { .. } | Op::Resize { .. }, Some(x)) => {
            identity(map, x, y, |a| a < 2);
            lock_rest(map, node, &[x, y], |a| a > 1, "is a spatial axis of");
        }
        (Op::Constant {}, _) => {
            if let Some(w) = node.weights.get(&Slot::Weight) {
                (0..map.rank(y)).for_each(|a| map.same(Axis::Tensor(*w, a), Axis::Value(y, a)));
            }
        }
        (Op::Sinusoid { .. }, Some(x)) => {
            identity(map, x, y, |_| true);
            let width = map.rank(x);
            lock_rest(map, node, &[y], |a| a == width, "is made of all frequencies by");
        }
        _ => {
            if !layout::link(map, graph, node) {
                lock_all(map, node);
            }
        }
    }
}

/// Axes of one number in both values are the same.
pub(super) fn identity(map: &mut AxisMap, x: ValueId, y: ValueId, of: impl Fn(usize) -> bool) {
    for a in (0..map.rank(x).min(map.rank(y))).filter(|a| of(*a)) {
        map.same(Axis::Value(x, a), Axis::Value(y, a));
    }
}

/// Axes from the right, leaving out the last `skip`; sizes of 1 stretch and are not linked.
pub(super) fn broadcast(map: &mut AxisMap, x: ValueId, y: ValueId, skip: usize) {
    let (rx, ry) = (map.rank(x), map.rank(y));
    for k in skip + 1..=rx.min(ry) {
        map.same(Axis::Value(x, rx - k), Axis::Value(y, ry - k));
    }
}

fn tensor_axis(map: &mut AxisMap, node: &Node, slot: Slot, axis: usize, value: ValueId, of: usize) {
    if let Some(t) = node.weights.get(&slot) {
        map.same(Axis::Tensor(*t, axis), Axis::Value(value, of));
    }
}

fn weight_in(map: &mut AxisMap, node: &Node, x: ValueId, axis: usize, of_weight: usize) {
    tensor_axis(map, node, Slot::Weight, of_weight, x, axis);
}

fn weight_out(map: &mut AxisMap, node: &Node, y: ValueId, axis: usize, of_weight: usize) {
    tensor_axis(map, node, Slot::Weight, of_weight, y, axis);
    bias_like(map, node, y, axis);
}

fn bias_like(map: &mut AxisMap, node: &Node, y: ValueId, axis: usize) {
    tensor_axis(map, node, Slot::Bias, 0, y, axis);
}

fn lock_tensor(map: &mut AxisMap, node: &Node, slot: Slot, axis: usize, why: &str) {
    if let Some(t) = node.weights.get(&slot) {
        map.lock(Axis::Tensor(*t, axis), &format!("{why} in `{}` ({})", node.path, node.op.name()));
    }
}

fn lock_kernel(map: &mut AxisMap, node: &Node) {
    for axis in 2..5 {
        lock_tensor(map, node, Slot::Weight, axis, "it is an axis of the kernel");
    }
}

pub(super) fn lock_rest(
    map: &mut AxisMap,
    node: &Node,
    values: &[ValueId],
    of: impl Fn(usize) -> bool,
    why: &str,
) {
    let reason = format!("it {why} `{}` ({})", node.path, node.op.name()).replace("it all its", "all its");
    for v in values {
        (0..map.rank(*v)).filter(|a| of(*a)).for_each(|a| map.lock(Axis::Value(*v, a), &reason));
    }
}

fn lock_value(map: &mut AxisMap, node: &Node, value: ValueId) {
    map.lock_value(value, &format!("`{}` ({}) needs all of it", node.path, node.op.name()));
}

fn lock_all(map: &mut AxisMap, node: &Node) {
    let reason = format!("`{}` ({}) is not cut along any axis", node.path, node.op.name());
    for v in node.inputs.iter().chain(&node.outputs) {
        map.lock_value(*v, &reason);
    }
    for t in node.weights.values() {
        (0..8).for_each(|a| map.lock(Axis::Tensor(*t, a), &reason));
    }
}

/// Query and key channels go together, and value and output channels, head by head. Query heads that share a key head go
/// together.
fn attention(map: &mut AxisMap, node: &Node, attrs: &AttentionAttrs) {
    let (&[q, k, v, ..], &[y, ..]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return };
    node.inputs.iter().skip(3).for_each(|mask| lock_value(map, node, *mask));
    for (a, b) in [(q, y), (k, v)] {
        map.same(Axis::Value(a, 1), Axis::Value(b, 1));
    }
    for other in [k, v, y] {
        map.same(Axis::Value(q, 0), Axis::Value(other, 0));
    }
    let share = attrs.heads / attrs.kv_heads.max(1);
    for (wide, narrow) in [(q, k), (y, v)] {
        let (wide, narrow) = (Axis::Value(wide, 2), Axis::Value(narrow, 2));
        let width = map.len(wide).map(|n| n / attrs.heads.max(1)).filter(|w| *w > 0);
        if let (Some(width), true) = (width, share > 0) {
            let pair = |i: usize| (i, i / width / share * width + i % width);
            map.link(wide, narrow, (0..width * attrs.heads).map(pair));
        }
    }
}

fn matmul(map: &mut AxisMap, node: &Node, transpose_b: bool) {
    let (&[a, b], &[y, ..]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return };
    let (ra, rb, ry) = (map.rank(a), map.rank(b), map.rank(y));
    if ra < 2 || rb < 2 || ry < 2 {
        return lock_all(map, node);
    }
    let (inner, outer) = if transpose_b { (rb - 1, rb - 2) } else { (rb - 2, rb - 1) };
    map.same(Axis::Value(a, ra - 1), Axis::Value(b, inner));
    map.same(Axis::Value(a, ra - 2), Axis::Value(y, ry - 2));
    map.same(Axis::Value(b, outer), Axis::Value(y, ry - 1));
    broadcast(map, a, y, 2);
    broadcast(map, b, y, 2);
}
