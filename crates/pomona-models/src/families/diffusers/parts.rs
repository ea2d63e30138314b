//! The parts that diffusers networks are made of, under the module names of their state dicts.

use pomona_graph::{
    Activation, AttentionAttrs, BinaryFn, ConvAttrs, Dim, GraphBuilder, Op, Result, Slot, SplitMap, ValueId,
};

pub(super) use crate::families::resize::{nearest, times};

/// Settings that the parts of one network share.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Style {
    pub groups: usize,
    pub eps: f64,
    pub activation: Activation,
    /// Share of dropped elements in training.
    pub dropout: f64,
    /// The time embedding gives a scale and a shift behind the second norm instead of a sum in front of it.
    pub scale_shift: bool,
}

/// A 3x3 or 1x1 convolution that keeps the resolution.
pub(super) fn conv(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    out: usize,
    kernel: usize,
) -> Result<ValueId> {
    b.conv(path, x, out, &[kernel, kernel], ConvAttrs::square(1, kernel / 2))
}

/// A convolution without bias.
pub(super) fn conv_without_bias(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    out: usize,
    attrs: ConvAttrs,
) -> Result<ValueId> {
    let input = b.shape(x).get(1).unwrap_or(&Dim::from(0)).size(path)?;
    let weight = b.parameter(&format!("{path}.weight"), &[out, input, 3, 3])?;
    b.node(path, Op::Conv(attrs), &[x], &[(Slot::Weight, weight)])
}

fn channels(b: &GraphBuilder, path: &str, x: ValueId) -> Result<usize> {
    b.shape(x).get(1).unwrap_or(&Dim::from(0)).size(path)
}

/// Height and width of an image, and the same as a number of tokens.
fn area(b: &GraphBuilder, x: ValueId) -> Result<(Vec<Dim>, Dim)> {
    let sides: Vec<Dim> = b.shape(x).iter().skip(2).cloned().collect();
    let area = sides.iter().try_fold(Dim::from(1), |n, d| n.checked_mul(d))?;
    Ok((sides, area))
}

/// `[b, c, h, w] -> [b, h*w, c]`.
fn to_tokens(b: &mut GraphBuilder, path: &str, x: ValueId) -> Result<ValueId> {
    let (_, area) = area(b, x)?;
    let shape = vec![b.shape(x)[0].clone(), b.shape(x)[1].clone(), area];
    let flat = b.node(&format!("{path}.flatten"), Op::Reshape { shape }, &[x], &[])?;
    b.node(&format!("{path}.to_tokens"), Op::Transpose { axes: vec![0, 2, 1] }, &[flat], &[])
}

/// `[b, h*w, c] -> [b, c, h, w]` with the sides of `like`.
fn to_image(b: &mut GraphBuilder, path: &str, x: ValueId, like: ValueId) -> Result<ValueId> {
    let x = b.node(&format!("{path}.to_channels"), Op::Transpose { axes: vec![0, 2, 1] }, &[x], &[])?;
    let (sides, _) = area(b, like)?;
    let shape = b.shape(x)[..2].iter().chain(&sides).cloned().collect();
    b.node(&format!("{path}.unflatten"), Op::Reshape { shape }, &[x], &[])
}

/// Linear, activation, linear: the embedding of a time step or of a vector.
pub(super) fn embedding(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    width: usize,
    activation: Activation,
) -> Result<ValueId> {
    b.module(path, "TimestepEmbedding");
    let x = b.linear(&format!("{path}.linear_1"), x, width, true)?;
    let x = b.activation(&format!("{path}.act"), activation, x)?;
    b.linear(&format!("{path}.linear_2"), x, width, true)
}

