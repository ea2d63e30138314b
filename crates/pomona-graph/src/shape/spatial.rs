//! Convolutions, pooling and resampling: `[batch, channels, spatial...]`.

use super::{Context, Inferred, agree};
use crate::dim::{Dim, Shape, show_shape};
use crate::op::{ConvAttrs, ValueType};
use crate::tensor::Slot;

type Check<T> = Result<T, String>;

fn spatial<'a>(c: &Context<'a>, axes: usize) -> Check<&'a [Dim]> {
    let shape = c.shape(0);
    if axes == 0 || shape.len() != axes + 2 {
        return Err(format!(
            "input has shape {}; batch, channels and {axes} spatial axes were expected",
            show_shape(shape)
        ));
    }
    Ok(&shape[2..])
}

fn check_attrs(attrs: &ConvAttrs) -> Check<usize> {
    let n = attrs.stride.len();
    let all = attrs.stride.iter().chain(&attrs.dilation).chain(attrs.padding.iter().flatten());
    if all.chain([&attrs.groups]).any(|v| *v > 1 << 32) {
        return Err("stride, padding, dilation or groups is beyond 2^32".to_owned());
    }
    if attrs.padding.len() != n || attrs.dilation.len() != n {
        return Err("stride, padding and dilation have different lengths".to_owned());
    }
    if attrs.stride.contains(&0) || attrs.dilation.contains(&0) || attrs.groups == 0 {
        return Err("stride, dilation and groups must be at least 1".to_owned());
    }
    Ok(n)
}

/// Elements from the first to the last that a kernel reads.
fn span(kernel: usize, dilation: usize) -> Check<usize> {
    let reach = (kernel - 1).checked_mul(dilation).and_then(|r| r.checked_add(1));
    reach.filter(|r| i64::try_from(*r).is_ok()).ok_or_else(|| "the kernel's reach overflows".to_owned())
}

/// `floor((in + before + after - span) / stride) + 1`, or with `ceil`.
fn window(size: &Dim, [before, after]: [usize; 2], span: usize, stride: usize, ceil: bool) -> Check<Dim> {
    let padded = size.clone() + before + after;
    if padded.as_int().is_some_and(|p| i64::try_from(span).map_or(true, |s| p < s)) {
        return Err(format!("a window of {span} does not fit the padded size {padded}"));
    }
    let room = padded.clone() - span;
    let room = if ceil { room + (stride - 1) } else { room };
    let out = room.floor_div(&stride.into()).map_err(|e| e.to_string())? + 1;
    // A ceiling window must begin inside the input or its leading border.
    match (ceil, out.as_int(), size.as_int()) {
        (true, Some(n), Some(s)) if i128::from(n - 1) * stride as i128 >= i128::from(s) + before as i128 => {
            Ok((n - 1).into())
        }
        _ => Ok(out),
    }
}

pub(super) fn conv(c: &Context<'_>, attrs: &ConvAttrs) -> Inferred {
    let n = check_attrs(attrs)?;
    let sizes = spatial(c, n)?;
    let weight = c.weight(Slot::Weight)?;
    let [out, per_group, kernel @ ..] = weight.shape.as_slice() else {
        return Err(format!("tensor `{}` has shape {:?}", weight.name, weight.shape));
    };
    if kernel.len() != n || kernel.contains(&0) || out % attrs.groups != 0 {
        return Err(format!(
            "tensor `{}` has shape {:?}, which does not fit {n} spatial axes in {} groups",
            weight.name, weight.shape, attrs.groups
        ));
    }
    let channels = per_group.checked_mul(attrs.groups).ok_or("channels overflow")?;
    agree(&c.shape(0)[1], channels, || {
        format!("channels of the input against `{}` {:?}", weight.name, weight.shape)
    })?;
    c.check_weight(Slot::Bias, &[*out])?;
    let mut shape: Shape = vec![c.shape(0)[0].clone(), (*out).into()];
    for (i, size) in sizes.iter().enumerate() {
        let span = span(kernel[i], attrs.dilation[i])?;
        shape.push(window(size, attrs.padding[i], span, attrs.stride[i], false)?);
    }
    c.one(shape, ValueType::Float)
}

