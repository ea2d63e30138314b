//! Convolutions, pooling and pixel shuffles.

use pomona_graph::{ConvAttrs, Dim, Op, PoolKind, Slot, TensorId, ValueId};

use super::super::context::{Call, Context, Lower, unsupported};
use super::super::host::number;

fn sizes(c: &Call<'_>, name: &str, n: usize, default: usize) -> Lower<Vec<usize>> {
    let Some(v) = c.ints(name) else { return Ok(vec![default; n]) };
    let size = |x: &i64| usize::try_from(*x).ok().filter(|x| *x <= 1 << 32);
    let out: Option<Vec<usize>> = v.iter().map(size).collect();
    match out.filter(|v| v.len() == n) {
        Some(v) => Ok(v),
        None => unsupported(format!("has {name} {v:?} for {n} spatial axes")),
    }
}

/// Elements from the first to the last that a kernel reads.
fn reach(kernel: usize, dilation: usize) -> Lower<usize> {
    let span = (kernel.max(1) - 1).checked_mul(dilation).and_then(|r| r.checked_add(1));
    match span.filter(|s| *s < 1 << 32) {
        Some(s) => Ok(s),
        None => unsupported(format!("has a kernel of {kernel} elements {dilation} apart")),
    }
}

/// Borders before and after: given, or so that the output has `ceil(in / stride)` elements.
fn padding(
    c: &Call<'_>,
    spatial: &[Dim],
    kernel: &[usize],
    stride: &[usize],
    dilation: &[usize],
) -> Lower<Vec<[usize; 2]>> {
    let n = spatial.len();
    match c.text("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" => {
            let flat = sizes(c, "pads", 2 * n, 0)?;
            Ok((0..n).map(|i| [flat[i], flat[n + i]]).collect())
        }
        "VALID" => Ok(vec![[0; 2]; n]),
        mode => (0..n)
            .map(|i| {
                let span = reach(kernel[i], dilation[i])?;
                let total = if stride[i] == 1 {
                    span - 1
                } else {
                    let size = number(&spatial[i])?.max(1) as usize;
                    let out = size.div_ceil(stride[i].max(1));
                    (out - 1).saturating_mul(stride[i]).saturating_add(span).saturating_sub(size)
                };
                let small = total / 2;
                Ok(if mode == "SAME_LOWER" { [total - small, small] } else { [small, total - small] })
            })
            .collect(),
    }
}

fn attrs(c: &Call<'_>, spatial: &[Dim], kernel: &[usize]) -> Lower<ConvAttrs> {
    let n = spatial.len();
    if kernel.len() != n {
        return unsupported(format!("has a kernel of {} axes for {n} spatial axes", kernel.len()));
    }
    let (stride, dilation) = (sizes(c, "strides", n, 1)?, sizes(c, "dilations", n, 1)?);
    let padding = padding(c, spatial, kernel, &stride, &dilation)?;
    let Ok(groups) = usize::try_from(c.int_or("group", 1)) else {
        return unsupported("has a negative group");
    };
    Ok(ConvAttrs { stride, padding, dilation, groups })
}

fn spatial_axes(ctx: &Context<'_>, x: ValueId) -> Lower<Vec<Dim>> {
    let shape = ctx.shape(x);
    if shape.len() < 3 {
        return unsupported(format!(
            "reads {} axes: batch, channels and spatial ones were expected",
            shape.len()
        ));
    }
    Ok(shape[2..].to_vec())
}

/// Kernel sizes, and the tensors of a convolution.
type Weights = (Vec<usize>, Vec<(Slot, TensorId)>);

