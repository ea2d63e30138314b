//! Quantisation annotations, simulated: numbers are rounded to what the integers stand for.

use pomona_graph::{Annotation, Graph, Node, QuantTarget, Slot, TensorId};

use crate::error::{ExecError, Result};
use crate::tensor::{Kind, Tensor};

/// A node's rounding of one of its operands.
pub(crate) fn note<'g>(graph: &'g Graph, node: &Node, target: &QuantTarget) -> Option<&'g Annotation> {
    let notes = graph.annotations.get(&node.path)?;
    notes.iter().find(|n| matches!(n, Annotation::Quantisation { target: t, .. } if t == target))
}

/// Whether a tensor is a node's weight that an annotation rounds.
pub(crate) fn of_weight<'g>(graph: &'g Graph, node: &Node, id: TensorId) -> Option<&'g Annotation> {
    let is_weight = node.weights.get(&Slot::Weight) == Some(&id);
    if is_weight { note(graph, node, &QuantTarget::Weight) } else { None }
}

/// `(clamp(round(x / scale) + zero) - zero) * scale`, ties to even. On a tape the gradient passes as if nothing were rounded.
pub(crate) fn rounded(t: Tensor, note: Option<&Annotation>, node: &Node, taped: bool) -> Result<Tensor> {
    let Some(Annotation::Quantisation { bits, signed, axis, block, scales, zero_points, .. }) = note else {
        return Ok(t);
    };
    let fault = |message: String| ExecError::Node { node: node.path.clone(), op: node.op.name(), message };
    if t.kind() != Kind::Float {
        return Err(fault(format!("an annotation rounds {t:?}; floating-point numbers were expected")));
    }
    if !(1..=31).contains(bits) {
        return Err(fault(format!("an annotation rounds to {bits} bits; 1 to 31 are simulated")));
    }
    let shape = t.shape().to_vec();
    let last = shape.last().copied().unwrap_or(1).max(1);
    let inner: usize = axis.map_or(1, |a| shape.iter().skip(a + 1).product::<usize>().max(1));
    let wanted = match (block, axis) {
        (Some(b), _) => t.elements() / last * last.div_ceil((*b).max(1)),
        (None, Some(a)) => shape.get(*a).copied().unwrap_or(0),
        (None, None) => 1,
    };
    if scales.len() != wanted || scales.is_empty() {
        let found = scales.len();
        return Err(fault(format!("an annotation has {found} scales for {shape:?}; {wanted} were expected")));
    }
    let index = |i: usize| match (block, axis) {
        (Some(b), _) => i / last * last.div_ceil((*b).max(1)) + i % last / (*b).max(1),
        (None, Some(_)) => i / inner % scales.len(),
        (None, None) => 0,
    };
    let (low, high) = match signed {
        true => (-(1_i64 << (bits - 1)) as f32, ((1_i64 << (bits - 1)) - 1) as f32),
        false => (0.0, ((1_i64 << bits) - 1) as f32),
    };
    let round = |i: usize, x: f32| {
        let k = index(i);
        let zero = zero_points.get(k).or(zero_points.first()).copied().unwrap_or(0) as f32;
        (((x / scales[k]).round_ties_even() + zero).clamp(low, high) - zero) * scales[k]
    };
    let new: Vec<f32> = t.with_f32(|v| v.iter().enumerate().map(|(i, x)| round(i, *x)).collect())?;
    if !taped {
        return Tensor::from_f32(new, &shape, t.device());
    }
    let old = t.to_f32()?;
    let change = new.iter().zip(&old).map(|(a, b)| a - b).collect();
    t.add(&Tensor::from_f32(change, &shape, t.device())?.leaf(false)?)
}
