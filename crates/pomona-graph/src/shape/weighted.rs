//! Linear layers, embeddings, norms, attention and recurrent cells.

use super::{Context, Inferred, agree, compatible};
use crate::dim::{Dim, show_shape};
use crate::op::{AttentionAttrs, Direction, RecurrentCell, RopeAttrs, ValueType};
use crate::tensor::Slot;

fn matrix<'a>(c: &Context<'a>, slot: Slot) -> Result<(&'a str, usize, usize), String> {
    let t = c.weight(slot)?;
    match t.shape.as_slice() {
        [rows, columns] => Ok((&t.name, *rows, *columns)),
        other => Err(format!("tensor `{}` has shape {other:?}; two axes were expected", t.name)),
    }
}

pub(super) fn linear(c: &Context<'_>) -> Inferred {
    let (name, out, input) = matrix(c, Slot::Weight)?;
    let shape = c.shape(0);
    agree(c.last(0)?, input, || {
        format!("last axis of {} against `{name}` [{out}, {input}]", show_shape(shape))
    })?;
    c.check_weight(Slot::Bias, &[out])?;
    let mut shape = shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = out.into();
    }
    c.one(shape, ValueType::Float)
}

pub(super) fn embedding(c: &Context<'_>) -> Inferred {
    c.expect(0, ValueType::Int)?;
    let (_, _, width) = matrix(c, Slot::Weight)?;
    let mut shape = c.shape(0).clone();
    shape.push(width.into());
    c.one(shape, ValueType::Float)
}

pub(super) fn layer_norm(c: &Context<'_>, axes: usize) -> Inferred {
    let shape = c.shape(0);
    if axes == 0 || axes > shape.len() {
        return Err(format!("normalises {axes} axes of {}", show_shape(shape)));
    }
    for slot in [Slot::Weight, Slot::Bias] {
        let Some(t) = c.weights.get(&slot) else { continue };
        let over = &shape[shape.len() - axes..];
        let fits =
            t.shape.len() == axes && t.shape.iter().zip(over).all(|(w, d)| compatible(&(*w).into(), d));
        if !fits {
            return Err(format!(
                "tensor `{}` has shape {:?}; {} was expected",
                t.name,
                t.shape,
                show_shape(over)
            ));
        }
    }
    c.one(shape.clone(), ValueType::Float)
}

/// GroupNorm, BatchNorm and InstanceNorm: every tensor is `[channels]`.
pub(super) fn channel_norm(c: &Context<'_>, groups: usize) -> Inferred {
    let channels = c.axis(0, 1)?;
    if let Some(n) = channels.as_int()
        && i64::try_from(groups).ok().and_then(|g| n.checked_rem(g)) != Some(0)
    {
        return Err(format!("{n} channels do not form {groups} groups"));
    }
    for t in c.weights.values() {
        let [size] = t.shape.as_slice() else {
            return Err(format!("tensor `{}` has shape {:?}; one axis was expected", t.name, t.shape));
        };
        agree(channels, *size, || format!("channels against tensor `{}`", t.name))?;
    }
    c.one(c.shape(0).clone(), ValueType::Float)
}

pub(super) fn prelu(c: &Context<'_>) -> Inferred {
    let t = c.weight(Slot::Weight)?;
    match t.shape.as_slice() {
        [1] => {}
        [n] => agree(c.axis(0, 1)?, *n, || format!("channels against tensor `{}`", t.name))?,
        other => return Err(format!("tensor `{}` has shape {other:?}; one axis was expected", t.name)),
    }
    c.one(c.shape(0).clone(), ValueType::Float)
}

fn per_head(d: &Dim, heads: usize, what: &str) -> Result<Option<i64>, String> {
    match d.as_int() {
        Some(n) if heads == 0 || n % heads as i64 != 0 => {
            Err(format!("{what} of {n} does not hold {heads} equal heads"))
        }
        Some(n) => Ok(Some(n / heads as i64)),
        None => Ok(None),
    }
}

