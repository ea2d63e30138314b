//! Convolutions: one, two and three dimensions, one through two.

use burn::backend::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::Shape;
use pomona_graph::{ConvAttrs, Slot};

use super::Call;
use super::layout::bordered;
use crate::burn_types::{B, FloatTensorOps, ModuleOps};
use crate::error::Result;
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

pub(super) fn conv(c: &Call<'_>, a: &ConvAttrs) -> Result<Tensor> {
    let weight = c.need(Slot::Weight)?;
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
