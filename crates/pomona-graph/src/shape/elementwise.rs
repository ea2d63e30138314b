//! Element-wise operators, broadcasting and products of values.

use super::{Context, Inferred, compatible};
use crate::dim::{Dim, Shape, show_shape};
use crate::op::{BinaryFn, ValueType};

pub(super) fn same(c: &Context<'_>) -> Inferred {
    Ok(vec![c.inputs[0].clone()])
}

/// NumPy's rule: shapes aligned at the end, sizes equal or one of them 1. Of two unequal dimensions of which one is
/// symbolic, the other is taken, and `bind` checks.
pub(crate) fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Shape, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map(|k| s[k].clone());
    let mut out = Vec::with_capacity(rank);
    for i in 0..rank {
        out.push(match (at(a, i), at(b, i)) {
            (Some(x), Some(y)) if x == y => x,
            (Some(x), Some(y)) => match (x.as_int(), y.as_int()) {
                (Some(1), _) => y,
                (_, Some(1)) => x,
                (Some(_), Some(_)) => {
                    return Err(format!("shapes {} and {} do not broadcast", show_shape(a), show_shape(b)));
                }
                (Some(_), None) => x,
                _ => y,
            },
            (Some(x), None) | (None, Some(x)) => x,
            (None, None) => 1.into(),
        });
    }
    Ok(out)
}

pub(super) fn binary(c: &Context<'_>, function: BinaryFn) -> Inferred {
    let shape = broadcast(c.shape(0), c.shape(1))?;
    let ty = if function.is_predicate() {
        ValueType::Bool
    } else if c.inputs.iter().any(|v| v.ty == ValueType::Float) {
        ValueType::Float
    } else {
        c.inputs[0].ty
    };
    c.one(shape, ty)
}

pub(super) fn scalar(c: &Context<'_>, function: BinaryFn) -> Inferred {
    let ty = if function.is_predicate() { ValueType::Bool } else { c.inputs[0].ty };
    c.one(c.shape(0).clone(), ty)
}

pub(super) fn add(c: &Context<'_>) -> Inferred {
    let first = c.inputs[0];
    for (i, v) in c.inputs.iter().enumerate().skip(1) {
        let equal = v.shape.len() == first.shape.len()
            && v.shape.iter().zip(&first.shape).all(|(a, b)| compatible(a, b));
        if !equal {
            return Err(format!(
                "input {i} has shape {} and input 0 {}: operands of Add have one shape",
                show_shape(&v.shape),
                show_shape(&first.shape)
            ));
        }
    }
    same(c)
}

pub(super) fn choose(c: &Context<'_>) -> Inferred {
    c.expect(0, ValueType::Bool)?;
    let shape = broadcast(&broadcast(c.shape(0), c.shape(1))?, c.shape(2))?;
    c.one(shape, c.inputs[1].ty)
}

pub(super) fn matmul(c: &Context<'_>, transpose_b: bool) -> Inferred {
    let (a, b) = (c.shape(0), c.shape(1));
    if a.len() < 2 || b.len() < 2 {
        return Err(format!(
            "inputs have shapes {} and {}; two axes or more were expected",
            show_shape(a),
            show_shape(b)
        ));
    }
    let (ab, am) = a.split_at(a.len() - 2);
    let (bb, bm) = b.split_at(b.len() - 2);
    let (inner, columns) = if transpose_b { (&bm[1], &bm[0]) } else { (&bm[0], &bm[1]) };
    if !compatible(&am[1], inner) {
        return Err(format!("inner sizes differ: {} and {}", show_shape(a), show_shape(b)));
    }
    let mut shape = broadcast(ab, bb)?;
    shape.extend([am[0].clone(), columns.clone()]);
    c.one(shape, ValueType::Float)
}

pub(super) fn sinusoid(c: &Context<'_>, width: usize) -> Inferred {
    if width < 2 {
        return Err(format!("width {width}; at least 2 was expected"));
    }
    let mut shape = c.shape(0).clone();
    shape.push(width.into());
    c.one(shape, ValueType::Float)
}
