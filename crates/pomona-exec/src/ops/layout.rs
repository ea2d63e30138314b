//! Operators that move elements.

use burn::tensor::{Shape, Slice, TensorData};
use pomona_graph::{Dim, PadMode, Slot, SplitMap, ValueType};

use super::Call;
use crate::burn_types::{B, D, FloatTensorOps, IntTensorOps};
use crate::error::Result;
use crate::tensor::{Data, Kind, Tensor};

/// Shape that two shapes broadcast to, aligned at the end.
pub(super) fn broadcast_to(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// The floats with axes of size 1 in front, up to a rank.
pub(super) fn align(t: &Tensor, rank: usize) -> Result<D> {
    let mut shape = vec![1; rank - t.shape().len().min(rank)];
    shape.extend(t.shape());
    t.reshape(&shape)?.as_float()
}

/// Integers as indices on the device.
pub(super) fn device_ints(t: &Tensor) -> Result<D> {
    Ok(B::int_from_data(TensorData::new(t.as_i64()?.to_vec(), t.shape().to_vec()), t.device().dispatch()))
}

pub(super) fn split(c: &Call<'_>, axis: usize, map: &SplitMap) -> Result<Vec<Tensor>> {
    let x = c.input(0)?;
    let (groups, sizes) = match map {
        SplitMap::Parts { sizes } => (1, c.sizes(sizes)?),
        SplitMap::Interleaved { groups, sizes } => (*groups, c.sizes(sizes)?),
    };
    if groups == 1 {
        let mut at = 0;
        let part = |size: usize| {
            at += size;
            x.slice(axis, at - size..at)
        };
        return sizes.into_iter().map(part).collect();
    }
    let mut lead = x.shape().to_vec();
    let run: usize = sizes.iter().sum();
    lead.splice(axis..=axis, [groups, run]);
    let grouped = x.reshape(&lead)?;
    let mut at = 0;
    let mut out = Vec::with_capacity(sizes.len());
    for size in sizes {
        let mut shape = x.shape().to_vec();
        shape[axis] = groups * size;
        out.push(grouped.slice(axis + 1, at..at + size)?.reshape(&shape)?);
        at += size;
    }
    Ok(out)
}

pub(super) fn slice(c: &Call<'_>, axis: usize, start: &Dim, end: &Dim, step: usize) -> Result<Tensor> {
    let x = c.input(0)?;
    let (start, end) = (c.size(start)?, c.size(end)?);
    let cut = x.slice(axis, start..end)?;
    if step == 1 {
        return Ok(cut);
    }
    let rows: Vec<i64> = (0..cut.shape()[axis]).step_by(step).map(|i| i as i64).collect();
    let index = Tensor::from_i64(rows.clone(), &[rows.len()], x.device())?;
    pick(&cut, axis, &index)
}

pub(super) fn expand(c: &Call<'_>, shape: &[Dim]) -> Result<Tensor> {
    let x = c.input(0)?;
    let target = c.sizes(shape)?;
    if x.kind() == Kind::Float {
        let d = B::float_expand(align(x, target.len())?, Shape::from(target));
        return Ok(Tensor::float(d, x.device()));
    }
    let mut out = x.reshape(&[vec![1; target.len() - x.shape().len()], x.shape().to_vec()].concat())?;
    for (axis, size) in target.iter().enumerate() {
        if out.shape()[axis] == 1 && *size != 1 {
            out = Tensor::concat(&vec![out; *size], axis)?;
        }
    }
    Ok(out)
}

/// Slices of an axis by a vector of integers.
fn pick(x: &Tensor, axis: usize, index: &Tensor) -> Result<Tensor> {
    match &x.data {
        Data::Float(d) => {
            Ok(Tensor::float(B::float_select(d.clone(), axis, device_ints(index)?), x.device()))
        }
        _ => {
            let parts = index.as_i64()?.iter().map(|i| x.slice(axis, *i as usize..*i as usize + 1));
            Tensor::concat(&parts.collect::<Result<Vec<_>>>()?, axis)
        }
    }
}

pub(super) fn gather(c: &Call<'_>, axis: usize) -> Result<Tensor> {
    let (x, index) = (c.input(0)?, c.input(1)?);
    let size = x.shape()[axis] as i64;
    let mut rows = Vec::with_capacity(index.elements());
    for &i in index.as_i64()? {
        let from_front = if i < 0 { i + size } else { i };
        if !(0..size).contains(&from_front) {
            return Err(c.fault(format!("index {i} is outside axis {axis} of {size}")));
        }
        rows.push(from_front);
    }
    let flat = Tensor::from_i64(rows.clone(), &[rows.len()], x.device())?;
    let mut shape = x.shape()[..axis].to_vec();
    shape.extend(index.shape());
    shape.extend(&x.shape()[axis + 1..]);
    pick(x, axis, &flat)?.reshape(&shape)
}

pub(super) fn pad(c: &Call<'_>, amounts: &[[usize; 2]], mode: PadMode) -> Result<Tensor> {
    let mut x = c.input(0)?.clone();
    for (axis, &[before, after]) in amounts.iter().enumerate() {
        if before == 0 && after == 0 {
            continue;
        }
        let n = x.shape()[axis];
        let border = |x: &Tensor, count: usize, front: bool| -> Result<Option<Tensor>> {
            if count == 0 {
                return Ok(None);
            }
            let rows: Vec<i64> = match mode {
                PadMode::Constant { value } => {
                    let mut shape = x.shape().to_vec();
                    shape[axis] = count;
                    let t = match x.kind() {
                        Kind::Float => Tensor::full(value as f32, &shape, x.device())?,
                        Kind::Int => {
                            Tensor::from_i64(vec![value as i64; shape.iter().product()], &shape, x.device())?
                        }
                        Kind::Bool => {
                            let border = vec![value != 0.0; shape.iter().product()];
                            Tensor::from_bool(border, &shape, x.device())?
                        }
                    };
                    return Ok(Some(t));
                }
                PadMode::Edge => vec![if front { 0 } else { n as i64 - 1 }; count],
                PadMode::Reflect if count >= n => {
                    return Err(c.fault(format!("mirrors {count} elements of an axis that has {n}")));
                }
                PadMode::Reflect if front => (1..=count as i64).rev().collect(),
                PadMode::Reflect => (1..=count as i64).map(|i| n as i64 - 1 - i).collect(),
            };
            let index = Tensor::from_i64(rows, &[count], x.device())?;
            Ok(Some(pick(x, axis, &index)?))
        };
        let mut parts = Vec::with_capacity(3);
        parts.extend(border(&x, before, true)?);
        parts.push(x.clone());
        parts.extend(border(&x, after, false)?);
        x = Tensor::concat(&parts, axis)?;
    }
    Ok(x)
}

/// Floats with a border of one number.
pub(super) fn bordered(x: &Tensor, amounts: &[[usize; 2]], fill: f32) -> Result<Tensor> {
    let mut x = x.clone();
    for (axis, [before, after]) in amounts.iter().enumerate() {
        let border = |count: &usize| {
            let mut shape = x.shape().to_vec();
            shape[axis] = *count;
            Tensor::full(fill, &shape, x.device())
        };
        if before + after > 0 {
            x = Tensor::concat(&[border(before)?, x.clone(), border(after)?], axis)?;
        }
    }
    Ok(x)
}

pub(super) fn constant(c: &Call<'_>) -> Result<Tensor> {
    let t = c.need(Slot::Weight)?;
    let declared = c.node.outputs.first().map(|v| c.graph.value(*v).ty);
    match (t.kind(), declared) {
        (Kind::Float, Some(ValueType::Int)) => {
            Tensor::from_i64(t.with_f32(|v| v.iter().map(|f| *f as i64).collect())?, t.shape(), t.device())
        }
        (Kind::Float, Some(ValueType::Bool)) => {
            Tensor::from_bool(t.with_f32(|v| v.iter().map(|f| *f != 0.0).collect())?, t.shape(), t.device())
        }
        _ => Ok(t),
    }
}

pub(super) fn range(c: &Call<'_>, end: &Dim) -> Result<Tensor> {
    let n = c.size(end)?;
    let device = c.inputs.first().map_or_else(crate::device::Device::cpu, |t| t.device().clone());
    Tensor::from_i64((0..n as i64).collect(), &[n], &device)
}

/// Every `step`-th element of the last axes from an offset: `rows[axis] = (start, count, step)`.
pub(super) fn strided(d: D, rank: usize, axis: usize, start: usize, end: usize, step: usize) -> D {
    let mut slices = vec![Slice::full(); rank];
    slices[axis] = Slice::new(start as isize, Some(end as isize), step as isize);
    B::float_slice(d, &slices)
}