/// A residual block of two convolutions, with a time embedding where `time` is given.
pub(super) fn resnet(
    b: &mut GraphBuilder,
    path: &str,
    style: &Style,
    x: ValueId,
    out: usize,
    time: Option<ValueId>,
    divisor: f64,
) -> Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, "ResnetBlock2D");
    let h = b.group_norm(&at("norm1"), x, style.groups, style.eps)?;
    let h = b.activation(&at("nonlinearity"), style.activation, h)?;
    let mut h = conv(b, &at("conv1"), h, out, 3)?;
    let mut modulation = None;
    if let Some(time) = time {
        let t = b.activation(&at("time_nonlinearity"), style.activation, time)?;
        let width = if style.scale_shift { 2 * out } else { out };
        let t = b.linear(&at("time_emb_proj"), t, width, true)?;
        let shape = vec![b.shape(t)[0].clone(), width.into(), 1.into(), 1.into()];
        let t = b.node(&at("time_image"), Op::Reshape { shape }, &[t], &[])?;
        if style.scale_shift {
            let map = SplitMap::Parts { sizes: vec![out.into(), out.into()] };
            let parts = b.node_multi(&at("time_parts"), Op::Split { axis: 1, map }, &[t], &[])?;
            let scale = Op::Scalar { function: BinaryFn::Add, value: 1.0, reversed: false };
            let scale = b.node(&at("time_scale"), scale, &[parts[0]], &[])?;
            modulation = Some((scale, parts[1]));
        } else {
            h = b.node(&at("time_add"), Op::Binary { function: BinaryFn::Add }, &[h, t], &[])?;
        }
    }
    h = b.group_norm(&at("norm2"), h, style.groups, style.eps)?;
    if let Some((scale, shift)) = modulation {
        h = b.node(&at("scaled"), Op::Binary { function: BinaryFn::Mul }, &[h, scale], &[])?;
        h = b.node(&at("shifted"), Op::Binary { function: BinaryFn::Add }, &[h, shift], &[])?;
    }
    h = b.activation(&at("nonlinearity_2"), style.activation, h)?;
    if style.dropout > 0.0 {
        h = b.node(&at("dropout"), Op::Dropout { rate: style.dropout }, &[h], &[])?;
    }
    h = conv(b, &at("conv2"), h, out, 3)?;
    let short = if channels(b, path, x)? == out { x } else { conv(b, &at("conv_shortcut"), x, out, 1)? };
    let sum = b.add(&at("add"), &[short, h])?;
    divided(b, &at("scale"), sum, divisor)
}

/// `x / divisor`, nothing for 1.
fn divided(b: &mut GraphBuilder, path: &str, x: ValueId, divisor: f64) -> Result<ValueId> {
    if divisor == 1.0 {
        return Ok(x);
    }
    b.node(path, Op::Scalar { function: BinaryFn::Div, value: divisor, reversed: false }, &[x], &[])
}

/// Halves the resolution by a strided convolution; without `padding` a row and a column of zeros follow the image.
pub(super) fn downsampler(b: &mut GraphBuilder, path: &str, x: ValueId, padding: usize) -> Result<ValueId> {
    b.module(path, "Downsample2D");
    let out = channels(b, path, x)?;
    let border = if padding == 0 { [0, 1] } else { [padding; 2] };
    let attrs = ConvAttrs { padding: vec![border; 2], ..ConvAttrs::square(2, 0) };
    b.conv(&format!("{path}.conv"), x, out, &[3, 3], attrs)
}

/// Nearest neighbours to `size`, then a convolution.
pub(super) fn upsampler(b: &mut GraphBuilder, path: &str, x: ValueId, size: Vec<Dim>) -> Result<ValueId> {
    b.module(path, "Upsample2D");
    let out = channels(b, path, x)?;
    let x = nearest(b, &format!("{path}.resize"), x, size)?;
    conv(b, &format!("{path}.conv"), x, out, 3)
}

fn attend(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    source: ValueId,
    heads: usize,
    qkv_bias: bool,
) -> Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    let width = b.shape(x).last().unwrap_or(&Dim::from(0)).size(path)?;
    let q = b.linear(&at("to_q"), x, width, qkv_bias)?;
    let k = b.linear(&at("to_k"), source, width, qkv_bias)?;
    let v = b.linear(&at("to_v"), source, width, qkv_bias)?;
    let attrs = AttentionAttrs {
        heads,
        kv_heads: heads,
        scale: 1.0 / ((width / heads) as f64).sqrt(),
        causal: false,
        window: None,
        softcap: None,
    };
    let a = b.node(&at("attention"), Op::Attention(attrs), &[q, k, v], &[])?;
    b.linear(&at("to_out.0"), a, width, true)
}

