//! Convolutions and pooling: one and three dimensions through two and three.

use burn::backend::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::Shape;
use pomona_graph::{ConvAttrs, PoolKind, Slot};

use super::elementwise::larger;
use super::layout::strided;
use super::{Call, Fetch};
use crate::burn_types::{B, D, FloatTensorOps, ModuleOps};
use crate::error::Result;
use crate::tensor::Tensor;

/// Pooling windows.
pub(super) struct Window<'a> {
    pub kernel: &'a [usize],
    pub stride: &'a [usize],
    pub padding: &'a [[usize; 2]],
    pub ceil: bool,
    pub count: bool,
}

/// The input with its asymmetric border made explicit, and the border that is left to the convolution.
fn even_padding(c: &Call<'_>, x: &Tensor, padding: &[[usize; 2]], fill: f64) -> Result<(Tensor, Vec<usize>)> {
    if padding.iter().all(|[a, b]| a == b) {
        return Ok((x.clone(), padding.iter().map(|p| p[0]).collect()));
    }
    let amounts: Vec<[usize; 2]> = [[0, 0], [0, 0]].into_iter().chain(padding.iter().copied()).collect();
    let mut padded = x.clone();
    for (axis, [before, after]) in amounts.iter().enumerate() {
        for (count, front) in [(*before, true), (*after, false)] {
            if count > 0 {
                let mut shape = padded.shape().to_vec();
                shape[axis] = count;
                let border = Tensor::full(fill as f32, &shape, x.device())?;
                let border = if c.taped { border.leaf(false)? } else { border };
                let parts = if front { [border, padded] } else { [padded, border] };
                padded = Tensor::concat(&parts, axis)?;
            }
        }
    }
    Ok((padded, vec![0; padding.len()]))
}

fn pair(v: &[usize]) -> [usize; 2] {
    [v.first().copied().unwrap_or(1), v.get(1).copied().unwrap_or(1)]
}

fn triple(v: &[usize]) -> [usize; 3] {
    [v[0], v[1], v[2]]
}

