//! The pix2pix generator, a U-Net: strided 4x4 convolutions down to a bottleneck and as many transposed ones up, each joined with
//! the level's own skip.
//!
//! Source: Isola et al., arXiv:1611.07004; module names and defaults are those of `UnetGenerator` in junyanz's PyTorch
//! implementation. Norms take the batch's own statistics, as the generator is used. Input `input` `[batch, channels, size, size]`,
//! output `output`, -1 to 1.

use pomona_graph::{Activation, BatchStatistics, Dim, Graph, GraphBuilder, Op, ValueId, ValueType};

use super::parts::{self, Kernel};
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
    /// Epsilon and statistics of the norms.
    norm: (f64, BatchStatistics),
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
    let s = Settings {
        levels,
        ngf: c.size_or("ngf", 64)?,
        outputs: c.size_or("output_nc", 3)?,
        dropout: c.flag_or("use_dropout", true)?,
        bias: c.flag_or("bias", false)?,
        innermost_norm: c.flag_or("innermost_norm", false)?,
        skip_first: c.flag_or("skip_first", true)?,
        norm: (c.positive_or("norm_eps", 1e-5)?, parts::statistics(c, "batch")?),
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
    h = parts::conv(b, &at(), h, s.width(number), Kernel::square(4, 2, 1, s.bias))?;
    if !outermost && (!innermost || s.innermost_norm) {
        h = parts::norm(b, &at(), h, s.norm)?;
    }
    if !innermost {
        let inner = format!("{}.model", at());
        h = level(b, s, number + 1, &inner, h)?;
    }
    h = b.activation(&at(), Activation::Relu, h)?;
    if outermost {
        h = parts::up(b, &at(), h, s.outputs, (Kernel::square(4, 2, 1, true), 0))?;
        return Ok(b.activation(&at(), Activation::Tanh, h)?);
    }
    h = parts::up(b, &at(), h, s.width(number - 1), (Kernel::square(4, 2, 1, s.bias), 0))?;
    h = parts::norm(b, &at(), h, s.norm)?;
    // The levels between the innermost and the four outermost, which are as wide as each other.
    if s.dropout && number > 4 && !innermost {
        h = b.node(&at(), Op::Dropout { rate: 0.5 }, &[h], &[])?;
    }
    let operands = if s.skip_first { [x, h] } else { [h, x] };
    let block = path.strip_suffix(".model").unwrap_or(path);
    Ok(b.node(&format!("{block}.cat"), Op::Concat { axis: 1 }, &operands, &[])?)
}
