//! Hidden units of LSTM and GRU cells: rows of every gate, columns of the hidden weights, and the state.

use super::links::{Axis, AxisMap};
use super::relations::lock_rest;
use crate::graph::Node;
use crate::op::{Direction, RecurrentCell};
use crate::tensor::Slot;

/// A hidden unit goes with its row in each gate, its column of the hidden weights, and its element of outputs and states.
/// The two directions have units of their own.
pub(super) fn link(map: &mut AxisMap, node: &Node, cell: RecurrentCell, hidden: usize, direction: Direction) {
    let (Some(&x), Some(&y)) = (node.inputs.first(), node.outputs.first()) else { return };
    let gates = if cell == RecurrentCell::Lstm { 4 } else { 3 };
    let forward = [Slot::WeightIh, Slot::WeightHh, Slot::BiasIh, Slot::BiasHh];
    let backward = [Slot::WeightIhReverse, Slot::WeightHhReverse, Slot::BiasIhReverse, Slot::BiasHhReverse];
    let runs: &[[Slot; 4]] = if direction == Direction::Both { &[forward, backward] } else { &[forward] };
    map.same(Axis::Value(x, 0), Axis::Value(y, 0));
    lock_rest(map, node, &[x, y], |a| a == 1, "is the axis of time of");
    let out = Axis::Value(y, 2);
    for state in node.inputs.iter().skip(1).chain(node.outputs.iter().skip(1)) {
        map.same(Axis::Value(x, 0), Axis::Value(*state, 0));
        map.same(Axis::Value(*state, 1), out);
    }
    for (d, [ih, hh, bias_ih, bias_hh]) in runs.iter().enumerate() {
        let rows = (0..gates * hidden).map(|r| (r, d * hidden + r % hidden.max(1)));
        for slot in [ih, hh, bias_ih, bias_hh] {
            if let Some(t) = node.weights.get(slot) {
                map.link(Axis::Tensor(*t, 0), out, rows.clone());
            }
        }
        if let Some(t) = node.weights.get(ih) {
            map.same(Axis::Tensor(*t, 1), Axis::Value(x, 2));
        }
        if let Some(t) = node.weights.get(hh) {
            map.link(Axis::Tensor(*t, 1), out, (0..hidden).map(|i| (i, d * hidden + i)));
        }
    }
}
