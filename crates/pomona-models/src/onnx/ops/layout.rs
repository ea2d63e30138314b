//! Operators that move elements, and those that pick by index.

use pomona_graph::{Dim, Op, PadMode, Role, Slot, SplitMap, ValueId, ValueType};

use super::super::args;
use super::super::context::{Call, Context, Entry, Lower, axis, unsupported};
use super::super::host::{Data, Host, LIMIT, number};

/// Most elements of a triangular mask.
const MAX_TRIANGLE: i64 = 1 << 24;

/// The value of a layout operator; none where the operator is no such.
pub(super) fn lower(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Option<ValueId>> {
    let path = c.path.as_str();
    Ok(Some(match c.node.op.as_str() {
        "Reshape" => {
            let Some(target) = ctx
                .host(c, 1)
                .or_else(|| c.ints("shape").map(|v| Host::list(v.into_iter().map(Dim::from).collect())))
            else {
                return unsupported("takes a shape that is computed from data");
            };
            let x = ctx.value(c, 0)?;
            let shape = args::reshape_target(c, &ctx.shape(x), target.dims()?)?;
            ctx.add(path, Op::Reshape { shape }, &[x], &[])?
        }
        "Flatten" => {
            let x = ctx.value(c, 0)?;
            let shape = ctx.shape(x);
            let at = c.int_or("axis", 1);
            let at = if at == shape.len() as i64 { shape.len() } else { axis(at, shape.len())? };
            let product = |dims: &[Dim]| dims.iter().try_fold(Dim::from(1), |n, d| n.checked_mul(d));
            let shape = vec![product(&shape[..at])?, product(&shape[at..])?];
            ctx.add(path, Op::Reshape { shape }, &[x], &[])?
        }
        "Squeeze" | "Unsqueeze" => {
            let x = ctx.value(c, 0)?;
            let shape = ctx.shape(x);
            let shape = if c.node.op == "Squeeze" {
                args::squeezed(ctx, c, &shape)?
            } else {
                args::unsqueezed(ctx, c, &shape)?
            };
            ctx.add(path, Op::Reshape { shape }, &[x], &[])?
        }
        "Transpose" => {
            let x = ctx.value(c, 0)?;
            let axes = args::permutation(c, ctx.shape(x).len())?;
            ctx.add(path, Op::Transpose { axes }, &[x], &[])?
        }
        "Concat" => concat(ctx, c)?,
        "Slice" => slice(ctx, c)?,
        "Gather" => gather(ctx, c)?,
        "GatherElements" => gather_elements(ctx, c)?,
        "Expand" => {
            let Some(target) = ctx.host(c, 1) else {
                return unsupported("takes a shape that is computed from data");
            };
            let x = ctx.value(c, 0)?;
            let shape = stretched(&ctx.shape(x), target.dims()?);
            if shape == ctx.shape(x) {
                return Ok(Some(x));
            }
            ctx.add(path, Op::Expand { shape }, &[x], &[])?
        }
        "ConstantOfShape" => {
            let Some(target) = ctx.host(c, 0) else {
                return unsupported("takes a shape that is computed from data");
            };
            let fill = args::fill_value(ctx, c)?;
            let one = Host { shape: vec![1; target.len()], ..fill };
            let x = ctx.host_value(&format!("{path}.value"), &one)?;
            ctx.add(path, Op::Expand { shape: target.dims()?.to_vec() }, &[x], &[])?
        }
        "Range" => range(ctx, c)?,
        "Tile" => tile(ctx, c)?,
        "Pad" => pad(ctx, c)?,
        "Trilu" => trilu(ctx, c)?,
        "CumSum" => {
            if c.int_or("exclusive", 0) != 0 || c.int_or("reverse", 0) != 0 {
                return unsupported("sums backwards or without the element itself");
            }
            let x = ctx.value(c, 0)?;
            let Some(at) = ctx.host(c, 1).and_then(|h| h.scalar()) else {
                return unsupported("takes an axis that is computed from data");
            };
            let axis = axis(at as i64, ctx.shape(x).len())?;
            ctx.add(path, Op::CumSum { axis }, &[x], &[])?
        }
        "ArgMax" | "ArgMin" => {
            if c.int_or("select_last_index", 0) != 0 {
                return unsupported("takes the last of equal elements");
            }
            let mut x = ctx.value(c, 0)?;
            if c.node.op == "ArgMin" {
                x = ctx.part(
                    path,
                    "negative",
                    Op::Activation { function: pomona_graph::Activation::Neg },
                    &[x],
                )?;
            }
            let axis = axis(c.int_or("axis", 0), ctx.shape(x).len())?;
            ctx.add(path, Op::ArgMax { axis, keep: c.int_or("keepdims", 1) != 0 }, &[x], &[])?
        }
        _ => return Ok(None),
    }))
}

/// Both shapes, broadcast together.
fn stretched(from: &[Dim], to: &[Dim]) -> Vec<Dim> {
    let rank = from.len().max(to.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or_else(|| 1.into(), |k| s[k].clone());
    (0..rank)
        .map(|i| match (at(from, i), at(to, i)) {
            (a, b) if b.as_int() == Some(1) => a,
            (_, b) => b,
        })
        .collect()
}

fn concat(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let mut parts = Vec::new();
    for i in 0..c.node.inputs.len() {
        let shape = ctx.shape_of(&c.node.inputs[i])?;
        // An empty part adds nothing.
        if shape.iter().any(|d| d.as_int() == Some(0)) && c.node.inputs.len() > 1 {
            continue;
        }
        parts.push(ctx.value(c, i)?);
    }
    let Some(first) = parts.first() else { return unsupported("joins nothing") };
    let axis = axis(c.int_or("axis", 1), ctx.shape(*first).len())?;
    ctx.add(&c.path, Op::Concat { axis }, &parts, &[])
}

/// An index along an axis, made absolute and kept inside it.
fn bounded(v: &Dim, size: &Dim) -> Lower<Dim> {
    let absolute = match v.as_int() {
        Some(i) if i < 0 => match size.as_int() {
            Some(n) => return Ok((n.saturating_add(i)).clamp(0, n).into()),
            None if i == i64::MIN || i < -(1 << 30) => 0.into(),
            None => size.clone() + i,
        },
        _ => v.clone(),
    };
    Ok(match (absolute.as_int(), size.as_int()) {
        (Some(i), Some(n)) => i.clamp(0, n).into(),
        // "To the end" is written as a number no axis reaches.
        (Some(i), None) if i >= i64::from(i32::MAX) => size.clone(),
        _ => absolute,
    })
}

fn slice(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let mut x = ctx.value(c, 0)?;
    let rank = ctx.shape(x).len();
    let all = args::slices(ctx, c, rank)?;
    let last = all.len();
    for (k, s) in all.into_iter().enumerate() {
        let size = ctx.shape(x)[s.axis].clone();
        let path = if k + 1 == last { c.path.clone() } else { ctx.names.unique(&format!("{}.{k}", c.path)) };
        if s.step < 0 {
            let n = number(&size)?;
            let (start, end) = (number(&s.start)?, number(&s.end)?);
            let start = if start < 0 { start.saturating_add(n) } else { start }.min(n - 1);
            let end = if end < -n {
                -1
            } else if end < 0 {
                end + n
            } else {
                end
            };
            let mut index = Vec::new();
            let mut i = start;
            while i > end && i >= 0 {
                if index.len() > LIMIT {
                    return unsupported("turns round an axis that is too long");
                }
                index.push(Dim::from(i));
                i = i.saturating_add(s.step);
            }
            let index = ctx.host_value(&format!("{path}.index"), &Host::list(index))?;
            x = ctx.add(&path, Op::Gather { axis: s.axis }, &[x, index], &[])?;
            continue;
        }
        let (start, end) = (bounded(&s.start, &size)?, bounded(&s.end, &size)?);
        let end = match (start.as_int(), end.as_int()) {
            (Some(a), Some(b)) if b < a => a.into(),
            _ => end,
        };
        if start.as_int() == Some(0) && end == size && s.step == 1 && k + 1 != last {
            continue;
        }
        let op = Op::Slice { axis: s.axis, start, end, step: s.step as usize };
        x = ctx.add(&path, op, &[x], &[])?;
    }
    Ok(x)
}

fn gather(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let data = ctx.shape_of(&c.node.inputs[0])?;
    let at = axis(c.int_or("axis", 0), data.len())?;
    let index = ctx.host(c, 1);
    if let Some(h) = &index {
        let n = data[at].clone();
        let wrap = |i: &Dim| if i.as_int().is_some_and(|v| v < 0) { n.clone() + i } else { i.clone() };
        let fixed = Host::ints(h.shape.clone(), h.dims()?.iter().map(wrap).collect());
        let x = ctx.value(c, 0)?;
        // One index is a slice without its axis: nothing is looked up.
        if fixed.shape.is_empty() {
            let start = fixed.dims()?[0].clone();
            let end = start.clone() + 1;
            let y = ctx.part(&c.path, "slice", Op::Slice { axis: at, start, end, step: 1 }, &[x])?;
            let mut shape = ctx.shape(y);
            shape.remove(at);
            return ctx.add(&c.path, Op::Reshape { shape }, &[y], &[]);
        }
        let index = ctx.host_value(&format!("{}.index", c.path), &fixed)?;
        return ctx.add(&c.path, Op::Gather { axis: at }, &[x, index], &[]);
    }
    let ids = ctx.value(c, 1)?;
    if let Some(w) = ctx.weight(c, 0)
        && at == 0
        && w.shape.len() == 2
        && w.ty() == ValueType::Float
    {
        let id = ctx.tensor(&c.path, "weight", &w, Role::Parameter)?;
        return ctx.add(&c.path, Op::Embedding {}, &[ids], &[(Slot::Weight, id)]);
    }
    let x = ctx.value(c, 0)?;
    ctx.add(&c.path, Op::Gather { axis: at }, &[x, ids], &[])
}

/// Elements of a table that is the same along every other axis: a look-up of its rows.
fn gather_elements(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let mut x = ctx.value(c, 0)?;
    let at = axis(c.int_or("axis", 0), ctx.shape(x).len())?;
    if let Some(source) = ctx.builder.expanded(x)
        && ctx.shape(source).len() == ctx.shape(x).len()
    {
        x = source;
    }
    let shape = ctx.shape(x);
    if shape.iter().enumerate().any(|(a, d)| a != at && d.as_int() != Some(1)) {
        return unsupported("picks elements one by one from a table that differs along other axes");
    }
    let flat = ctx.reshape(&c.path, x, vec![shape[at].clone()])?;
    let index = ctx.value(c, 1)?;
    ctx.add(&c.path, Op::Gather { axis: 0 }, &[flat, index], &[])
}

fn range(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let ends: Option<Vec<Host>> = (0..3).map(|i| ctx.host(c, i)).collect();
    let Some(ends) = ends else { return unsupported("has ends that are computed from data") };
    let first = |h: &Host| match h.dims()?.first() {
        Some(d) => Ok(d.clone()),
        None => unsupported("has an end without a number"),
    };
    let dims: Vec<Dim> = ends.iter().map(first).collect::<Lower<_>>()?;
    if dims[2].as_int() != Some(1) {
        return unsupported("counts in steps over a symbolic range");
    }
    let count = dims[1].clone() - &dims[0];
    if dims[0].as_int() == Some(0) {
        return ctx.add(&c.path, Op::Range { end: count }, &[], &[]);
    }
    let start = number(&dims[0])?;
    let from = ctx.part(&c.path, "range", Op::Range { end: count }, &[])?;
    let op = Op::Scalar { function: pomona_graph::BinaryFn::Add, value: start as f64, reversed: false };
    ctx.add(&c.path, op, &[from], &[])
}

fn tile(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let Some(repeats) = ctx.host(c, 1) else {
        return unsupported("repeats by numbers that are computed from data");
    };
    let mut x = ctx.value(c, 0)?;
    let shape = ctx.shape(x);
    let (mut split, mut wide, mut joined) = (Vec::new(), Vec::new(), Vec::new());
    for (d, r) in shape.iter().zip(repeats.dims()?) {
        if r.as_int() == Some(1) {
            split.push(d.clone());
            wide.push(d.clone());
        } else if d.as_int() == Some(1) {
            split.push(d.clone());
            wide.push(r.clone());
        } else {
            split.extend([1.into(), d.clone()]);
            wide.extend([r.clone(), d.clone()]);
        }
        joined.push(d.checked_mul(r)?);
    }
    x = ctx.reshape(&c.path, x, split)?;
    if ctx.shape(x) != wide {
        x = ctx.part(&c.path, "expand", Op::Expand { shape: wide }, &[x])?;
    }
    ctx.reshape(&c.path, x, joined)
}

fn pad(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let mut x = ctx.value(c, 0)?;
    let rank = ctx.shape(x).len();
    let given = match c.ints("paddings") {
        Some(p) => p,
        None => args::ints(ctx, c, "pads", 1)?.unwrap_or_default(),
    };
    let axes = match ctx.host(c, 3) {
        Some(a) => a.i64s()?.into_iter().map(|a| axis(a, rank)).collect::<Lower<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if given.len() != 2 * axes.len() {
        return unsupported(format!("has {} amounts for {} axes", given.len(), axes.len()));
    }
    let mut amounts = vec![[0_usize; 2]; rank];
    for (i, a) in axes.iter().enumerate() {
        for (side, v) in [given[i], given[axes.len() + i]].into_iter().enumerate() {
            if v >= 0 {
                amounts[*a][side] = v as usize;
                continue;
            }
            // A negative border is cut off.
            let size = ctx.shape(x)[*a].clone();
            let cut = v.saturating_neg();
            let (start, end) = if side == 0 { (Dim::from(cut), size) } else { (0.into(), size - cut) };
            x = ctx.part(&c.path, "cut", Op::Slice { axis: *a, start, end, step: 1 }, &[x])?;
        }
    }
    let mode = match c.text("mode").unwrap_or("constant") {
        "constant" => PadMode::Constant { value: args::float(ctx, c, "value", 2)?.unwrap_or(0.0) },
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        other => return unsupported(format!("has the mode `{other}`")),
    };
    ctx.add(&c.path, Op::Pad { amounts, mode }, &[x], &[])
}

/// A triangle: a product with ones and zeros, whose size must be known.
fn trilu(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let shape = ctx.shape(x);
    let n = shape.len();
    if n < 2 {
        return unsupported("reads a value of fewer than two axes");
    }
    let (rows, columns) = (number(&shape[n - 2])?, number(&shape[n - 1])?);
    if rows.saturating_mul(columns) > MAX_TRIANGLE {
        return unsupported(format!("makes a triangle of {rows} x {columns}"));
    }
    let k = args::ints(ctx, c, "k", 1)?.and_then(|v| v.first().copied()).unwrap_or(0);
    let upper = c.int_or("upper", 1) != 0;
    let kept = |i: i64, j: i64| if upper { j - i >= k } else { j - i <= k };
    let ones = (0..rows).flat_map(|i| (0..columns).map(move |j| f64::from(u8::from(kept(i, j)))));
    let mask = Host { shape: vec![rows as usize, columns as usize], data: Data::Floats(ones.collect()) };
    let mask = ctx.host_value(&format!("{}.mask", c.path), &mask)?;
    ctx.add(&c.path, Op::Binary { function: pomona_graph::BinaryFn::Mul }, &[x, mask], &[])
}

pub(super) fn split(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Vec<Entry>> {
    let x = ctx.value(c, 0)?;
    let shape = ctx.shape(x);
    let axis = axis(c.int_or("axis", 0), shape.len())?;
    let sizes = args::split_sizes(ctx, c, &shape[axis])?;
    let op = Op::Split { axis, map: SplitMap::Parts { sizes } };
    Ok(ctx.builder.node_multi(&c.path, op, &[x], &[])?.into_iter().map(Entry::Value).collect())
}

pub(super) fn top_k(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Vec<Entry>> {
    let x = ctx.value(c, 0)?;
    let k = args::ints(ctx, c, "k", 1)?.and_then(|v| v.first().copied()).unwrap_or(0);
    let last = ctx.shape(x).len().saturating_sub(1);
    if axis(c.int_or("axis", -1), last + 1)? != last || c.int_or("largest", 1) == 0 {
        return unsupported("looks along another axis than the last, or for the smallest");
    }
    let out = ctx.builder.node_multi(&c.path, Op::TopK { k: k.max(0) as usize }, &[x], &[])?;
    Ok(out.into_iter().map(Entry::Value).collect())
}
