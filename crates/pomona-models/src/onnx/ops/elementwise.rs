//! Functions of single elements, with broadcasting; reductions.

use pomona_graph::{Activation, BinaryFn, Dim, Op, ReduceFn, Role, Slot, ValueId, ValueType};

use super::super::args;
use super::super::context::{Call, Context, Entry, Lower, shortest, unsupported};
use super::tables;

pub(super) fn lower(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let op = c.node.op.as_str();
    if let Some(function) = tables::activation(c)? {
        let x = ctx.value(c, 0)?;
        return ctx.add(&c.path, Op::Activation { function }, &[x], &[]);
    }
    if let Some(function) = tables::binary(op) {
        return folded(ctx, c, function);
    }
    if tables::reduction(op).is_some() {
        return reduce(ctx, c);
    }
    match op {
        "Sum" => folded(ctx, c, BinaryFn::Add),
        "Mean" => {
            let n = c.node.inputs.len().max(1) as f64;
            let path = ctx.names.unique(&format!("{}.sum", c.path));
            let sum = folded(ctx, &Call { node: c.node, path }, BinaryFn::Add)?;
            scalar(ctx, &c.path, BinaryFn::Mul, sum, 1.0 / n, false)
        }
        "IsNaN" => {
            // What is no number differs from itself.
            let x = ctx.value(c, 0)?;
            let equal = ctx.part(&c.path, "equal", Op::Binary { function: BinaryFn::Equal }, &[x, x])?;
            ctx.add(&c.path, Op::Activation { function: Activation::Not }, &[equal], &[])
        }
        "Xor" => {
            let (a, b) = (ctx.value(c, 0)?, ctx.value(c, 1)?);
            let equal = ctx.part(&c.path, "equal", Op::Binary { function: BinaryFn::Equal }, &[a, b])?;
            ctx.add(&c.path, Op::Activation { function: Activation::Not }, &[equal], &[])
        }
        "Celu" => {
            let (x, alpha) = (ctx.value(c, 0)?, c.float_or("alpha", 1.0));
            // alpha * elu(x / alpha), and positive numbers stay.
            let x = part_scalar(ctx, &c.path, "scaled", BinaryFn::Div, x, alpha)?;
            let y = ctx.part(&c.path, "elu", Op::Activation { function: Activation::Elu(1.0) }, &[x])?;
            scalar(ctx, &c.path, BinaryFn::Mul, y, alpha, false)
        }
        "Softsign" => {
            let x = ctx.value(c, 0)?;
            let size = ctx.part(&c.path, "abs", Op::Activation { function: Activation::Abs }, &[x])?;
            let below = part_scalar(ctx, &c.path, "plus", BinaryFn::Add, size, 1.0)?;
            ctx.add(&c.path, Op::Binary { function: BinaryFn::Div }, &[x, below], &[])
        }
        "Clip" => clip(ctx, c),
        "PRelu" => prelu(ctx, c),
        "Where" => {
            let inputs = [ctx.value(c, 0)?, ctx.value(c, 1)?, ctx.value(c, 2)?];
            ctx.add(&c.path, Op::Where {}, &inputs, &[])
        }
        "Cast" | "CastLike" => {
            let x = ctx.value(c, 0)?;
            let to = match op {
                "Cast" => tables::value_type(c.int_or("to", 0))?,
                _ => match ctx.entry(c.node.inputs.get(1).map_or("", String::as_str))?.clone() {
                    Entry::Host(h) => h.ty(),
                    Entry::Weight(w) => w.ty(),
                    Entry::Value(v) => ctx.ty(v),
                    Entry::Unknown => return unsupported("takes the type of what could not be read"),
                },
            };
            if ctx.ty(x) == to {
                return Ok(x);
            }
            ctx.add(&c.path, Op::Cast { to }, &[x], &[])
        }
        other => unsupported(format!("`{other}` on values that are not known beforehand")),
    }
}

pub(super) fn scalar(
    ctx: &mut Context<'_>,
    path: &str,
    function: BinaryFn,
    x: ValueId,
    value: f64,
    reversed: bool,
) -> Lower<ValueId> {
    ctx.add(path, Op::Scalar { function, value, reversed }, &[x], &[])
}

pub(super) fn part_scalar(
    ctx: &mut Context<'_>,
    path: &str,
    part: &str,
    function: BinaryFn,
    x: ValueId,
    value: f64,
) -> Lower<ValueId> {
    ctx.part(path, part, Op::Scalar { function, value, reversed: false }, &[x])
}

/// A function of two or more inputs, from left to right.
fn folded(ctx: &mut Context<'_>, c: &Call<'_>, function: BinaryFn) -> Lower<ValueId> {
    let names: Vec<String> = c.node.inputs.iter().filter(|n| !n.is_empty()).cloned().collect();
    let last = names.len().saturating_sub(1);
    if names.is_empty() {
        return unsupported("has no input");
    }
    if names.len() == 1 {
        return ctx.value_of(&names[0]);
    }
    let mut left: Option<ValueId> = None;
    for (i, name) in names.iter().enumerate().skip(1) {
        let path = if i == last { c.path.clone() } else { ctx.names.unique(&format!("{}.{i}", c.path)) };
        left = Some(pair(ctx, &path, function, left, &names[0], name)?);
    }
    left.map_or_else(|| unsupported("has no input"), Ok)
}

