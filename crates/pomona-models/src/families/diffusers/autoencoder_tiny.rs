//! The distilled auto-encoder TAESD, `AutoencoderTiny`: convolutions and small residual blocks in two sequences.
//!
//! Source: the TAESD model of O. Bohan, as diffusers has it. Two independent halves: `sample` `[batch, 3, height, width]`
//! in -1 to 1 to `latent_out`, and `latent` `[batch, 4, latent_height, latent_width]` to `image` in -1 to 1.

use pomona_graph::{Activation, BinaryFn, ConvAttrs, Dim, Graph, GraphBuilder, Op, ValueId, ValueType};

use super::parts;
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::{dtype, named_activation};

/// Far more stages, or blocks of a stage, than any such network has.
const MAX_STAGES: usize = 16;
const MAX_BLOCKS: usize = 64;

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let encoder = stages(c, "encoder_block_out_channels", "num_encoder_blocks", &[1, 3, 3, 3])?;
    let decoder = stages(c, "decoder_block_out_channels", "num_decoder_blocks", &[3, 3, 3, 1])?;
    let activation = named_activation(c, "act_fn", "relu")?;
    let mode = c.text_or("upsample_fn", "nearest")?;
    if mode != "nearest" {
        return Err(c.fault("upsample_fn", format!("is \"{mode}\"; nearest is read")));
    }
    let factor = c.size_or("upsampling_scaling_factor", 2)?;
    if factor > 64 {
        return Err(c.fault("upsampling_scaling_factor", format!("is {factor}; at most 64 was expected")));
    }
    let latent = c.size_or("latent_channels", 4)?;
    let mut b = GraphBuilder::new("model", dtype(c)?);
    for (symbol, size) in [("height", 512), ("width", 512), ("latent_height", 64), ("latent_width", 64)] {
        b.default_size(symbol, size);
    }
    let image = |channels: usize, sides: [&str; 2]| {
        vec![Dim::symbol("batch"), channels.into(), Dim::symbol(sides[0]), Dim::symbol(sides[1])]
    };
    let shape = image(c.size_or("in_channels", 3)?, ["height", "width"]);
    let sample = b.input("sample", shape, ValueType::Float);
    let z = b.input("latent", image(latent, ["latent_height", "latent_width"]), ValueType::Float);
    let x = encode(&mut b, &encoder, activation, sample, latent)?;
    b.output("latent_out", x);
    let x = decode(&mut b, &decoder, activation, factor, z, c.size_or("out_channels", 3)?)?;
    b.output("image", x);
    Ok(b.finish()?)
}

/// Width and number of blocks of each stage.
fn stages(c: &Fields<'_>, widths: &str, blocks: &str, default: &[usize]) -> Result<Vec<(usize, usize)>> {
    let w = c.sizes_or(widths, &[64; 4])?;
    let n = c.sizes_or(blocks, default)?;
    if w.len() != n.len() || w.is_empty() || w.len() > MAX_STAGES {
        let message = format!(
            "has {} entries and {blocks} {}; as many, up to {MAX_STAGES}, were expected",
            w.len(),
            n.len()
        );
        return Err(c.fault(widths, message));
    }
    if let Some(bad) = n.iter().find(|k| **k > MAX_BLOCKS) {
        return Err(c.fault(blocks, format!("has {bad}; at most {MAX_BLOCKS} are built")));
    }
    Ok(w.into_iter().zip(n).collect())
}

type Built = pomona_graph::Result<ValueId>;

fn scalar(b: &mut GraphBuilder, path: &str, function: BinaryFn, value: f64, x: ValueId) -> Built {
    b.node(path, Op::Scalar { function, value, reversed: false }, &[x], &[])
}

fn encode(b: &mut GraphBuilder, stages: &[(usize, usize)], act: Activation, x: ValueId, out: usize) -> Built {
    b.module("encoder", "EncoderTiny");
    let x = scalar(b, "encoder.shift", BinaryFn::Add, 1.0, x)?;
    let mut x = scalar(b, "encoder.scale", BinaryFn::Div, 2.0, x)?;
    let mut layer = 0;
    let mut next = || {
        layer += 1;
        format!("encoder.layers.{}", layer - 1)
    };
    for (i, &(width, blocks)) in stages.iter().enumerate() {
        x = match i {
            0 => parts::conv(b, &next(), x, width, 3)?,
            _ => parts::conv_without_bias(b, &next(), x, width, ConvAttrs::square(2, 1))?,
        };
        for _ in 0..blocks {
            x = block(b, &next(), act, x)?;
        }
    }
    parts::conv(b, &next(), x, out, 3)
}

fn decode(
    b: &mut GraphBuilder,
    stages: &[(usize, usize)],
    act: Activation,
    factor: usize,
    x: ValueId,
    out: usize,
) -> Built {
    b.module("decoder", "DecoderTiny");
    let x = scalar(b, "decoder.soften", BinaryFn::Div, 3.0, x)?;
    let x = b.activation("decoder.tanh", Activation::Tanh, x)?;
    let x = scalar(b, "decoder.widen", BinaryFn::Mul, 3.0, x)?;
    let mut layer = 0;
    let mut next = || {
        layer += 1;
        format!("decoder.layers.{}", layer - 1)
    };
    let first = stages.first().map_or(1, |s| s.0);
    let mut x = parts::conv(b, &next(), x, first, 3)?;
    x = b.activation(&next(), act, x)?;
    for (i, &(width, blocks)) in stages.iter().enumerate() {
        for _ in 0..blocks {
            x = block(b, &next(), act, x)?;
        }
        if i + 1 < stages.len() {
            let size = parts::times(b, x, factor);
            x = parts::nearest(b, &next(), x, size)?;
            x = parts::conv_without_bias(b, &next(), x, width, ConvAttrs::square(1, 1))?;
        } else {
            x = parts::conv(b, &next(), x, out, 3)?;
        }
    }
    let x = scalar(b, "decoder.double", BinaryFn::Mul, 2.0, x)?;
    scalar(b, "decoder.shift", BinaryFn::Sub, 1.0, x)
}

/// Three convolutions around the identity, then ReLU.
fn block(b: &mut GraphBuilder, path: &str, act: Activation, x: ValueId) -> Built {
    b.module(path, "AutoencoderTinyBlock");
    let width = b.shape(x).get(1).unwrap_or(&Dim::from(0)).size(path)?;
    let mut h = parts::conv(b, &format!("{path}.conv.0"), x, width, 3)?;
    for i in [2, 4] {
        h = b.activation(&format!("{path}.conv.{}", i - 1), act, h)?;
        h = parts::conv(b, &format!("{path}.conv.{i}"), h, width, 3)?;
    }
    let sum = b.add(&format!("{path}.add"), &[h, x])?;
    b.activation(&format!("{path}.fuse"), Activation::Relu, sum)
}
