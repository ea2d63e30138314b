//! Arguments that were attributes in old operator sets and are inputs in new ones.

use pomona_graph::Dim;
use pomona_store::onnx::{OnnxTensor, OnnxValue, element};

use super::context::{Call, Context, Entry, Lower, Weight, axis, unsupported};
use super::host::{Data, Host, LIMIT};

/// Most outputs of a Split.
const MAX_PARTS: i64 = 4096;

/// Integers of an attribute, or of the i-th input where that is how this operator set has them.
pub(super) fn ints(ctx: &Context<'_>, c: &Call<'_>, name: &str, input: usize) -> Lower<Option<Vec<i64>>> {
    if let Some(v) = c.ints(name) {
        return Ok(Some(v));
    }
    match (ctx.name(c, input), ctx.host(c, input)) {
        (None, _) => Ok(None),
        (_, Some(h)) => h.i64s().map(Some),
        (Some(n), None) => {
            unsupported(format!("`{name}` (`{n}`) is computed from data: a constant was expected"))
        }
    }
}

/// A number of an attribute or of the i-th input.
pub(super) fn float(ctx: &Context<'_>, c: &Call<'_>, name: &str, input: usize) -> Lower<Option<f64>> {
    if let Some(OnnxValue::Float(v)) = c.attribute(name) {
        return Ok(Some(super::context::shortest(*v)));
    }
    match (ctx.name(c, input), ctx.host(c, input).and_then(|h| h.scalar())) {
        (None, _) => Ok(None),
        (_, Some(v)) => Ok(Some(v)),
        (Some(n), None) => {
            unsupported(format!("`{name}` (`{n}`) is computed from data: a constant was expected"))
        }
    }
}

pub(super) fn permutation(c: &Call<'_>, rank: usize) -> Lower<Vec<usize>> {
    let order = match c.ints("perm") {
        Some(p) => p.iter().map(|a| axis(*a, rank)).collect::<Lower<Vec<_>>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return unsupported(format!("order {order:?} of {rank} axes"));
    }
    Ok(order)
}

/// The complete shape of a Reshape: 0 copies an axis (unless `allowzero`), -1 takes what is left.
pub(super) fn reshape_target(c: &Call<'_>, from: &[Dim], target: &[Dim]) -> Lower<Vec<Dim>> {
    let zero = c.int_or("allowzero", 0) == 0;
    let mut out = Vec::with_capacity(target.len());
    let mut open = None;
    let mut known = Dim::from(1);
    for (i, d) in target.iter().enumerate() {
        let d = match d.as_int() {
            Some(0) if zero => match from.get(i) {
                Some(d) => d.clone(),
                None => return unsupported(format!("copies axis {i} of {} axes", from.len())),
            },
            Some(-1) if open.is_none() => {
                open = Some(i);
                Dim::from(1)
            }
            Some(n) if n < 0 => return unsupported(format!("has the size {n}")),
            _ => d.clone(),
        };
        known = known.checked_mul(&d)?;
        out.push(d);
    }
    if let Some(i) = open {
        let mut all = Dim::from(1);
        for d in from {
            all = all.checked_mul(d)?;
        }
        out[i] = all.exact_div(&known)?;
    }
    Ok(out)
}

pub(super) fn unsqueezed(ctx: &Context<'_>, c: &Call<'_>, from: &[Dim]) -> Lower<Vec<Dim>> {
    let axes = ints(ctx, c, "axes", 1)?.unwrap_or_default();
    let rank = from.len() + axes.len();
    let mut at = axes.iter().map(|a| axis(*a, rank)).collect::<Lower<Vec<_>>>()?;
    at.sort_unstable();
    at.dedup();
    if at.len() != axes.len() {
        return unsupported(format!("adds the axes {axes:?}"));
    }
    let mut out = from.to_vec();
    for a in at {
        out.insert(a, 1.into());
    }
    Ok(out)
}

pub(super) fn squeezed(ctx: &Context<'_>, c: &Call<'_>, from: &[Dim]) -> Lower<Vec<Dim>> {
    let axes = match ints(ctx, c, "axes", 1)? {
        Some(a) => a.iter().map(|a| axis(*a, from.len())).collect::<Lower<Vec<_>>>()?,
        None => (0..from.len()).filter(|i| from[*i].as_int() == Some(1)).collect(),
    };
    Ok(from.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect())
}

