//! Shape and type inference, one rule an operator. Sizes may be symbolic; what can be decided is checked.

mod elementwise;
mod layout;
mod slots;
mod spatial;
mod weighted;

use std::collections::BTreeMap;

use crate::dim::{Dim, Shape, show_shape};
use crate::error::{GraphError, Result};
use crate::graph::Value;
use crate::op::{Op, ValueType};
use crate::tensor::{Slot, TensorDef};

pub(crate) use elementwise::broadcast;

/// What a rule sees: the operator's inputs and weights. Errors are sentences without the node's name, which the caller adds.
pub(crate) struct Context<'a> {
    pub op: &'a Op,
    pub inputs: &'a [&'a Value],
    pub weights: &'a BTreeMap<Slot, &'a TensorDef>,
}

/// What a rule gives.
pub(crate) type Inferred = std::result::Result<Vec<Value>, String>;

/// Shapes and types of a node's outputs. Errors name the node and both sides of a mismatch.
pub fn infer(
    path: &str,
    op: &Op,
    inputs: &[&Value],
    weights: &BTreeMap<Slot, &TensorDef>,
) -> Result<Vec<Value>> {
    let context = Context { op, inputs, weights };
    let count = inputs.len();
    let (least, most) = arity(op);
    let checked = if count < least || count > most {
        Err(format!("has {count} inputs; {} were expected", show_range(least, most)))
    } else {
        slots::check(&context).and_then(|()| rule(&context))
    };
    checked.map_err(|message| GraphError::Node { node: path.to_owned(), op: op.name().to_owned(), message })
}

fn show_range(least: usize, most: usize) -> String {
    match (least, most) {
        (a, b) if a == b => a.to_string(),
        (a, usize::MAX) => format!("{a} or more"),
        (a, b) => format!("{a} to {b}"),
    }
}

/// Least and largest number of inputs.
pub(crate) fn arity(op: &Op) -> (usize, usize) {
    match op {
        Op::Constant {} | Op::Range { .. } => (0, 0),
        Op::Binary { .. } | Op::MatMul { .. } | Op::Gather { .. } | Op::Rope(_) => (2, 2),
        Op::Where {} => (3, 3),
        Op::Attention(_) => (3, 4),
        Op::Add {} => (2, usize::MAX),
        Op::Concat { .. } => (1, usize::MAX),
        Op::Recurrent { cell, .. } => match cell {
            crate::op::RecurrentCell::Lstm => (3, 3),
            crate::op::RecurrentCell::Gru => (2, 2),
        },
        _ => (1, 1),
    }
}

