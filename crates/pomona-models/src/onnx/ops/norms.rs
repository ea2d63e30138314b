//! Normalisations and softmax.

use pomona_graph::{BatchStatistics, BinaryFn, Dim, Expr, Op, ReduceFn, Role, Slot, ValueId};

use super::super::context::{Call, Context, Lower, Weight, axis, unsupported};

pub(super) fn batch(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    if c.int_or("spatial", 1) == 0 {
        return unsupported("normalises each position by itself (spatial = 0)");
    }
    let x = ctx.value(c, 0)?;
    let mut weights = Vec::new();
    let slots = [
        (1, Slot::Weight, "weight", Role::Parameter),
        (2, Slot::Bias, "bias", Role::Parameter),
        (3, Slot::RunningMean, "running_mean", Role::Buffer),
        (4, Slot::RunningVar, "running_var", Role::Buffer),
    ];
    for (i, slot, name, role) in slots {
        let w = ctx.need_weight(c, i)?;
        weights.push((slot, ctx.tensor(&c.path, name, &w, role)?));
    }
    let statistics =
        if c.int_or("training_mode", 0) == 1 { BatchStatistics::Batch } else { BatchStatistics::Running };
    let op = Op::BatchNorm {
        eps: c.float_or("epsilon", 1e-5),
        // ONNX weighs the old statistics, PyTorch the new ones.
        momentum: super::super::context::shortest((1.0 - c.float_or("momentum", 0.9)) as f32),
        statistics,
    };
    ctx.add(&c.path, op, &[x], &weights)
}

pub(super) fn instance(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let (w, b) = (ctx.need_weight(c, 1)?, ctx.need_weight(c, 2)?);
    let weights = [
        (Slot::Weight, ctx.parameter(&c.path, "weight", &w)?),
        (Slot::Bias, ctx.parameter(&c.path, "bias", &b)?),
    ];
    // Of a GroupNorm's inner part these are ones and zeros.
    ctx.remember(weights[0].1, &w);
    ctx.remember(weights[1].1, &b);
    ctx.add(&c.path, Op::InstanceNorm { eps: c.float_or("epsilon", 1e-5) }, &[x], &weights)
}

pub(super) fn layer(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    if c.node.outputs.iter().skip(1).any(|o| !o.is_empty()) {
        return unsupported("gives its mean or deviation too");
    }
    let x = ctx.value(c, 0)?;
    let shape = ctx.shape(x);
    let first = axis(c.int_or("axis", -1), shape.len())?;
    let mut weights = Vec::new();
    for (i, slot, name) in [(1, Slot::Weight, "weight"), (2, Slot::Bias, "bias")] {
        if ctx.name(c, i).is_some() {
            let w = ctx.need_weight(c, i)?;
            let sizes: Option<Vec<usize>> =
                shape[first..].iter().map(|d| d.as_int().and_then(|n| usize::try_from(n).ok())).collect();
            let sizes = sizes.unwrap_or_else(|| w.shape.clone());
            if w.elements() != sizes.iter().product::<usize>() {
                return unsupported(format!("has a {name} of shape {:?}, which is stretched", w.shape));
            }
            weights.push((slot, ctx.parameter(&c.path, name, &w.reshape(sizes))?));
        }
    }
    let op = Op::LayerNorm { axes: shape.len() - first, eps: c.float_or("epsilon", 1e-5) };
    ctx.add(&c.path, op, &[x], &weights)
}

pub(super) fn group(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let groups = c.int_or("num_groups", 1).max(1) as usize;
    let channels = ctx.shape(x).get(1).and_then(Dim::as_int).unwrap_or(0) as usize;
    let mut weights = Vec::new();
    for (i, slot, name) in [(1, Slot::Weight, "weight"), (2, Slot::Bias, "bias")] {
        let w = ctx.need_weight(c, i)?;
        weights.push((slot, ctx.parameter(&c.path, name, &per_channel(&w, channels)?)?));
    }
    ctx.add(&c.path, Op::GroupNorm { groups, eps: c.float_or("epsilon", 1e-5) }, &[x], &weights)
}

/// One number a channel; before operator set 21 there was one a group.
pub(in super::super) fn per_channel(w: &Weight, channels: usize) -> Lower<Weight> {
    let n = w.elements();
    if n == channels {
        return Ok(w.reshape(vec![channels]));
    }
    if n == 0 || !channels.is_multiple_of(n) {
        return unsupported(format!("has {n} scales for {channels} channels"));
    }
    let column = w.reshape(vec![n, 1]);
    let expr = Expr::Tile { repeats: vec![1, channels / n], of: Box::new(column.expr.clone()) };
    let tiled = Weight { expr, shape: vec![n, channels / n], ..column };
    Ok(tiled.reshape(vec![channels]))
}

pub(super) fn lp(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    if c.int_or("p", 2) != 2 {
        return unsupported("normalises by another norm than L2");
    }
    let x = ctx.value(c, 0)?;
    let axes = vec![axis(c.int_or("axis", -1), ctx.shape(x).len())?];
    let norm = ctx.part(&c.path, "norm", Op::Reduce { function: ReduceFn::L2, axes, keep: true }, &[x])?;
    ctx.add(&c.path, Op::Binary { function: BinaryFn::Div }, &[x, norm], &[])
}

pub(super) fn softmax(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let x = ctx.value(c, 0)?;
    let shape = ctx.shape(x);
    let log = c.node.op == "LogSoftmax";
    let at = axis(c.int_or("axis", if ctx.opset < 13 { 1 } else { -1 }), shape.len())?;
    if ctx.opset >= 13 || at + 1 == shape.len() {
        return ctx.add(&c.path, Op::Softmax { axis: at, log }, &[x], &[]);
    }
    // Old operator sets take all axes from this one on as a single one.
    let product = |dims: &[Dim]| dims.iter().try_fold(Dim::from(1), |n, d| n.checked_mul(d));
    let flat = vec![product(&shape[..at])?, product(&shape[at..])?];
    let y = ctx.reshape(&c.path, x, flat)?;
    let y = ctx.part(&c.path, "softmax", Op::Softmax { axis: 1, log }, &[y])?;
    ctx.add(&c.path, Op::Reshape { shape }, &[y], &[])
}