/// A slice of an axis, as the file has it: ends may be negative or far beyond the axis.
pub(super) struct SliceArg {
    pub axis: usize,
    pub start: Dim,
    pub end: Dim,
    pub step: i64,
}

pub(super) fn slices(ctx: &Context<'_>, c: &Call<'_>, rank: usize) -> Lower<Vec<SliceArg>> {
    let list = |name: &str, i: usize| -> Lower<Option<Vec<Dim>>> {
        if let Some(v) = c.ints(name) {
            return Ok(Some(v.into_iter().map(Dim::from).collect()));
        }
        match (ctx.name(c, i), ctx.host(c, i)) {
            (None, _) => Ok(None),
            (_, Some(h)) => Ok(Some(h.dims()?.to_vec())),
            (Some(n), None) => {
                unsupported(format!("`{name}` (`{n}`) is computed from data: a constant was expected"))
            }
        }
    };
    let (starts, ends) = (list("starts", 1)?.unwrap_or_default(), list("ends", 2)?.unwrap_or_default());
    let axes = ints(ctx, c, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = ints(ctx, c, "steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len()
        || axes.len() != starts.len()
        || steps.len() != starts.len()
        || steps.contains(&0)
    {
        return unsupported("its starts, ends, axes and steps do not fit together");
    }
    let all = starts.into_iter().zip(ends).zip(axes.into_iter().zip(steps));
    all.map(|((start, end), (a, step))| Ok(SliceArg { axis: axis(a, rank)?, start, end, step })).collect()
}

/// Sizes of a Split's parts: given, or equal ones (the last smaller since operator set 18).
pub(super) fn split_sizes(ctx: &Context<'_>, c: &Call<'_>, whole: &Dim) -> Lower<Vec<Dim>> {
    if let Some(v) = ints(ctx, c, "split", 1)? {
        return Ok(v.into_iter().map(Dim::from).collect());
    }
    let n = c.int("num_outputs").unwrap_or(c.node.outputs.len() as i64).clamp(1, MAX_PARTS);
    if let Some(size) = whole.as_int() {
        let part = size.div_euclid(n) + i64::from(size.rem_euclid(n) != 0);
        return Ok((0..n)
            .map(|i| size.saturating_sub(part.saturating_mul(i)).clamp(0, part).into())
            .collect());
    }
    Ok(vec![whole.exact_div(&n.into())?; n as usize])
}

/// Axes of a reduction from 0, and whether they stay.
pub(super) fn reduced(ctx: &Context<'_>, c: &Call<'_>, rank: usize) -> Lower<(Vec<usize>, bool)> {
    let given = ints(ctx, c, "axes", 1)?.unwrap_or_default();
    let axes = match given.is_empty() {
        true if c.int_or("noop_with_empty_axes", 0) == 1 => Vec::new(),
        true => (0..rank).collect(),
        false => given.iter().map(|a| axis(*a, rank)).collect::<Lower<Vec<_>>>()?,
    };
    Ok((axes, c.int_or("keepdims", 1) != 0))
}

/// The tensor of an attribute: small ones are known, others are tensors of the file.
pub(super) fn attribute_tensor(ctx: &mut Context<'_>, t: OnnxTensor) -> Lower<Entry> {
    let Some(encoding) = element::encoding(t.element) else {
        return unsupported(format!("holds a constant of element type {}, which is not read", t.element));
    };
    let shape = t.shape.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
    ctx.stored.insert(t.name.clone(), encoding);
    let Ok(shape) = shape else { return unsupported(format!("holds a constant of shape {:?}", t.shape)) };
    let n = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
    if n <= LIMIT
        && let Some(host) = ctx.small(&t, encoding, &shape)
    {
        return Ok(Entry::Host(host));
    }
    let name = t.name.clone();
    ctx.computed.push(t);
    Ok(Entry::Weight(Weight { expr: pomona_graph::Expr::copy(&name), name, shape, encoding }))
}

/// The element that ConstantOfShape repeats.
pub(super) fn fill_value(ctx: &Context<'_>, c: &Call<'_>) -> Lower<Host> {
    match c.attribute("value") {
        Some(OnnxValue::Tensor(t)) => {
            let encoding = element::encoding(t.element);
            match encoding.and_then(|e| ctx.small(t, e, &[])) {
                Some(h) => Ok(h),
                None => unsupported("repeats a value that is not read"),
            }
        }
        _ => Ok(Host { shape: vec![], data: Data::Floats(vec![0.0]) }),
    }
}