fn weights(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Weights> {
    let w = ctx.need_weight(c, 1)?;
    if w.shape.len() < 3 {
        return unsupported(format!("has a weight of shape {:?}", w.shape));
    }
    let mut out = vec![(Slot::Weight, ctx.parameter(&c.path, "weight", &w)?)];
    if ctx.name(c, 2).is_some() {
        let b = ctx.need_weight(c, 2)?;
        let flat = b.reshape(vec![b.elements()]);
        out.push((Slot::Bias, ctx.parameter(&c.path, "bias", &flat)?));
    }
    Ok((w.shape[2..].to_vec(), out))
}

pub(super) fn conv(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let spatial = spatial_axes(ctx, x)?;
    let (kernel, weights) = weights(ctx, c)?;
    let attrs = attrs(c, &spatial, &kernel)?;
    ctx.add(&c.path, Op::Conv(attrs), &[x], &weights)
}

pub(super) fn conv_transpose(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let spatial = spatial_axes(ctx, x)?;
    let n = spatial.len();
    let (kernel, weights) = weights(ctx, c)?;
    let mut output_padding = sizes(c, "output_padding", n, 0)?;
    let mut plain = c.node.clone();
    let mode = c.text("auto_pad").unwrap_or("NOTSET").to_owned();
    plain.attributes.retain(|a| a.name != "auto_pad");
    let mut conv = attrs(&Call { node: &plain, path: c.path.clone() }, &spatial, &kernel)?;
    let wanted = c.ints("output_shape");
    if wanted.is_some() || mode.starts_with("SAME") {
        for i in 0..n {
            let size = number(&spatial[i])?;
            let span = reach(kernel[i], conv.dilation[i])? as i64;
            let steps = size.saturating_sub(1).saturating_mul(conv.stride[i] as i64);
            let full = steps.saturating_add(span).saturating_add(output_padding[i] as i64);
            let target = match &wanted {
                // Only the spatial sizes count, with or without batch and channels before them.
                Some(s) => s.get(s.len().saturating_sub(n) + i).copied().unwrap_or(full),
                None => size.saturating_mul(conv.stride[i] as i64),
            };
            let total = full.saturating_sub(target);
            if total < 0 {
                output_padding[i] = output_padding[i].saturating_add(total.unsigned_abs() as usize);
            }
            let total = total.max(0) as usize;
            let (small, large) = (total / 2, total - total / 2);
            conv.padding[i] = if mode == "SAME_UPPER" { [small, large] } else { [large, small] };
        }
    }
    ctx.add(&c.path, Op::ConvTranspose { conv, output_padding }, &[x], &weights)
}

pub(super) fn pool(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    if c.node.outputs.iter().skip(1).any(|o| !o.is_empty()) {
        return unsupported("gives the indices of maxima too");
    }
    let x = ctx.value(c, 0)?;
    let spatial = spatial_axes(ctx, x)?;
    let n = spatial.len();
    let kernel = sizes(c, "kernel_shape", n, 1)?;
    let (stride, dilation) = (sizes(c, "strides", n, 1)?, sizes(c, "dilations", n, 1)?);
    if dilation.iter().any(|d| *d != 1) {
        return unsupported(format!("has dilations {dilation:?}"));
    }
    let padding = padding(c, &spatial, &kernel, &stride, &dilation)?;
    let kind = if c.node.op == "MaxPool" { PoolKind::Max } else { PoolKind::Average };
    let op = Op::Pool {
        kind,
        kernel,
        stride,
        padding,
        ceil: c.int_or("ceil_mode", 0) != 0,
        count_padding: c.int_or("count_include_pad", 0) != 0,
    };
    ctx.add(&c.path, op, &[x], &[])
}

pub(super) fn global_pool(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let n = spatial_axes(ctx, x)?.len();
    let kind = if c.node.op == "GlobalMaxPool" { PoolKind::Max } else { PoolKind::Average };
    ctx.add(&c.path, Op::AdaptivePool { kind, size: vec![1; n] }, &[x], &[])
}

/// DepthToSpace in both orders, and SpaceToDepth, which has the other one.
pub(super) fn shuffle(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let r = c.int_or("blocksize", 0).max(1);
    let shape = ctx.shape(x);
    let [b, ch, h, w] = shape.as_slice() else { return unsupported("reads a value that is no picture") };
    let inverse = c.node.op == "SpaceToDepth";
    if !inverse && c.text("mode") == Some("CRD") {
        return ctx.add(&c.path, Op::PixelShuffle { factor: r as usize, inverse: false }, &[x], &[]);
    }
    let r = Dim::from(r);
    let square = r.checked_mul(&r)?;
    let (split, order, joined) = if inverse {
        let (h, w) = (h.exact_div(&r)?, w.exact_div(&r)?);
        let split = vec![b.clone(), ch.clone(), h.clone(), r.clone(), w.clone(), r.clone()];
        (split, vec![0, 3, 5, 1, 2, 4], vec![b.clone(), ch.clone() * &square, h, w])
    } else {
        let ch = ch.exact_div(&square)?;
        let split = vec![b.clone(), r.clone(), r.clone(), ch.clone(), h.clone(), w.clone()];
        (split, vec![0, 3, 4, 1, 5, 2], vec![b.clone(), ch, h.clone() * &r, w.clone() * &r])
    };
    let x = ctx.reshape(&c.path, x, split)?;
    let x = ctx.transposed(&c.path, x, order)?;
    ctx.add(&c.path, Op::Reshape { shape: joined }, &[x], &[])
}
