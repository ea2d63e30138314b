//! What each operator computes. A file a family; inference on the CPU goes through `host` where that has a fused loop.

mod activation;
mod attention;
pub(crate) mod elementwise;
mod layout;
pub(crate) mod linear;
mod norms;
mod pool;
mod recurrent;
mod reduce;
mod resize;
mod spatial;

use pomona_graph::{Activation, Bindings, Dim, Graph, Node, Op, Slot};

use crate::annotation;
use crate::error::{ExecError, Result};
use crate::evaluate::{Options, Source};
use crate::tensor::Tensor;

/// A node about to run.
pub(crate) struct Call<'a> {
    pub graph: &'a Graph,
    pub node: &'a Node,
    pub inputs: Vec<Tensor>,
    pub sizes: &'a Bindings,
    pub options: &'a Options,
    pub source: &'a Source<'a>,
    /// An activation behind the node's only output, run with it; only where [`takes`] says so.
    pub then: Option<Activation>,
}

/// Whether the operator can run with the activation behind it.
pub(crate) fn takes(op: &Op, function: Activation) -> bool {
    matches!(op, Op::GroupNorm { .. } | Op::InstanceNorm { .. } | Op::BatchNorm { .. })
        && crate::kernels::has(function)
}

impl Call<'_> {
    pub(crate) fn fault(&self, message: impl Into<String>) -> ExecError {
        ExecError::Node { node: self.node.path.clone(), op: self.node.op.name(), message: message.into() }
    }

    /// An input; shapes were checked by the graph, counts are checked here for graphs that were not validated.
    pub(crate) fn input(&self, i: usize) -> Result<&Tensor> {
        self.inputs.get(i).ok_or_else(|| self.fault(format!("has no input {i}")))
    }

    /// A weight, rounded as the node's annotations say.
    pub(crate) fn weight(&self, slot: Slot) -> Result<Option<Tensor>> {
        let Some(&id) = self.node.weights.get(&slot) else { return Ok(None) };
        let tensor = (self.source.fetch)(id)?;
        let def = self.graph.tensor(id);
        if tensor.shape() != def.shape {
            let message = format!("was given as {tensor:?}; {:?} was expected", def.shape);
            return Err(ExecError::Weight { tensor: def.name.clone(), message });
        }
        match self.graph.annotations.get(&self.node.path) {
            Some(marks) => annotation::round_weight(self, slot, tensor, marks).map(Some),
            None => Ok(Some(tensor)),
        }
    }

    pub(crate) fn need(&self, slot: Slot) -> Result<Tensor> {
        self.weight(slot)?.ok_or_else(|| self.fault(format!("has no {slot:?}")))
    }

    pub(crate) fn size(&self, dim: &Dim) -> Result<usize> {
        dim.bind(self.sizes).and_then(|d| d.size(&self.node.path)).map_err(|e| self.fault(e.to_string()))
    }

    pub(crate) fn sizes(&self, dims: &[Dim]) -> Result<Vec<usize>> {
        dims.iter().map(|d| self.size(d)).collect()
    }
}

/// Runs the node.
pub(crate) fn run(call: Call<'_>) -> Result<Vec<Tensor>> {
    let c = &call;
    let one = match &c.node.op {
        Op::Linear {} => linear::linear(c),
        Op::Embedding {} => linear::embedding(c),
        Op::MatMul { transpose_b } => linear::matmul(c, *transpose_b),
        Op::LayerNorm { axes, eps } => norms::layer_norm(c, *axes, *eps),
        Op::RmsNorm { eps, offset } => norms::rms_norm(c, *eps, *offset),
        Op::GroupNorm { groups, eps } => norms::group_norm(c, Some(*groups), *eps, c.then),
        Op::InstanceNorm { eps } => norms::group_norm(c, None, *eps, c.then),
        Op::BatchNorm { eps, statistics, .. } => norms::batch_norm(c, *eps, *statistics, c.then),
        Op::Softmax { axis, log } => norms::softmax(c, *axis, *log),
        Op::Attention(attrs) => attention::attention(c, attrs),
        Op::Rope(attrs) => attention::rope(c, attrs),
        Op::Activation { function } => activation::activation(c, *function),
        Op::PRelu {} => activation::prelu(c),
        Op::Binary { function } => elementwise::binary(c, *function),
        Op::Scalar { function, value, reversed } => elementwise::scalar(c, *function, *value, *reversed),
        Op::Add {} => elementwise::add(c),
        Op::Where {} => elementwise::choose(c),
        Op::Clip { min, max } => elementwise::clip(c, *min, *max),
        Op::Cast { to } => elementwise::cast(c, *to),
        Op::Dropout { rate } => elementwise::dropout(c, *rate),
        Op::Sinusoid { width, max_period, cosine_first, shift } => {
            elementwise::sinusoid(c, *width, *max_period, *cosine_first, *shift)
        }
        Op::Concat { axis } => Tensor::concat(&c.inputs, *axis),
        Op::Split { axis, map } => return layout::split(c, *axis, map),
        Op::Slice { axis, start, end, step } => layout::slice(c, *axis, start, end, *step),
        Op::Reshape { shape } => c.input(0)?.reshape(&c.sizes(shape)?),
        Op::Transpose { axes } => c.input(0)?.transpose(axes),
        Op::Expand { shape } => layout::expand(c, shape),
        Op::Gather { axis } => layout::gather(c, *axis),
        Op::Pad { amounts, mode } => layout::pad(c, amounts, *mode),
        Op::Constant {} => layout::constant(c),
        Op::Range { end } => layout::range(c, end),
        Op::Conv(attrs) => spatial::conv(c, attrs),
        Op::ConvTranspose { conv, output_padding } => spatial::conv_transpose(c, conv, output_padding),
        Op::Pool { kind, kernel, stride, padding, ceil, count_padding } => pool::pool(
            c,
            *kind,
            &pool::Window { kernel, stride, padding, ceil: *ceil, count: *count_padding },
        ),
        Op::AdaptivePool { kind, size } => pool::adaptive_pool(c, *kind, size),
        Op::Resize { mode, coordinates, size } => resize::resize(c, *mode, *coordinates, &c.sizes(size)?),
        Op::PixelShuffle { factor, inverse } => spatial::pixel_shuffle(c, *factor, *inverse),
        Op::Reduce { function, axes, keep } => reduce::reduce(c, *function, axes, *keep),
        Op::ArgMax { axis, keep } => reduce::arg_max(c, *axis, *keep),
        Op::TopK { k } => return reduce::top_k(c, *k),
        Op::CumSum { axis } => reduce::cum_sum(c, *axis),
        Op::Recurrent { cell, hidden, direction, reset_after } => {
            return recurrent::recurrent(c, *cell, *hidden, *direction, *reset_after);
        }
    };
    let tensor = one.map_err(|e| match e {
        ExecError::Tensor(message) => c.fault(message),
        other => other,
    })?;
    Ok(vec![tensor])
}