fn pair(
    ctx: &mut Context<'_>,
    path: &str,
    function: BinaryFn,
    left: Option<ValueId>,
    first: &str,
    second: &str,
) -> Lower<ValueId> {
    // A single number is an attribute where broadcasting it does not raise the rank.
    let number = |ctx: &Context<'_>, name: &str| {
        let rank = ctx.shape_of(name).ok()?.len();
        let h = ctx.host_of(name)?;
        let float = h.ty() == ValueType::Float;
        let v = h.scalar()?;
        v.is_finite().then(|| (if float { shortest(v as f32) } else { v }, rank, h.ty()))
    };
    let fits = |ctx: &Context<'_>, v: ValueId, rank: usize, ty: ValueType| {
        ctx.shape(v).len() >= rank && ctx.ty(v) == ty && ty != ValueType::Bool
    };
    if left.is_none()
        && let Some((value, rank, ty)) = number(ctx, first)
        && !ctx.is_constant(second)
    {
        let x = ctx.value_of(second)?;
        if fits(ctx, x, rank, ty) {
            let commutes = matches!(
                function,
                BinaryFn::Add | BinaryFn::Mul | BinaryFn::Min | BinaryFn::Max | BinaryFn::Equal
            );
            return scalar(ctx, path, function, x, value, !commutes);
        }
    }
    let a = match left {
        Some(v) => v,
        None => ctx.value_of(first)?,
    };
    if let Some((value, rank, ty)) = number(ctx, second)
        && fits(ctx, a, rank, ty)
    {
        return scalar(ctx, path, function, a, value, false);
    }
    let b = ctx.value_of(second)?;
    let same = ctx.shape(a) == ctx.shape(b) && ctx.ty(a) == ValueType::Float;
    let op = if function == BinaryFn::Add && same { Op::Add {} } else { Op::Binary { function } };
    ctx.add(path, op, &[a, b], &[])
}

fn clip(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    // Bounds at the ends of the floating range are none.
    let bound = |v: Option<f64>| v.filter(|v| v.abs() < 3.4e38);
    let (min, max) = (bound(args::float(ctx, c, "min", 1)?), bound(args::float(ctx, c, "max", 2)?));
    let tidy = |v: Option<f64>| v.map(|v| shortest(v as f32));
    ctx.add(&c.path, Op::Clip { min: tidy(min), max: tidy(max) }, &[x], &[])
}

fn prelu(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let slope = ctx.need_weight(c, 1)?;
    let shape = ctx.shape(x);
    let n = slope.elements();
    let channels = shape.get(1).and_then(Dim::as_int);
    // The slope broadcasts from the right: one number, or channels before size-1 axes.
    let lead = shape.len().saturating_sub(slope.shape.len());
    let per_channel =
        channels == Some(n as i64) && slope.shape.iter().enumerate().all(|(i, d)| *d == 1 || lead + i == 1);
    if n == 1 || per_channel {
        let id = ctx.tensor(&c.path, "weight", &slope.reshape(vec![n]), Role::Parameter)?;
        return ctx.add(&c.path, Op::PRelu {}, &[x], &[(Slot::Weight, id)]);
    }
    let slope = ctx.value(c, 1)?;
    let above = ctx.part(&c.path, "positive", Op::Activation { function: Activation::Relu }, &[x])?;
    let below = ctx.part(&c.path, "negative", Op::Binary { function: BinaryFn::Sub }, &[x, above])?;
    let scaled = ctx.part(&c.path, "scaled", Op::Binary { function: BinaryFn::Mul }, &[below, slope])?;
    ctx.add(&c.path, Op::Binary { function: BinaryFn::Add }, &[above, scaled], &[])
}

fn reduce(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let op = c.node.op.as_str();
    let mut x = ctx.value(c, 0)?;
    let (axes, keep) = args::reduced(ctx, c, ctx.shape(x).len())?;
    let function = tables::reduction(op).unwrap_or(ReduceFn::Sum);
    if axes.is_empty() && matches!(op, "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd")
    {
        return Ok(x);
    }
    let before = match op {
        "ReduceL1" => Some(Activation::Abs),
        "ReduceLogSumExp" => Some(Activation::Exp),
        _ => None,
    };
    if let Some(function) = before {
        x = ctx.part(&c.path, "inner", Op::Activation { function }, &[x])?;
    }
    if op == "ReduceSumSquare" {
        x = ctx.part(&c.path, "inner", Op::Binary { function: BinaryFn::Mul }, &[x, x])?;
    }
    let reduce = Op::Reduce { function, axes, keep };
    if matches!(op, "ReduceLogSum" | "ReduceLogSumExp") {
        let sum = ctx.part(&c.path, "sum", reduce, &[x])?;
        return ctx.add(&c.path, Op::Activation { function: Activation::Log }, &[sum], &[]);
    }
    ctx.add(&c.path, reduce, &[x], &[])
}