pub(super) fn conv(c: &Call<'_>, fetch: &mut Fetch<'_>, a: &ConvAttrs) -> Result<Tensor> {
    let weight = c.need(Slot::Weight, fetch)?;
    let bias = c.weight(Slot::Bias, fetch)?.map(|b| b.as_float()).transpose()?;
    let (x, padding) = even_padding(c, c.input(0)?, &a.padding, 0.0)?;
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

pub(super) fn conv_transpose(
    c: &Call<'_>,
    fetch: &mut Fetch<'_>,
    a: &ConvAttrs,
    output_padding: &[usize],
) -> Result<Tensor> {
    let weight = c.need(Slot::Weight, fetch)?;
    let bias = c.weight(Slot::Bias, fetch)?.map(|b| b.as_float()).transpose()?;
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

/// Pooling as a reduction over the shifted, strided views of the input: every window element is one view.
pub(super) fn pool(c: &Call<'_>, kind: PoolKind, w: &Window<'_>) -> Result<Tensor> {
    let x = c.input(0)?;
    let rank = x.shape().len();
    let sizes: Vec<usize> = {
        let declared = c.node.outputs.first().map(|v| c.graph.value(*v).shape.clone()).unwrap_or_default();
        c.sizes(&declared[2..])?
    };
    // Enough border that every window of the result lies inside.
    let mut amounts = Vec::new();
    for (i, size) in sizes.iter().enumerate() {
        let reach = (size - 1) * w.stride[i] + w.kernel[i];
        let before = w.padding[i][0];
        let after =
            reach.saturating_sub(x.shape()[i + 2] + before).max(if w.ceil { 0 } else { w.padding[i][1] });
        amounts.push([before, after]);
    }
    let fill = if kind == PoolKind::Max { f64::from(f32::MIN) } else { 0.0 };
    let pad_all = |t: &Tensor, fill: f64| -> Result<Tensor> {
        let mut t = t.clone();
        for (i, [before, after]) in amounts.iter().enumerate() {
            for (count, front) in [(*before, true), (*after, false)] {
                if count > 0 {
                    let mut shape = t.shape().to_vec();
                    shape[i + 2] = count;
                    let border = Tensor::full(fill as f32, &shape, t.device())?;
                    let border = if c.taped { border.leaf(false)? } else { border };
                    t = Tensor::concat(&if front { [border, t] } else { [t, border] }, i + 2)?;
                }
            }
        }
        Ok(t)
    };
    let offsets = window_offsets(w.kernel);
    let views = |t: &Tensor| -> Result<Vec<D>> {
        let d = t.as_float()?;
        let cut = |offset: &Vec<usize>| {
            offset.iter().enumerate().fold(d.clone(), |d, (i, o)| {
                strided(d, rank, i + 2, *o, o + (sizes[i] - 1) * w.stride[i] + 1, w.stride[i])
            })
        };
        Ok(offsets.iter().map(cut).collect())
    };
    let join =
        |parts: Vec<D>, f: fn(D, D) -> D| parts.into_iter().reduce(f).ok_or_else(|| c.fault("has no window"));
    let padded = pad_all(x, fill)?;
    if kind == PoolKind::Max {
        let max = join(views(&padded)?, larger)?;
        return Ok(Tensor::float(max, x.device()));
    }
    let sum = join(views(&padded)?, B::float_add)?;
    // The divisor: all elements, or those that lie inside the input (and its counted border).
    let mut inside = vec![1.0; x.shape()[2..].iter().product()];
    let mut shape = vec![1, 1];
    shape.extend(&x.shape()[2..]);
    if w.count {
        let with: Vec<usize> = w.padding.iter().zip(&x.shape()[2..]).map(|([a, b], n)| a + n + b).collect();
        inside = vec![1.0; with.iter().product()];
        shape = [vec![1, 1], with].concat();
    }
    let ones = Tensor::from_f32(inside, &shape, x.device())?;
    let ones = if c.taped { ones.leaf(false)? } else { ones };
    let counted = if w.count {
        // The border counts already; only what a ceiling window reaches beyond is outside.
        let mut t = ones;
        for (i, size) in sizes.iter().enumerate() {
            let reach = (size - 1) * w.stride[i] + w.kernel[i];
            let missing = reach.saturating_sub(t.shape()[i + 2]);
            if missing > 0 {
                let mut shape = t.shape().to_vec();
                shape[i + 2] = missing;
                let zero = Tensor::full(0.0, &shape, x.device())?;
                let zero = if c.taped { zero.leaf(false)? } else { zero };
                t = Tensor::concat(&[t, zero], i + 2)?;
            }
        }
        t
    } else {
        pad_all(&ones, 0.0)?
    };
    let divisor = join(views(&counted)?, B::float_add)?;
    Ok(Tensor::float(B::float_div(sum, divisor), x.device()))
}

fn window_offsets(kernel: &[usize]) -> Vec<Vec<usize>> {
    kernel.iter().fold(vec![Vec::new()], |all, k| {
        all.iter().flat_map(|o| (0..*k).map(move |i| [o.as_slice(), &[i]].concat())).collect()
    })
}

/// Output element i of n over an axis of m covers `floor(i m / n) .. ceil((i + 1) m / n)`.
pub(super) fn adaptive_pool(c: &Call<'_>, kind: PoolKind, size: &[usize]) -> Result<Tensor> {
    let mut x = c.input(0)?.clone();
    for (k, n) in size.iter().enumerate() {
        let axis = k + 2;
        let m = x.shape()[axis];
        if m == 0 || *n == 0 {
            return Err(c.fault(format!("pools {m} elements to {n}")));
        }
        let mut parts = Vec::with_capacity(*n);
        for i in 0..*n {
            let cut = x.slice(axis, i * m / n..((i + 1) * m).div_ceil(*n))?.as_float()?;
            let d = if kind == PoolKind::Max {
                B::float_max_dim(cut, axis)
            } else {
                B::float_mean_dim(cut, axis)
            };
            parts.push(Tensor::float(d, x.device()));
        }
        x = Tensor::concat(&parts, axis)?;
    }
    Ok(x)
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