fn rule(c: &Context<'_>) -> Inferred {
    match c.op {
        Op::Linear {} => weighted::linear(c),
        Op::Embedding {} => weighted::embedding(c),
        Op::Conv(attrs) => spatial::conv(c, attrs),
        Op::ConvTranspose { conv, output_padding } => spatial::conv_transpose(c, conv, output_padding),
        Op::LayerNorm { axes, .. } => weighted::layer_norm(c, *axes),
        Op::RmsNorm { .. } => weighted::layer_norm(c, 1),
        Op::GroupNorm { groups, .. } => weighted::channel_norm(c, *groups),
        Op::BatchNorm { .. } | Op::InstanceNorm { .. } => weighted::channel_norm(c, 1),
        Op::PRelu {} => weighted::prelu(c),
        Op::Attention(attrs) => weighted::attention(c, attrs),
        Op::Rope(attrs) => weighted::rope(c, attrs),
        Op::Recurrent { cell, hidden, direction, .. } => weighted::recurrent(c, *cell, *hidden, *direction),
        Op::Activation { .. } | Op::Dropout { .. } | Op::Clip { .. } => elementwise::same(c),
        Op::Binary { function } => elementwise::binary(c, *function),
        Op::Scalar { function, .. } => elementwise::scalar(c, *function),
        Op::Add {} => elementwise::add(c),
        Op::Where {} => elementwise::choose(c),
        Op::Cast { to } => c.one(c.inputs[0].shape.clone(), *to),
        Op::Softmax { axis, .. } | Op::CumSum { axis } => {
            c.axis(0, *axis)?;
            elementwise::same(c)
        }
        Op::MatMul { transpose_b } => elementwise::matmul(c, *transpose_b),
        Op::Sinusoid { width, .. } => elementwise::sinusoid(c, *width),
        Op::Concat { axis } => layout::concat(c, *axis),
        Op::Split { axis, map } => layout::split(c, *axis, map),
        Op::Slice { axis, start, end, step } => layout::slice(c, *axis, start, end, *step),
        Op::Reshape { shape } => layout::reshape(c, shape),
        Op::Transpose { axes } => layout::transpose(c, axes),
        Op::Expand { shape } => layout::expand(c, shape),
        Op::Gather { axis } => layout::gather(c, *axis),
        Op::Pad { amounts, .. } => layout::pad(c, amounts),
        Op::Reduce { axes, keep, .. } => layout::reduce(c, axes, *keep),
        Op::ArgMax { axis, keep } => layout::arg_max(c, *axis, *keep),
        Op::TopK { k } => layout::top_k(c, *k),
        Op::Constant {} => layout::constant(c),
        Op::Range { end } => c.one(vec![end.clone()], ValueType::Int),
        Op::Pool { kernel, stride, padding, ceil, .. } => spatial::pool(c, kernel, stride, padding, *ceil),
        Op::AdaptivePool { size, .. } => {
            spatial::resized(c, &size.iter().map(|s| Dim::from(*s)).collect::<Vec<_>>())
        }
        Op::Resize { size, .. } => spatial::resized(c, size),
        Op::PixelShuffle { factor, inverse } => spatial::pixel_shuffle(c, *factor, *inverse),
    }
}

impl<'a> Context<'a> {
    pub(crate) fn shape(&self, i: usize) -> &'a Shape {
        &self.inputs[i].shape
    }

    pub(crate) fn one(&self, shape: Shape, ty: ValueType) -> Inferred {
        Ok(vec![Value { shape, ty }])
    }

    /// The input's element type is what the operator works on.
    pub(crate) fn expect(&self, i: usize, ty: ValueType) -> std::result::Result<(), String> {
        let found = self.inputs[i].ty;
        if found == ty { Ok(()) } else { Err(format!("input {i} is {found:?}; {ty:?} was expected")) }
    }

    /// An axis that exists.
    pub(crate) fn axis(&self, i: usize, axis: usize) -> std::result::Result<&'a Dim, String> {
        let shape = self.shape(i);
        shape
            .get(axis)
            .ok_or_else(|| format!("has no axis {axis} in input {i} of shape {}", show_shape(shape)))
    }

    pub(crate) fn last(&self, i: usize) -> std::result::Result<&'a Dim, String> {
        self.shape(i).last().ok_or_else(|| format!("input {i} is a scalar; at least one axis was expected"))
    }

    /// A weight that must be there.
    pub(crate) fn weight(&self, slot: Slot) -> std::result::Result<&'a TensorDef, String> {
        self.weights.get(&slot).copied().ok_or_else(|| format!("has no {slot:?} tensor"))
    }

    /// A weight that, where it is there, has this shape.
    pub(crate) fn check_weight(&self, slot: Slot, expected: &[usize]) -> std::result::Result<(), String> {
        match self.weights.get(&slot) {
            Some(t) if t.shape != expected => {
                Err(format!("tensor `{}` has shape {:?}; {expected:?} was expected", t.name, t.shape))
            }
            _ => Ok(()),
        }
    }
}

/// An integer axis must equal a size; a symbolic one is left to `bind`.
pub(crate) fn agree(
    found: &Dim,
    wanted: usize,
    what: impl FnOnce() -> String,
) -> std::result::Result<(), String> {
    match found.as_int() {
        Some(v) if usize::try_from(v) != Ok(wanted) => Err(format!("{}: {v} against {wanted}", what())),
        _ => Ok(()),
    }
}

/// Two dimensions are the same, or one of them is not known yet.
pub(crate) fn compatible(a: &Dim, b: &Dim) -> bool {
    a == b || a.as_int().is_none() || b.as_int().is_none()
}
