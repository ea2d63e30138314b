//! Convolutions: one, two and three dimensions, one through two.

use burn::backend::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::Shape;
use pomona_graph::{ConvAttrs, Slot};

use super::Call;
use super::layout::bordered;
use crate::burn_types::{B, FloatTensorOps, ModuleOps};
use crate::error::Result;
use crate::kernels::{self, Geometry};
use crate::tensor::Tensor;

/// The input with its asymmetric border made explicit, and the border that is left to the convolution.
fn even_padding(x: &Tensor, padding: &[[usize; 2]]) -> Result<(Tensor, Vec<usize>)> {
    if padding.iter().all(|[a, b]| a == b) {
        return Ok((x.clone(), padding.iter().map(|p| p[0]).collect()));
    }
    let amounts: Vec<[usize; 2]> = [[0, 0], [0, 0]].into_iter().chain(padding.iter().copied()).collect();
    Ok((bordered(x, &amounts, 0.0)?, vec![0; padding.len()]))
}

fn pair(v: &[usize]) -> [usize; 2] {
    [v.first().copied().unwrap_or(1), v.get(1).copied().unwrap_or(1)]
}

fn triple(v: &[usize]) -> [usize; 3] {
    [v[0], v[1], v[2]]
}

/// Sizes of a convolution in one or two dimensions, from its input's size and its output's.
fn geometry(
    a: &ConvAttrs,
    [batch, inputs, outputs]: [usize; 3],
    size: &[usize],
    out: &[usize],
    kernel: &[usize],
) -> Geometry {
    // One dimension lies along the columns.
    let two = |v: &[usize], other: usize| if v.len() == 1 { [other, v[0]] } else { [v[0], v[1]] };
    let before: Vec<usize> = a.padding.iter().map(|p| p[0]).collect();
    Geometry {
        batch,
        inputs,
        outputs,
        groups: a.groups,
        size: two(size, 1),
        out: two(out, 1),
        kernel: two(kernel, 1),
        stride: two(&a.stride, 1),
        before: two(&before, 0),
        dilation: two(&a.dilation, 1),
    }
}

/// The convolution on the CPU in one or two dimensions.
fn fused_conv(x: &Tensor, weight: &Tensor, bias: &Option<Tensor>, a: &ConvAttrs) -> Result<Option<Tensor>> {
    let (xs, ws) = (x.shape(), weight.shape());
    if !(1..=2).contains(&a.stride.len()) || xs.len() != a.stride.len() + 2 {
        return Ok(None);
    }
    let out: Option<Vec<usize>> = (0..a.stride.len())
        .map(|d| {
            let reach = a.dilation[d] * (ws[d + 2].checked_sub(1)?) + 1;
            Some((xs[d + 2] + a.padding[d][0] + a.padding[d][1]).checked_sub(reach)? / a.stride[d] + 1)
        })
        .collect();
    let Some(out) = out else { return Ok(None) };
    let g = geometry(a, [xs[0], xs[1], ws[0]], &xs[2..], &out, &ws[2..]);
    let shape: Vec<usize> = [xs[0], ws[0]].into_iter().chain(out).collect();
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    kernels::record(&inputs, &shape, |s| {
        let y = kernels::conv(&s[0], &s[1], s.get(2).map(|b| &**b), &g);
        let (x, w) = (s[0].clone(), s[1].clone());
        let back = move |above: &[f32], need: &[bool]| {
            let sums = || kernels::channel_sums(above, g.batch, g.outputs, g.out[0] * g.out[1]);
            let dx = need[0].then(|| kernels::conv_input(above, &w, None, &g));
            let dw = need[1].then(|| kernels::conv_weight(&x, above, &g));
            vec![dx, dw, need.get(2).is_some_and(|n| *n).then(sums)]
        };
        (y, kernels::step(back))
    })
}

/// The transposed convolution on the CPU: that of which the input's gradient is taken, the other way round.
fn fused_transposed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Option<Tensor>,
    a: &ConvAttrs,
    extra: &[usize],
) -> Result<Option<Tensor>> {
    let (xs, ws) = (x.shape(), weight.shape());
    if !(1..=2).contains(&a.stride.len()) || xs.len() != a.stride.len() + 2 {
        return Ok(None);
    }
    let out: Option<Vec<usize>> = (0..a.stride.len())
        .map(|d| {
            let whole =
                xs[d + 2].checked_sub(1)? * a.stride[d] + a.dilation[d] * (ws[d + 2].checked_sub(1)?) + 1;
            (whole + extra[d]).checked_sub(a.padding[d][0] + a.padding[d][1])
        })
        .collect();
    let Some(out) = out else { return Ok(None) };
    let outputs = ws[1] * a.groups;
    let g = geometry(a, [xs[0], outputs, xs[1]], &out, &xs[2..], &ws[2..]);
    let shape: Vec<usize> = [xs[0], outputs].into_iter().chain(out).collect();
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    kernels::record(&inputs, &shape, |s| {
        let y = kernels::conv_input(&s[0], &s[1], s.get(2).map(|b| &**b), &g);
        let (x, w) = (s[0].clone(), s[1].clone());
        let back = move |above: &[f32], need: &[bool]| {
            let sums = || kernels::channel_sums(above, g.batch, g.inputs, g.size[0] * g.size[1]);
            let dx = need[0].then(|| kernels::conv(above, &w, None, &g));
            let dw = need[1].then(|| kernels::conv_weight(above, &x, &g));
            vec![dx, dw, need.get(2).is_some_and(|n| *n).then(sums)]
        };
        (y, kernels::step(back))
    })
}

