//! State between runs: what a cache holds and how it grows.

use std::collections::BTreeMap;

use pomona_graph::{Graph, NodeId, Op, ValueId};

use crate::report::StateBytes;

/// Concatenations that append to a state: the node, and the state's input value.
pub(crate) fn appends(graph: &Graph) -> BTreeMap<NodeId, ValueId> {
    let producers = graph.producers();
    let mut out = BTreeMap::new();
    for state in &graph.states {
        let Some(Some((id, _))) = producers.get(state.output.0 as usize) else { continue };
        let node = graph.node(*id);
        if matches!(node.op, Op::Concat { .. }) && node.inputs.first() == Some(&state.input) {
            out.insert(*id, state.input);
        }
    }
    out
}

/// Bytes of all states. A state that grows has one axis in which output and input differ, also where the input is empty.
pub(crate) fn bytes(graph: &Graph, shapes: &[Vec<u64>], sizes: &[u64]) -> StateBytes {
    let mut sum = StateBytes::default();
    for state in &graph.states {
        let (input, output) = (state.input.0 as usize, state.output.0 as usize);
        sum.held = sum.held.saturating_add(sizes[input]);
        match shapes[input].iter().zip(&shapes[output]).position(|(a, b)| a != b) {
            Some(axis) => {
                let each = sizes[output].checked_div(shapes[output][axis]).unwrap_or(0);
                sum.per_token = sum.per_token.saturating_add(each);
            }
            None => sum.fixed = sum.fixed.saturating_add(sizes[input]),
        }
    }
    sum
}
