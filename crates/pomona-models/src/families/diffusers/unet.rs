//! The graph of a U-Net with skips: Stable Diffusion's `UNet2DConditionModel` and the unconditional `UNet2DModel`.
//!
//! Sources: Ronneberger et al., arXiv:1505.04597; Ho et al., arXiv:2006.11239; Rombach et al., arXiv:2112.10752. Inputs:
//! `sample` `[batch, channels, height, width]`, `timestep` `[batch]`, and `encoder_hidden_states` `[batch, text_tokens,
//! width]` where there is text. Output `sample`.

use pomona_graph::{BinaryFn, ConvAttrs, Dim, Graph, GraphBuilder, Op, Result, ValueId, ValueType};

use super::parts::{self, Transformer};
use super::unet_config::{Classes, Level, Mid, Mixing, UNet};
use crate::config::Fields;
use crate::families::common::dtype;

/// Tokens of CLIP's text encoder.
const TEXT_TOKENS: usize = 77;

pub(super) fn conditional(c: &Fields<'_>) -> crate::Result<Graph> {
    Ok(graph(&super::unet_config::read(c, true)?, dtype(c)?)?)
}

pub(super) fn unconditional(c: &Fields<'_>) -> crate::Result<Graph> {
    Ok(graph(&super::unet_config::read(c, false)?, dtype(c)?)?)
}

/// What every part of the network reads.
#[derive(Clone, Copy)]
struct Streams {
    time: ValueId,
    text: Option<ValueId>,
}

fn graph(u: &UNet, dtype: &str) -> Result<Graph> {
    let mut b = GraphBuilder::new("model", dtype);
    let batch = Dim::symbol("batch");
    let shape = vec![batch.clone(), u.in_channels.into(), Dim::symbol("height"), Dim::symbol("width")];
    let sample = b.input("sample", shape, ValueType::Float);
    let timestep = b.input("timestep", vec![batch.clone()], ValueType::Float);
    let [height, width] = u.sample.unwrap_or([64; 2]);
    b.default_size("height", height);
    b.default_size("width", width);
    let text_width = u.levels.iter().map(|l| l.text).find(|w| *w > 0);
    let text = text_width.map(|w| {
        b.default_size("text_tokens", TEXT_TOKENS);
        let shape = vec![batch.clone(), Dim::symbol("text_tokens"), w.into()];
        b.input("encoder_hidden_states", shape, ValueType::Float)
    });
    let time = time_embedding(&mut b, u, timestep)?;
    let s = Streams { time, text };
    let mut x = sample;
    if u.center_input {
        x = b.node("center.double", scalar(BinaryFn::Mul, 2.0), &[x], &[])?;
        x = b.node("center.shift", scalar(BinaryFn::Sub, 1.0), &[x], &[])?;
    }
    let kernel = [u.conv_in_kernel; 2];
    x = b.conv("conv_in", x, u.levels[0].width, &kernel, ConvAttrs::square(1, kernel[0] / 2))?;
    let mut skips = vec![x];
    for i in 0..u.levels.len() {
        x = down(&mut b, u, i, s, x, &mut skips)?;
    }
    if let Some(mid) = &u.mid {
        x = middle(&mut b, u, mid, s, x)?;
    }
    for i in (0..u.levels.len()).rev() {
        x = up(&mut b, u, i, s, x, &mut skips)?;
    }
    x = b.group_norm("conv_norm_out", x, u.style.groups, u.style.eps)?;
    x = b.activation("conv_act", u.activation, x)?;
    let kernel = [u.conv_out_kernel; 2];
    x = b.conv("conv_out", x, u.out_channels, &kernel, ConvAttrs::square(1, kernel[0] / 2))?;
    b.output("sample", x);
    b.finish()
}

fn scalar(function: BinaryFn, value: f64) -> Op {
    Op::Scalar { function, value, reversed: false }
}

fn sinusoid(u: &UNet, width: usize) -> Op {
    Op::Sinusoid { width, max_period: 10_000.0, cosine_first: u.time.cosine_first, shift: u.time.shift }
}