/// Self-attention over the pixels with its own norm and residual (`Attention` of unconditional networks).
pub(super) fn pixel_attention(
    b: &mut GraphBuilder,
    path: &str,
    style: &Style,
    x: ValueId,
    heads: usize,
    divisor: f64,
) -> Result<ValueId> {
    b.module(path, "Attention");
    let h = b.group_norm(&format!("{path}.group_norm"), x, style.groups, style.eps)?;
    let h = to_tokens(b, path, h)?;
    let h = attend(b, path, h, h, heads, true)?;
    let h = to_image(b, path, h, x)?;
    let sum = b.add(&format!("{path}.add"), &[x, h])?;
    divided(b, &format!("{path}.scale"), sum, divisor)
}

/// How a spatial transformer is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transformer {
    pub heads: usize,
    pub depth: usize,
    pub linear_projection: bool,
}

/// `Transformer2DModel`: blocks of self-attention, cross-attention to `text` and a gated feed-forward part.
pub(super) fn transformer(
    b: &mut GraphBuilder,
    path: &str,
    groups: usize,
    t: Transformer,
    x: ValueId,
    text: ValueId,
) -> Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, "Transformer2DModel");
    let width = channels(b, path, x)?;
    let mut h = b.group_norm(&at("norm"), x, groups, 1e-6)?;
    if t.linear_projection {
        h = to_tokens(b, path, h)?;
        h = b.linear(&at("proj_in"), h, width, true)?;
    } else {
        h = conv(b, &at("proj_in"), h, width, 1)?;
        h = to_tokens(b, path, h)?;
    }
    for i in 0..t.depth {
        h = transformer_block(b, &format!("{path}.transformer_blocks.{i}"), h, text, t.heads)?;
    }
    if t.linear_projection {
        h = b.linear(&at("proj_out"), h, width, true)?;
        h = to_image(b, path, h, x)?;
    } else {
        h = to_image(b, path, h, x)?;
        h = conv(b, &at("proj_out"), h, width, 1)?;
    }
    b.add(&at("add"), &[x, h])
}

fn transformer_block(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    text: ValueId,
    heads: usize,
) -> Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, "BasicTransformerBlock");
    b.module(&at("attn1"), "Attention");
    b.module(&at("attn2"), "Attention");
    b.module(&at("ff"), "FeedForward");
    let width = b.shape(x).last().unwrap_or(&Dim::from(0)).size(path)?;
    let h = b.layer_norm(&at("norm1"), x, 1e-5)?;
    let h = attend(b, &at("attn1"), h, h, heads, false)?;
    let x = b.add(&at("attn1_residual"), &[x, h])?;
    let h = b.layer_norm(&at("norm2"), x, 1e-5)?;
    let h = attend(b, &at("attn2"), h, text, heads, false)?;
    let x = b.add(&at("attn2_residual"), &[x, h])?;
    let h = b.layer_norm(&at("norm3"), x, 1e-5)?;
    let h = b.linear(&at("ff.net.0.proj"), h, 8 * width, true)?;
    let map = SplitMap::Parts { sizes: vec![(4 * width).into(), (4 * width).into()] };
    let parts = b.node_multi(&at("ff.net.0.parts"), Op::Split { axis: 2, map }, &[h], &[])?;
    let gate = b.activation(&at("ff.net.0.gelu"), Activation::Gelu, parts[1])?;
    let h = b.node(&at("ff.net.0.gated"), Op::Binary { function: BinaryFn::Mul }, &[parts[0], gate], &[])?;
    let h = b.linear(&at("ff.net.2"), h, width, true)?;
    b.add(&at("ff_residual"), &[x, h])
}

/// Names that the attentions over pixels had before they became `Attention`.
pub(super) fn old_attention_names(name: &str) -> Vec<String> {
    let pairs =
        [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
    pairs.iter().filter(|(new, _)| name.contains(new)).map(|(new, old)| name.replace(new, old)).collect()
}
