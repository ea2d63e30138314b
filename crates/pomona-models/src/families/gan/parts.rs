//! Convolutions and norms under their state dict's names.

use pomona_graph::{
    BatchStatistics, ConvAttrs, Dim, GraphBuilder, Op, Result, Role, Slot, TensorId, ValueId,
};

use crate::config::Fields;

/// Channels of an image.
pub(super) fn channels(b: &GraphBuilder, path: &str, x: ValueId) -> Result<usize> {
    b.shape(x).get(1).unwrap_or(&Dim::from(0)).size(path)
}

/// A square kernel, or a pair of strides, and whether there is a bias.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub side: usize,
    pub conv: ConvAttrs,
    pub bias: bool,
}

impl Kernel {
    /// The same stride and padding both ways.
    pub(super) fn square(side: usize, stride: usize, padding: usize, bias: bool) -> Kernel {
        Kernel { side, conv: ConvAttrs::square(stride, padding), bias }
    }
}

/// A convolution to `out` channels.
pub(super) fn conv(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    out: usize,
    kernel: Kernel,
) -> Result<ValueId> {
    let shape = [out, channels(b, path, x)?, kernel.side, kernel.side];
    let weights = weights(b, path, shape, kernel.bias.then_some(out))?;
    b.node(path, Op::Conv(kernel.conv), &[x], &weights)
}

/// A transposed convolution to `out` channels.
pub(super) fn up(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    out: usize,
    (kernel, output_padding): (Kernel, usize),
) -> Result<ValueId> {
    let shape = [channels(b, path, x)?, out, kernel.side, kernel.side];
    let weights = weights(b, path, shape, kernel.bias.then_some(out))?;
    let op = Op::ConvTranspose { conv: kernel.conv, output_padding: vec![output_padding; 2] };
    b.node(path, op, &[x], &weights)
}

fn weights(
    b: &mut GraphBuilder,
    path: &str,
    shape: [usize; 4],
    bias: Option<usize>,
) -> Result<Vec<(Slot, TensorId)>> {
    let mut out = vec![(Slot::Weight, b.parameter(&format!("{path}.weight"), &shape)?)];
    if let Some(n) = bias {
        out.push((Slot::Bias, b.parameter(&format!("{path}.bias"), &[n])?));
    }
    Ok(out)
}

/// Batch normalisation; PyTorch's momentum.
pub(super) fn norm(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    (eps, statistics): (f64, BatchStatistics),
) -> Result<ValueId> {
    let n = [channels(b, path, x)?];
    let mut weights = vec![
        (Slot::Weight, b.parameter(&format!("{path}.weight"), &n)?),
        (Slot::Bias, b.parameter(&format!("{path}.bias"), &n)?),
    ];
    for (slot, name) in [(Slot::RunningMean, "running_mean"), (Slot::RunningVar, "running_var")] {
        weights.push((slot, b.tensor(&format!("{path}.{name}"), &n, "f32", Role::Buffer)?));
    }
    b.node(path, Op::BatchNorm { eps, momentum: 0.1, statistics }, &[x], &weights)
}

/// `statistics` of a config: the batch's own, as a generator is used that was trained so, or the stored ones.
pub(super) fn statistics(c: &Fields<'_>, default: &'static str) -> crate::error::Result<BatchStatistics> {
    match c.text_or("statistics", default)? {
        "batch" => Ok(BatchStatistics::Batch),
        "running" => Ok(BatchStatistics::Running),
        other => Err(c.fault("statistics", format!("is \"{other}\"; batch or running was expected"))),
    }
}