pub(super) fn conv(c: &Call<'_>, a: &ConvAttrs) -> Result<Tensor> {
    let weight = c.need(Slot::Weight)?;
    if let Some(y) = fused_conv(c.input(0)?, &weight, &c.weight(Slot::Bias)?, a)? {
        return Ok(y);
    }
    let bias = c.weight(Slot::Bias)?.map(|b| b.as_float()).transpose()?;
    let (x, padding) = even_padding(c.input(0)?, &a.padding)?;
    let (d, w) = (x.as_float()?, weight.as_float()?);
    let y = match a.stride.len() {
        1 => {
            let (n, ch, l) = (x.shape()[0], x.shape()[1], x.shape()[2]);
            let ws = weight.shape();
            let d = B::float_reshape(d, Shape::from(vec![n, ch, l, 1]));
            let w = B::float_reshape(w, Shape::from(vec![ws[0], ws[1], ws[2], 1]));
            let options = ConvOptions::new([a.stride[0], 1], [padding[0], 0], [a.dilation[0], 1], a.groups);
            let y = Tensor::float(B::conv2d(d, w, bias, options), x.device());
            let shape = y.shape()[..3].to_vec();
            return y.reshape(&shape);
        }
        2 => B::conv2d(
            d,
            w,
            bias,
            ConvOptions::new(pair(&a.stride), pair(&padding), pair(&a.dilation), a.groups),
        ),
        3 => B::conv3d(
            d,
            w,
            bias,
            ConvOptions::new(triple(&a.stride), triple(&padding), triple(&a.dilation), a.groups),
        ),
        n => return Err(c.fault(format!("has {n} spatial axes; 1 to 3 can be run"))),
    };
    Ok(Tensor::float(y, x.device()))
}

pub(super) fn conv_transpose(c: &Call<'_>, a: &ConvAttrs, output_padding: &[usize]) -> Result<Tensor> {
    let weight = c.need(Slot::Weight)?;
    if let Some(y) = fused_transposed(c.input(0)?, &weight, &c.weight(Slot::Bias)?, a, output_padding)? {
        return Ok(y);
    }
    let bias = c.weight(Slot::Bias)?.map(|b| b.as_float()).transpose()?;
    let x = c.input(0)?;
    // Padding cuts the result: what is asymmetric is cut afterwards.
    let even: Vec<usize> = a.padding.iter().map(|[p, q]| *p.min(q)).collect();
    let (d, w) = (x.as_float()?, weight.as_float()?);
    let (xs, ws) = (x.shape().to_vec(), weight.shape().to_vec());
    let y = match a.stride.len() {
        1 => {
            let d = B::float_reshape(d, Shape::from(vec![xs[0], xs[1], xs[2], 1]));
            let w = B::float_reshape(w, Shape::from(vec![ws[0], ws[1], ws[2], 1]));
            let options = ConvTransposeOptions::new(
                [a.stride[0], 1],
                [even[0], 0],
                [output_padding[0], 0],
                [a.dilation[0], 1],
                a.groups,
            );
            let y = Tensor::float(B::conv_transpose2d(d, w, bias, options), x.device());
            let shape = y.shape()[..3].to_vec();
            y.reshape(&shape)?
        }
        2 => {
            let (s, p, o, l) = (pair(&a.stride), pair(&even), pair(output_padding), pair(&a.dilation));
            Tensor::float(
                B::conv_transpose2d(d, w, bias, ConvTransposeOptions::new(s, p, o, l, a.groups)),
                x.device(),
            )
        }
        3 => {
            let (s, p, o, l) =
                (triple(&a.stride), triple(&even), triple(output_padding), triple(&a.dilation));
            Tensor::float(
                B::conv_transpose3d(d, w, bias, ConvTransposeOptions::new(s, p, o, l, a.groups)),
                x.device(),
            )
        }
        n => return Err(c.fault(format!("has {n} spatial axes; 1 to 3 can be run"))),
    };
    let mut out = y;
    for (i, [before, after]) in a.padding.iter().enumerate() {
        let axis = i + 2;
        let (front, back) = (before - even[i], after - even[i]);
        if front + back > 0 {
            let end = out.shape()[axis] - back;
            out = out.slice(axis, front..end)?;
        }
    }
    Ok(out)
}

pub(super) fn pixel_shuffle(c: &Call<'_>, r: usize, inverse: bool) -> Result<Tensor> {
    let x = c.input(0)?;
    let [b, ch, h, w] = *x.shape() else { return Err(c.fault(format!("{x:?}; four axes were expected"))) };
    if inverse {
        x.reshape(&[b, ch, h / r, r, w / r, r])?.transpose(&[0, 1, 3, 5, 2, 4])?.reshape(&[
            b,
            ch * r * r,
            h / r,
            w / r,
        ])
    } else {
        x.reshape(&[b, ch / (r * r), r, r, h, w])?.transpose(&[0, 1, 4, 2, 5, 3])?.reshape(&[
            b,
            ch / (r * r),
            h * r,
            w * r,
        ])
    }
}
