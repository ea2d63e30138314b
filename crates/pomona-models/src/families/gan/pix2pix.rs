//! The pix2pix generator, a U-Net: strided 4x4 convolutions down to a bottleneck and as many transposed ones up, each joined with
//! the level's own skip.
//!
//! Source: Isola et al., arXiv:1611.07004; module names and defaults are those of `UnetGenerator` in junyanz's PyTorch
//! implementation. Norms take the batch's own statistics, as the generator is used. Input `input` `[batch, channels, size, size]`,
//! output `output`, -1 to 1.

use pomona_graph::{
    Activation, BatchStatistics, ConvAttrs, Dim, Graph, GraphBuilder, Op, Role, Slot, TensorId, ValueId,
    ValueType,
};

use crate::config::Fields;
use crate::error::Result;
use crate::families::common::dtype;

pub(super) const NAMES: &[&str] = &["pix2pix", "unet_64", "unet_128", "unet_256"];

struct Settings {
    levels: usize,
    ngf: usize,
    outputs: usize,
    dropout: bool,
    /// Convolutions have biases beside their norms, as in the Keras ports.
    bias: bool,
    /// The innermost convolution down has a norm, as in the first, Torch and TensorFlow, implementations.
    innermost_norm: bool,
    /// The skip stands before what comes from within.
    skip_first: bool,
    eps: f64,
    statistics: BatchStatistics,
}

impl Settings {
    /// Width of a level, 1 being the outermost.
    fn width(&self, level: usize) -> usize {
        self.ngf.saturating_mul(1 << (level - 1).min(3))
    }
}

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let named = match c.text_or("architecture", "pix2pix")? {
        "unet_64" => 6,
        "unet_128" => 7,
        _ => 8,
    };
    let levels = c.size_or("num_downs", named)?;
    if !(2..=12).contains(&levels) {
        return Err(c.fault("num_downs", format!("is {levels}; 2 to 12 were expected")));
    }
    let size = c.size_or("image_size", 1 << levels)?;
    if size % (1 << levels) != 0 {
        return Err(c.fault(
            "image_size",
            format!("is {size}; {levels} halvings need a multiple of {}", 1 << levels),
        ));
    }
    let statistics = match c.text_or("statistics", "batch")? {
        "batch" => BatchStatistics::Batch,
        "running" => BatchStatistics::Running,
        other => return Err(c.fault("statistics", format!("is \"{other}\"; batch or running was expected"))),
    };
    let s = Settings {
        levels,
        ngf: c.size_or("ngf", 64)?,
        outputs: c.size_or("output_nc", 3)?,
        dropout: c.flag_or("use_dropout", true)?,
        bias: c.flag_or("bias", false)?,
        innermost_norm: c.flag_or("innermost_norm", false)?,
        skip_first: c.flag_or("skip_first", true)?,
        eps: c.positive_or("norm_eps", 1e-5)?,
        statistics,
    };
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let shape = vec![Dim::symbol("batch"), c.size_or("input_nc", 3)?.into(), size.into(), size.into()];
    let x = b.input("input", shape, ValueType::Float);
    let x = level(&mut b, &s, 1, "model.model", x)?;
    b.output("output", x);
    Ok(b.finish()?)
}

/// A level around all inner ones; the modules of `path` count as in the nested `Sequential`s.
fn level(b: &mut GraphBuilder, s: &Settings, number: usize, path: &str, x: ValueId) -> Result<ValueId> {
    let (outermost, innermost) = (number == 1, number == s.levels);
    let mut next = 0;
    let mut at = || {
        next += 1;
        format!("{path}.{}", next - 1)
    };
    let mut h = x;
    if !outermost {
        h = b.activation(&at(), Activation::LeakyRelu(0.2), h)?;
    }
    h = conv(b, &at(), h, s.width(number), s.bias)?;
    if !outermost && (!innermost || s.innermost_norm) {
        h = norm(b, s, &at(), h)?;
    }
    if !innermost {
        let inner = format!("{}.model", at());
        h = level(b, s, number + 1, &inner, h)?;
    }
    h = b.activation(&at(), Activation::Relu, h)?;
    if outermost {
        h = up(b, &at(), h, s.outputs, true)?;
        return Ok(b.activation(&at(), Activation::Tanh, h)?);
    }
    h = up(b, &at(), h, s.width(number - 1), s.bias)?;
    h = norm(b, s, &at(), h)?;
    // The levels between the innermost and the four outermost, which are as wide as each other.
    if s.dropout && number > 4 && !innermost {
        h = b.node(&at(), Op::Dropout { rate: 0.5 }, &[h], &[])?;
    }
    let operands = if s.skip_first { [x, h] } else { [h, x] };
    let block = path.strip_suffix(".model").unwrap_or(path);
    Ok(b.node(&format!("{block}.cat"), Op::Concat { axis: 1 }, &operands, &[])?)
}

fn conv(b: &mut GraphBuilder, path: &str, x: ValueId, out: usize, bias: bool) -> Result<ValueId> {
    let weights = weights(b, path, [out, channels(b, path, x)?, 4, 4], bias.then_some(out))?;
    Ok(b.node(path, Op::Conv(ConvAttrs::square(2, 1)), &[x], &weights)?)
}

fn up(b: &mut GraphBuilder, path: &str, x: ValueId, out: usize, bias: bool) -> Result<ValueId> {
    let weights = weights(b, path, [channels(b, path, x)?, out, 4, 4], bias.then_some(out))?;
    let op = Op::ConvTranspose { conv: ConvAttrs::square(2, 1), output_padding: vec![0, 0] };
    Ok(b.node(path, op, &[x], &weights)?)
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

fn norm(b: &mut GraphBuilder, s: &Settings, path: &str, x: ValueId) -> Result<ValueId> {
    let n = [channels(b, path, x)?];
    let mut weights = vec![
        (Slot::Weight, b.parameter(&format!("{path}.weight"), &n)?),
        (Slot::Bias, b.parameter(&format!("{path}.bias"), &n)?),
    ];
    for (slot, name) in [(Slot::RunningMean, "running_mean"), (Slot::RunningVar, "running_var")] {
        weights.push((slot, b.tensor(&format!("{path}.{name}"), &n, "f32", Role::Buffer)?));
    }
    let op = Op::BatchNorm { eps: s.eps, momentum: 0.1, statistics: s.statistics };
    Ok(b.node(path, op, &[x], &weights)?)
}

fn channels(b: &GraphBuilder, path: &str, x: ValueId) -> Result<usize> {
    let channels = b.shape(x).get(1).cloned().unwrap_or_else(|| Dim::from(0));
    Ok(channels.size(path)?)
}
