//! Multiply-accumulates and other operations of one operator, from its shapes.

mod attention;
mod convolution;
mod elementwise;
mod pooling;
mod product;
mod recurrent;

use std::collections::BTreeMap;

use pomona_graph::{Op, Slot};
use serde::{Deserialize, Serialize};

/// What an operator computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpCost {
    /// Multiply-accumulates, convention `full`: convolutions, linear layers, matrix products, the products of attention
    /// over the whole N x N (causal or not) and of recurrent gates; transposed convolutions by input positions.
    pub macs_full: u64,
    /// Multiply-accumulates as the PyTorch tool `thop` counts them: convolutions and linear layers, transposed
    /// convolutions by output positions, recurrent layers with their biases and gates, no products of two values.
    pub macs_thop: u64,
    /// Everything else, one an elementary operation on a number; a function such as `exp` or `tanh` is one.
    pub other_ops: u64,
}

/// Sizes around an operator. A shape is row-major in PyTorch's axis order.
#[derive(Clone, Debug, Default)]
pub struct Shapes {
    /// Shape of each input.
    pub inputs: Vec<Vec<u64>>,
    /// Shape of each output.
    pub outputs: Vec<Vec<u64>>,
    /// Shape of each weight.
    pub weights: BTreeMap<Slot, Vec<u64>>,
}

impl Shapes {
    pub(crate) fn input(&self, i: usize) -> Count<&[u64]> {
        self.inputs.get(i).map(Vec::as_slice).ok_or_else(|| format!("it has no input {i}"))
    }

    pub(crate) fn output(&self) -> Count<&[u64]> {
        self.outputs.first().map(Vec::as_slice).ok_or_else(|| "it has no output".to_owned())
    }

    pub(crate) fn weight(&self, slot: Slot) -> Count<&[u64]> {
        self.weights.get(&slot).map(Vec::as_slice).ok_or_else(|| format!("it has no tensor in slot {slot:?}"))
    }

    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.weights.contains_key(&slot)
    }
}

/// A count, or the reason why there is none.
pub(crate) type Count<T> = Result<T, String>;

/// Product of sizes, checked.
pub(crate) fn elements(shape: &[u64]) -> Count<u64> {
    times(shape)
}

/// Product of factors, checked.
pub(crate) fn times(factors: &[u64]) -> Count<u64> {
    factors.iter().try_fold(1_u64, |n, &f| n.checked_mul(f)).ok_or_else(too_large)
}

/// Sum, checked.
pub(crate) fn plus(terms: &[u64]) -> Count<u64> {
    terms.iter().try_fold(0_u64, |n, &t| n.checked_add(t)).ok_or_else(too_large)
}

fn too_large() -> String {
    "its count does not fit 64 bits".to_owned()
}

/// Only other operations.
pub(crate) fn other(ops: u64) -> OpCost {
    OpCost { other_ops: ops, ..OpCost::default() }
}

/// Counts an operator. The error is the reason why it cannot be counted: such an operator is to be named, not guessed.
pub fn macs(op: &Op, shapes: &Shapes) -> Result<OpCost, String> {
    match op {
        Op::Linear {} => product::linear(shapes),
        Op::MatMul { .. } => product::matmul(shapes),
        Op::Conv(_) => convolution::conv(shapes),
        Op::ConvTranspose { conv, .. } => convolution::transposed(shapes, conv),
        Op::Attention(a) => attention::attention(shapes, a),
        Op::Recurrent { cell, hidden, direction, .. } => {
            recurrent::recurrent(shapes, *cell, *hidden as u64, *direction)
        }
        Op::Pool { kernel, .. } => pooling::pool(shapes, kernel),
        Op::AdaptivePool { size, .. } => pooling::adaptive(shapes, size),
        Op::Resize { mode, .. } => pooling::resize(shapes, *mode),
        Op::TopK { .. } => Err("how many comparisons a selection takes depends on the data".to_owned()),
        _ => elementwise::count(op, shapes),
    }
}
