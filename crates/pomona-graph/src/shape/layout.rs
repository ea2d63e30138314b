//! Operators that move elements, and reductions.

use super::{Context, Inferred, broadcast, compatible};
use crate::dim::{Dim, show_shape};
use crate::op::{SplitMap, ValueType};
use crate::tensor::Slot;

type Check<T> = Result<T, String>;

pub(super) fn concat(c: &Context<'_>, axis: usize) -> Inferred {
    c.axis(0, axis)?;
    let mut shape = c.shape(0).clone();
    for (i, v) in c.inputs.iter().enumerate().skip(1) {
        let fits = v.shape.len() == shape.len()
            && v.shape.iter().zip(&shape).enumerate().all(|(k, (a, b))| k == axis || compatible(a, b));
        if !fits {
            return Err(format!(
                "input {i} has shape {} and input 0 {}: all axes but {axis} must agree",
                show_shape(&v.shape),
                show_shape(c.shape(0))
            ));
        }
        shape[axis] = sum(&shape[axis], &v.shape[axis])?;
    }
    c.one(shape, c.inputs[0].ty)
}

fn sum(a: &Dim, b: &Dim) -> Check<Dim> {
    a.checked_add(b).map_err(|e| e.to_string())
}

pub(super) fn split(c: &Context<'_>, axis: usize, map: &SplitMap) -> Inferred {
    let whole = c.axis(0, axis)?;
    let (groups, sizes) = match map {
        SplitMap::Parts { sizes } => (1, sizes),
        SplitMap::Interleaved { groups, sizes } => (*groups, sizes),
    };
    let mut total = Dim::from(0);
    let mut out = Vec::with_capacity(sizes.len());
    for size in sizes {
        let part = size.checked_mul(&groups.into()).map_err(|e| e.to_string())?;
        total = sum(&total, &part)?;
        let mut value = c.inputs[0].clone();
        value.shape[axis] = part;
        out.push(value);
    }
    if !compatible(&total, whole) {
        return Err(format!("parts add up to {total} and axis {axis} has {whole}"));
    }
    Ok(out)
}

pub(super) fn slice(c: &Context<'_>, axis: usize, start: &Dim, end: &Dim, step: usize) -> Inferred {
    let size = c.axis(0, axis)?;
    if step == 0 {
        return Err("step 0; at least 1 was expected".to_owned());
    }
    if let (Some(s), Some(e), Some(n)) = (start.as_int(), end.as_int(), size.as_int())
        && (s < 0 || s > e || e > n)
    {
        return Err(format!("range {s}..{e} does not lie in axis {axis} of {n}"));
    }
    let length = end.clone() - start + Dim::from(step) - 1;
    let mut value = c.inputs[0].clone();
    value.shape[axis] = length.floor_div(&step.into()).map_err(|e| e.to_string())?;
    Ok(vec![value])
}

fn elements(shape: &[Dim]) -> Check<Dim> {
    shape.iter().try_fold(Dim::from(1), |n, d| n.checked_mul(d)).map_err(|e| e.to_string())
}

pub(super) fn reshape(c: &Context<'_>, shape: &[Dim]) -> Inferred {
    let (before, after) = (elements(c.shape(0))?, elements(shape)?);
    if !compatible(&before, &after) {
        return Err(format!(
            "{} has {before} elements and {} has {after}",
            show_shape(c.shape(0)),
            show_shape(shape)
        ));
    }
    c.one(shape.to_vec(), c.inputs[0].ty)
}

pub(super) fn transpose(c: &Context<'_>, axes: &[usize]) -> Inferred {
    let shape = c.shape(0);
    let mut seen = axes.to_vec();
    seen.sort_unstable();
    if seen != (0..shape.len()).collect::<Vec<_>>() {
        return Err(format!("order {axes:?} is not a permutation of the axes of {}", show_shape(shape)));
    }
    c.one(axes.iter().map(|&a| shape[a].clone()).collect(), c.inputs[0].ty)
}

pub(super) fn expand(c: &Context<'_>, shape: &[Dim]) -> Inferred {
    let out = broadcast(c.shape(0), shape)?;
    if out.len() != shape.len() {
        return Err(format!("{} does not expand to {}", show_shape(c.shape(0)), show_shape(shape)));
    }
    c.one(shape.to_vec(), c.inputs[0].ty)
}

pub(super) fn gather(c: &Context<'_>, axis: usize) -> Inferred {
    c.axis(0, axis)?;
    c.expect(1, ValueType::Int)?;
    let data = c.shape(0);
    let shape = data[..axis].iter().chain(c.shape(1)).chain(&data[axis + 1..]).cloned().collect();
    c.one(shape, c.inputs[0].ty)
}

pub(super) fn pad(c: &Context<'_>, amounts: &[[usize; 2]]) -> Inferred {
    let shape = c.shape(0);
    if amounts.len() != shape.len() {
        return Err(format!("has {} amounts for shape {}", amounts.len(), show_shape(shape)));
    }
    let mut out = Vec::with_capacity(shape.len());
    for (d, [before, after]) in shape.iter().zip(amounts) {
        out.push(sum(&sum(d, &(*before).into())?, &(*after).into())?);
    }
    c.one(out, c.inputs[0].ty)
}

pub(super) fn reduce(c: &Context<'_>, axes: &[usize], keep: bool) -> Inferred {
    for (i, &axis) in axes.iter().enumerate() {
        c.axis(0, axis)?;
        if axes[..i].contains(&axis) {
            return Err(format!("reduces axis {axis} twice"));
        }
    }
    let kept = c.shape(0).iter().enumerate().filter_map(|(i, d)| match (axes.contains(&i), keep) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(1.into()),
        (true, false) => None,
    });
    c.one(kept.collect(), c.inputs[0].ty)
}

pub(super) fn arg_max(c: &Context<'_>, axis: usize, keep: bool) -> Inferred {
    let mut out = reduce(c, &[axis], keep)?;
    out[0].ty = ValueType::Int;
    Ok(out)
}

pub(super) fn top_k(c: &Context<'_>, k: usize) -> Inferred {
    if c.last(0)?.as_int().is_some_and(|n| n < k as i64) || k == 0 {
        return Err(format!("asks for {k} of {} elements", c.last(0)?));
    }
    let mut values = c.inputs[0].clone();
    if let Some(last) = values.shape.last_mut() {
        *last = k.into();
    }
    let mut indices = values.clone();
    indices.ty = ValueType::Int;
    Ok(vec![values, indices])
}

pub(super) fn constant(c: &Context<'_>) -> Inferred {
    let tensor = c.weight(Slot::Weight)?;
    let integer = tensor.dtype.starts_with('i') || tensor.dtype.starts_with('u');
    let ty = match tensor.dtype.as_str() {
        "bool" => ValueType::Bool,
        // `iq4_xs` and its relatives are quantised floats.
        d if integer && !d.starts_with("iq") => ValueType::Int,
        _ => ValueType::Float,
    };
    c.one(tensor.shape.iter().map(|d| Dim::from(*d)).collect(), ty)
}
