//! The variational auto-encoder of latent diffusion, `AutoencoderKL`.
//!
//! Source: Rombach et al., arXiv:2112.10752. One graph with two independent halves: `sample` `[batch, 3, height, width]`
//! to `moments` (mean and log variance, two halves of the channels), and `latent` `[batch, 4, latent_height,
//! latent_width]` to `image`.

use pomona_graph::{Activation, Dim, Graph, GraphBuilder, ValueId, ValueType};

use super::parts::{self, Style};
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::{dtype, named_activation};

/// Far more levels than a picture has halvings.
const MAX_LEVELS: usize = 16;
/// Far more resnets than any level has.
const MAX_LAYERS: usize = 64;

struct Autoencoder {
    widths: Vec<usize>,
    layers: usize,
    style: Style,
    mid_attention: bool,
}

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let widths = c.sizes_or("block_out_channels", &[64])?;
    let n = widths.len();
    if n == 0 || n > MAX_LEVELS {
        return Err(
            c.fault("block_out_channels", format!("has {n} entries; 1 to {MAX_LEVELS} were expected"))
        );
    }
    for (key, wanted) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
    {
        let names = c.maybe_texts(key, n)?.unwrap_or_default();
        if let Some(other) = names.iter().find(|t| **t != wanted) {
            return Err(c.fault(key, format!("has \"{other}\"; {wanted} is read")));
        }
    }
    let layers = c.size_or("layers_per_block", 1)?;
    if layers > MAX_LAYERS {
        return Err(c.fault("layers_per_block", format!("is {layers}; at most {MAX_LAYERS} are built")));
    }
    let style = Style {
        groups: c.size_or("norm_num_groups", 32)?,
        eps: 1e-6,
        activation: named_activation(c, "act_fn", "silu")?,
        dropout: 0.0,
        scale_shift: false,
    };
    let a = Autoencoder { widths, layers, style, mid_attention: c.flag_or("mid_block_add_attention", true)? };
    let latent = c.size_or("latent_channels", 4)?;
    let [height, width] = c.sides("sample_size")?.unwrap_or([512; 2]);
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let factor = 1 << (a.widths.len() - 1);
    for (symbol, size) in [
        ("height", height),
        ("width", width),
        ("latent_height", height.div_ceil(factor)),
        ("latent_width", width.div_ceil(factor)),
    ] {
        b.default_size(symbol, size);
    }
    let image = |channels: usize, sides: [&str; 2]| {
        vec![Dim::symbol("batch"), channels.into(), Dim::symbol(sides[0]), Dim::symbol(sides[1])]
    };
    let shape = image(c.size_or("in_channels", 3)?, ["height", "width"]);
    let sample = b.input("sample", shape, ValueType::Float);
    let z = b.input("latent", image(latent, ["latent_height", "latent_width"]), ValueType::Float);
    let mut moments = encoder(&mut b, &a, sample, 2 * latent)?;
    if c.flag_or("use_quant_conv", true)? {
        moments = parts::conv(&mut b, "quant_conv", moments, 2 * latent, 1)?;
    }
    b.output("moments", moments);
    let mut x = z;
    if c.flag_or("use_post_quant_conv", true)? {
        x = parts::conv(&mut b, "post_quant_conv", x, latent, 1)?;
    }
    let x = decoder(&mut b, &a, x, c.size_or("out_channels", 3)?)?;
    b.output("image", x);
    Ok(b.finish()?)
}

type Built = pomona_graph::Result<ValueId>;

fn encoder(b: &mut GraphBuilder, a: &Autoencoder, x: ValueId, out: usize) -> Built {
    b.module("encoder", "Encoder");
    let mut x = parts::conv(b, "encoder.conv_in", x, a.widths[0], 3)?;
    for (i, width) in a.widths.iter().enumerate() {
        let path = format!("encoder.down_blocks.{i}");
        b.module(&path, "DownEncoderBlock2D");
        for j in 0..a.layers {
            x = parts::resnet(b, &format!("{path}.resnets.{j}"), &a.style, x, *width, None, 1.0)?;
        }
        if i + 1 < a.widths.len() {
            x = parts::downsampler(b, &format!("{path}.downsamplers.0"), x, 0)?;
        }
    }
    let x = middle(b, a, "encoder", x)?;
    head(b, a, "encoder", x, out)
}

fn decoder(b: &mut GraphBuilder, a: &Autoencoder, x: ValueId, out: usize) -> Built {
    b.module("decoder", "Decoder");
    let innermost = a.widths.last().copied().unwrap_or(1);
    let x = parts::conv(b, "decoder.conv_in", x, innermost, 3)?;
    let mut x = middle(b, a, "decoder", x)?;
    for (i, width) in a.widths.iter().rev().enumerate() {
        let path = format!("decoder.up_blocks.{i}");
        b.module(&path, "UpDecoderBlock2D");
        for j in 0..=a.layers {
            x = parts::resnet(b, &format!("{path}.resnets.{j}"), &a.style, x, *width, None, 1.0)?;
        }
        if i + 1 < a.widths.len() {
            let size = parts::times(b, x, 2);
            x = parts::upsampler(b, &format!("{path}.upsamplers.0"), x, size)?;
        }
    }
    head(b, a, "decoder", x, out)
}

fn middle(b: &mut GraphBuilder, a: &Autoencoder, side: &str, x: ValueId) -> Built {
    let width = a.widths.last().copied().unwrap_or(1);
    let at = |name: &str| format!("{side}.mid_block.{name}");
    b.module(&format!("{side}.mid_block"), "UNetMidBlock2D");
    let mut x = parts::resnet(b, &at("resnets.0"), &a.style, x, width, None, 1.0)?;
    if a.mid_attention {
        x = parts::pixel_attention(b, &at("attentions.0"), &a.style, x, 1, 1.0)?;
    }
    parts::resnet(b, &at("resnets.1"), &a.style, x, width, None, 1.0)
}

fn head(b: &mut GraphBuilder, a: &Autoencoder, side: &str, x: ValueId, out: usize) -> Built {
    let x = b.group_norm(&format!("{side}.conv_norm_out"), x, a.style.groups, a.style.eps)?;
    let x = b.activation(&format!("{side}.conv_act"), Activation::Silu, x)?;
    parts::conv(b, &format!("{side}.conv_out"), x, out, 3)
}