pub(super) fn attention(c: &Context<'_>, a: &AttentionAttrs) -> Inferred {
    if a.heads == 0 || a.kv_heads == 0 || !a.heads.is_multiple_of(a.kv_heads) {
        return Err(format!(
            "{} heads over {} key/value heads: a multiple was expected",
            a.heads, a.kv_heads
        ));
    }
    for i in 0..3 {
        if c.shape(i).len() != 3 {
            return Err(format!(
                "input {i} has shape {}; [batch, tokens, width] was expected",
                show_shape(c.shape(i))
            ));
        }
    }
    let dk = per_head(&c.shape(0)[2], a.heads, "the query width")?;
    let dk2 = per_head(&c.shape(1)[2], a.kv_heads, "the key width")?;
    if let (Some(q), Some(k)) = (dk, dk2)
        && q != k
    {
        return Err(format!("a query head has {q} channels and a key head {k}"));
    }
    let dv = c.shape(2)[2].exact_div(&a.kv_heads.into()).map_err(|e| format!("value width: {e}"))?;
    if !compatible(&c.shape(1)[1], &c.shape(2)[1]) {
        return Err(format!(
            "keys {} and values {} differ in length",
            show_shape(c.shape(1)),
            show_shape(c.shape(2))
        ));
    }
    let q = c.shape(0);
    c.one(vec![q[0].clone(), q[1].clone(), dv * a.heads], ValueType::Float)
}

pub(super) fn rope(c: &Context<'_>, a: &RopeAttrs) -> Inferred {
    c.expect(1, ValueType::Int)?;
    if c.shape(0).len() != 3 {
        return Err(format!(
            "input has shape {}; [batch, tokens, width] was expected",
            show_shape(c.shape(0))
        ));
    }
    let width = per_head(&c.shape(0)[2], a.heads, "the width")?;
    if !a.rotary.is_multiple_of(2)
        || a.rotary == 0
        || width.is_some_and(|w| usize::try_from(w).is_ok_and(|w| w < a.rotary))
    {
        return Err(format!(
            "turns {} channels of heads that have {width:?}: an even number was expected",
            a.rotary
        ));
    }
    c.one(c.shape(0).clone(), ValueType::Float)
}

pub(super) fn recurrent(
    c: &Context<'_>,
    cell: RecurrentCell,
    hidden: usize,
    direction: Direction,
) -> Inferred {
    let gates = if cell == RecurrentCell::Lstm { 4 } else { 3 };
    let x = c.shape(0);
    let [batch, steps, input] = x.as_slice() else {
        return Err(format!("input has shape {}; [batch, steps, width] was expected", show_shape(x)));
    };
    let rows = hidden.checked_mul(gates).ok_or("the hidden width overflows")?;
    let mut slots = vec![(Slot::WeightIh, Slot::WeightHh, Slot::BiasIh, Slot::BiasHh)];
    if direction == Direction::Both {
        slots.push((Slot::WeightIhReverse, Slot::WeightHhReverse, Slot::BiasIhReverse, Slot::BiasHhReverse));
    }
    for (ih, hh, bias_ih, bias_hh) in &slots {
        let (name, out, width) = matrix(c, *ih)?;
        if out != rows {
            return Err(format!("tensor `{name}` has {out} rows; {gates} gates of {hidden} make {rows}"));
        }
        agree(input, width, || format!("input width against tensor `{name}`"))?;
        c.weight(*hh)?;
        c.check_weight(*hh, &[rows, hidden])?;
        c.check_weight(*bias_ih, &[rows])?;
        c.check_weight(*bias_hh, &[rows])?;
    }
    let width = hidden * slots.len();
    let state = vec![batch.clone(), width.into()];
    for i in 1..c.inputs.len() {
        let fits = c.shape(i).len() == 2 && compatible(&c.shape(i)[1], &width.into());
        if !fits {
            return Err(format!(
                "state {i} has shape {}; {} was expected",
                show_shape(c.shape(i)),
                show_shape(&state)
            ));
        }
    }
    let value = |shape| crate::graph::Value { shape, ty: ValueType::Float };
    let mut out = vec![value(vec![batch.clone(), steps.clone(), width.into()]), value(state.clone())];
    if cell == RecurrentCell::Lstm {
        out.push(value(state));
    }
    Ok(out)
}