pub(super) fn conv_transpose(c: &Context<'_>, attrs: &ConvAttrs, output_padding: &[usize]) -> Inferred {
    let n = check_attrs(attrs)?;
    let sizes = spatial(c, n)?;
    let weight = c.weight(Slot::Weight)?;
    let [input, per_group, kernel @ ..] = weight.shape.as_slice() else {
        return Err(format!("tensor `{}` has shape {:?}", weight.name, weight.shape));
    };
    if kernel.len() != n || output_padding.len() != n || kernel.contains(&0) || input % attrs.groups != 0 {
        return Err(format!(
            "tensor `{}` has shape {:?}, which does not fit {n} spatial axes",
            weight.name, weight.shape
        ));
    }
    agree(&c.shape(0)[1], *input, || {
        format!("channels of the input against `{}` {:?}", weight.name, weight.shape)
    })?;
    let out = per_group.checked_mul(attrs.groups).ok_or("channels overflow")?;
    c.check_weight(Slot::Bias, &[out])?;
    let mut shape: Shape = vec![c.shape(0)[0].clone(), out.into()];
    for (i, size) in sizes.iter().enumerate() {
        let span = span(kernel[i], attrs.dilation[i])?;
        let [before, after] = attrs.padding[i];
        let grown = (size.clone() - 1) * attrs.stride[i] + span + output_padding[i];
        let result = grown - before - after;
        if result.as_int().is_some_and(|r| r < 1) {
            return Err(format!("the padding leaves nothing of spatial axis {i}"));
        }
        shape.push(result);
    }
    c.one(shape, ValueType::Float)
}

pub(super) fn pool(
    c: &Context<'_>,
    kernel: &[usize],
    stride: &[usize],
    padding: &[[usize; 2]],
    ceil: bool,
) -> Inferred {
    let n = kernel.len();
    if kernel.iter().chain(stride).chain(padding.iter().flatten()).any(|v| *v > 1 << 32) {
        return Err("kernel, stride or padding is beyond 2^32".to_owned());
    }
    if stride.len() != n || padding.len() != n || stride.contains(&0) || kernel.contains(&0) {
        return Err("kernel, stride and padding do not fit together".to_owned());
    }
    let sizes = spatial(c, n)?;
    let mut shape: Shape = c.shape(0)[..2].to_vec();
    for (i, size) in sizes.iter().enumerate() {
        shape.push(window(size, padding[i], kernel[i], stride[i], ceil)?);
    }
    c.one(shape, c.inputs[0].ty)
}

pub(super) fn resized(c: &Context<'_>, size: &[Dim]) -> Inferred {
    spatial(c, size.len())?;
    if size.iter().any(|d| d.as_int().is_some_and(|v| v < 1)) {
        return Err(format!("target size {}; at least 1 was expected", show_shape(size)));
    }
    c.one(c.shape(0)[..2].iter().chain(size).cloned().collect(), c.inputs[0].ty)
}

pub(super) fn pixel_shuffle(c: &Context<'_>, factor: usize, inverse: bool) -> Inferred {
    spatial(c, 2)?;
    let s = c.shape(0);
    let square = factor.checked_mul(factor).filter(|f| *f > 0).ok_or("factor is 0 or too large")?;
    let divide = |d: &Dim, by: usize| d.exact_div(&by.into()).map_err(|e| e.to_string());
    let shape = if inverse {
        vec![s[0].clone(), s[1].clone() * square, divide(&s[2], factor)?, divide(&s[3], factor)?]
    } else {
        vec![s[0].clone(), divide(&s[1], square)?, s[2].clone() * factor, s[3].clone() * factor]
    };
    c.one(shape, c.inputs[0].ty)
}