fn time_embedding(b: &mut GraphBuilder, u: &UNet, timestep: ValueId) -> Result<ValueId> {
    let (features, width) = (u.time.features, u.time.width);
    let batch = Dim::symbol("batch");
    let t = b.node("time_proj", sinusoid(u, features), &[timestep], &[])?;
    let mut time = parts::embedding(b, "time_embedding", t, width, u.activation)?;
    let class = "class_embedding";
    let vector = |b: &mut GraphBuilder, n: usize| {
        b.input("class_labels", vec![batch.clone(), n.into()], ValueType::Float)
    };
    let classes = match u.classes {
        Classes::None => None,
        Classes::Table(n) => {
            let labels = b.input("class_labels", vec![batch.clone()], ValueType::Int);
            Some(b.embedding(class, labels, n, width)?)
        }
        Classes::Timestep => {
            let labels = b.input("class_labels", vec![batch.clone()], ValueType::Float);
            let t = b.node("class_proj", sinusoid(u, features), &[labels], &[])?;
            Some(parts::embedding(b, class, t, width, u.activation)?)
        }
        Classes::Identity => Some(vector(b, width)),
        Classes::Projection(n) => {
            let labels = vector(b, n);
            Some(parts::embedding(b, class, labels, width, pomona_graph::Activation::Silu)?)
        }
        Classes::SimpleProjection(n) => {
            let labels = vector(b, n);
            Some(b.linear(class, labels, width, true)?)
        }
    };
    if let Some(classes) = classes {
        time = b.add("class_add", &[time, classes])?;
    }
    let Some(added) = u.added else { return Ok(time) };
    // Six sizes: of the original picture, of the crop's corner, of the target.
    let pooled = added.input.saturating_sub(6 * added.features);
    let text = b.input("text_embeds", vec![batch.clone(), pooled.into()], ValueType::Float);
    let ids = b.input("time_ids", vec![batch.clone(), 6.into()], ValueType::Float);
    let sizes = b.node("add_time_proj", sinusoid(u, added.features), &[ids], &[])?;
    let shape = vec![batch, (6 * added.features).into()];
    let sizes = b.node("add_time_flatten", Op::Reshape { shape }, &[sizes], &[])?;
    let all = b.node("add_concat", Op::Concat { axis: 1 }, &[text, sizes], &[])?;
    let all = parts::embedding(b, "add_embedding", all, width, u.activation)?;
    b.add("add_add", &[time, all])
}

fn mix(
    b: &mut GraphBuilder,
    u: &UNet,
    path: &str,
    (level, mixing): (&Level, Mixing),
    s: Streams,
    x: ValueId,
    divisor: f64,
) -> Result<ValueId> {
    match (mixing, s.text) {
        (Mixing::Text, Some(text)) => {
            let t = Transformer {
                heads: level.heads,
                depth: level.depth,
                linear_projection: u.linear_projection,
            };
            parts::transformer(b, path, u.style.groups, t, x, text)
        }
        (Mixing::Pixels, _) => parts::pixel_attention(b, path, &u.style, x, level.pixel_heads, divisor),
        _ => Ok(x),
    }
}

fn class(mixing: Mixing, side: &str) -> String {
    let kind = match mixing {
        Mixing::None => "",
        Mixing::Pixels => "Attn",
        Mixing::Text => "CrossAttn",
    };
    format!("{kind}{side}Block2D")
}

fn down(
    b: &mut GraphBuilder,
    u: &UNet,
    i: usize,
    s: Streams,
    mut x: ValueId,
    skips: &mut Vec<ValueId>,
) -> Result<ValueId> {
    let (path, level) = (format!("down_blocks.{i}"), &u.levels[i]);
    b.module(&path, &class(level.down, "Down"));
    for j in 0..level.layers {
        x = parts::resnet(b, &format!("{path}.resnets.{j}"), &u.style, x, level.width, Some(s.time), 1.0)?;
        x = mix(b, u, &format!("{path}.attentions.{j}"), (level, level.down), s, x, 1.0)?;
        skips.push(x);
    }
    if i + 1 < u.levels.len() {
        x = parts::downsampler(b, &format!("{path}.downsamplers.0"), x, u.downsample_padding)?;
        skips.push(x);
    }
    Ok(x)
}

fn middle(b: &mut GraphBuilder, u: &UNet, mid: &Mid, s: Streams, mut x: ValueId) -> Result<ValueId> {
    let Some(level) = u.levels.last() else { return Ok(x) };
    let name = if mid.mixing == Mixing::Text { "UNetMidBlock2DCrossAttn" } else { "UNetMidBlock2D" };
    b.module("mid_block", name);
    let resnet = |b: &mut GraphBuilder, j: usize, x: ValueId| {
        let path = format!("mid_block.resnets.{j}");
        parts::resnet(b, &path, &u.style, x, level.width, Some(s.time), mid.divisor)
    };
    x = resnet(b, 0, x)?;
    for j in 0..mid.pairs {
        if mid.attention {
            let path = format!("mid_block.attentions.{j}");
            x = mix(b, u, &path, (level, mid.mixing), s, x, mid.divisor)?;
        }
        x = resnet(b, j + 1, x)?;
    }
    Ok(x)
}

fn up(
    b: &mut GraphBuilder,
    u: &UNet,
    i: usize,
    s: Streams,
    mut x: ValueId,
    skips: &mut Vec<ValueId>,
) -> Result<ValueId> {
    let (path, level) = (format!("up_blocks.{}", u.levels.len() - 1 - i), &u.levels[i]);
    b.module(&path, &class(level.up, "Up"));
    for j in 0..=level.layers {
        let resnet = format!("{path}.resnets.{j}");
        if let Some(skip) = skips.pop() {
            x = b.node(&format!("{resnet}.concat"), Op::Concat { axis: 1 }, &[x, skip], &[])?;
        }
        x = parts::resnet(b, &resnet, &u.style, x, level.width, Some(s.time), 1.0)?;
        x = mix(b, u, &format!("{path}.attentions.{j}"), (level, level.up), s, x, 1.0)?;
    }
    if i > 0 {
        // As large as the next skip: twice the size, one less where the resolution was odd.
        let size = skips.last().map(|s| b.shape(*s)[2..].to_vec()).unwrap_or_default();
        x = parts::upsampler(b, &format!("{path}.upsamplers.0"), x, size)?;
    }
    Ok(x)
}
