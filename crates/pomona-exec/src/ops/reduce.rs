//! Reductions, running sums and selections of the largest.

use pomona_graph::ReduceFn;

use super::Call;
use crate::burn_types::{B, FloatTensorOps};
use crate::error::Result;
use crate::tensor::{Kind, Tensor};

pub(super) fn reduce(c: &Call<'_>, function: ReduceFn, axes: &[usize], keep: bool) -> Result<Tensor> {
    let x = c.input(0)?;
    let kept = |(i, n): (usize, &usize)| match (axes.contains(&i), keep) {
        (false, _) => Some(*n),
        (true, true) => Some(1),
        (true, false) => None,
    };
    let shape: Vec<usize> = x.shape().iter().enumerate().filter_map(kept).collect();
    if x.kind() != Kind::Float {
        return reduce_integers(c, x, function, axes, &shape);
    }
    let mut d = x.as_float()?;
    if function == ReduceFn::L2 {
        d = B::float_mul(d.clone(), d);
    }
    for &axis in axes {
        d = match function {
            ReduceFn::Mean => B::float_mean_dim(d, axis),
            ReduceFn::Sum | ReduceFn::L2 => B::float_sum_dim(d, axis),
            ReduceFn::Max => B::float_max_dim(d, axis),
            ReduceFn::Min => B::float_min_dim(d, axis),
            ReduceFn::Prod => B::float_prod_dim(d, axis),
        };
    }
    if function == ReduceFn::L2 {
        d = B::float_sqrt(d);
    }
    Tensor::float(d, x.device()).reshape(&shape)
}

/// Shapes and masks: exact, on the host.
fn reduce_integers(
    c: &Call<'_>,
    x: &Tensor,
    function: ReduceFn,
    axes: &[usize],
    shape: &[usize],
) -> Result<Tensor> {
    let mut sizes = x.shape().to_vec();
    let mut values: Vec<i64> = match x.kind() {
        Kind::Int => x.as_i64()?.to_vec(),
        _ => x.as_bool()?.iter().map(|b| i64::from(*b)).collect(),
    };
    for &axis in axes {
        let (n, stride, starts) = rows(&sizes, axis);
        let mut out = Vec::new();
        for start in starts {
            let mut row = (0..n).map(|k| values[start + k * stride]);
            let found = match function {
                ReduceFn::Max => row.max(),
                ReduceFn::Min => row.min(),
                ReduceFn::Sum => row.try_fold(0_i64, i64::checked_add),
                ReduceFn::Prod => row.try_fold(1_i64, i64::checked_mul),
                ReduceFn::Mean => row.try_fold(0_i64, i64::checked_add).and_then(|s| s.checked_div(n as i64)),
                ReduceFn::L2 => None,
            };
            out.push(found.ok_or_else(|| c.fault(format!("{x:?} has no integer {function:?}")))?);
        }
        values = out;
        sizes[axis] = 1;
    }
    match x.kind() {
        Kind::Int => Tensor::from_i64(values, shape, x.device()),
        _ => Tensor::from_bool(values.iter().map(|v| *v != 0).collect(), shape, x.device()),
    }
}

/// Rows along an axis, each with the index of its first element and the stride between elements.
fn rows(shape: &[usize], axis: usize) -> (usize, usize, impl Iterator<Item = usize> + use<>) {
    let inner: usize = shape[axis + 1..].iter().product();
    let n = shape[axis];
    let outer: usize = shape[..axis].iter().product();
    (n, inner, (0..outer).flat_map(move |o| (0..inner).map(move |i| o * n * inner + i)))
}

pub(super) fn arg_max(c: &Call<'_>, axis: usize, keep: bool) -> Result<Tensor> {
    let x = c.input(0)?;
    let values = x.off_tape()?.to_f32()?;
    let (n, stride, starts) = rows(x.shape(), axis);
    // The first of equal elements, as the references do.
    let best = |start: usize| {
        (0..n).fold((0_usize, f32::NEG_INFINITY), |(at, max), k| {
            let v = values[start + k * stride];
            if v > max { (k, v) } else { (at, max) }
        })
    };
    let out: Vec<i64> = starts.map(|s| best(s).0 as i64).collect();
    let mut shape = x.shape().to_vec();
    if keep {
        shape[axis] = 1;
    } else {
        shape.remove(axis);
    }
    Tensor::from_i64(out, &shape, x.device())
}

pub(super) fn top_k(c: &Call<'_>, k: usize) -> Result<Vec<Tensor>> {
    let x = c.input(0)?;
    let n = x.shape().last().copied().unwrap_or(0);
    if k > n || k == 0 {
        return Err(c.fault(format!("asks for {k} of {n} elements")));
    }
    let values = x.off_tape()?.to_f32()?;
    let (mut top, mut index) = (Vec::new(), Vec::new());
    for row in values.chunks_exact(n) {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
        top.extend(order[..k].iter().map(|i| row[*i]));
        index.extend(order[..k].iter().map(|i| *i as i64));
    }
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = k;
    }
    let indices = Tensor::from_i64(index, &shape, x.device())?;
    let values = if x.is_taped() {
        // On a tape the values are picked by index, so that their gradient finds the way back.
        let rows = values.len() / n;
        let flat: Vec<i64> =
            indices.as_i64()?.iter().enumerate().map(|(p, i)| (p / k * n) as i64 + i).collect();
        let picks = Tensor::from_i64(flat, &[rows * k], x.device())?;
        let d = B::float_select(x.reshape(&[rows * n])?.as_float()?, 0, super::layout::device_ints(&picks)?);
        Tensor::float(d, x.device()).reshape(&shape)?
    } else {
        Tensor::from_f32(top, &shape, x.device())?
    };
    Ok(vec![values, indices])
}

pub(super) fn cum_sum(c: &Call<'_>, axis: usize) -> Result<Tensor> {
    let x = c.input(0)?;
    if x.kind() == Kind::Float {
        return Ok(Tensor::float(B::float_cumsum(x.as_float()?, axis), x.device()));
    }
    let mut out = x.as_i64()?.to_vec();
    let (n, stride, starts) = rows(x.shape(), axis);
    for start in starts {
        for k in 1..n {
            let (at, before) = (start + k * stride, start + (k - 1) * stride);
            let sum = out[at].checked_add(out[before]);
            out[at] = sum.ok_or_else(|| c.fault("overflows 64 bits"))?;
        }
    }
    Tensor::from_i64(out, x.shape(), x.device())
}
