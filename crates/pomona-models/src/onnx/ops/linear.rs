//! Matrix products: with a constant matrix a Linear, otherwise a product of values.

use pomona_graph::{BinaryFn, Dim, Expr, Op, Slot, Term, ValueId};

use super::super::context::{Call, Context, Entry, Lower, Weight, unsupported};
use super::elementwise::part_scalar;

fn scaled(w: Weight, factor: f64) -> Weight {
    if factor == 1.0 {
        return w;
    }
    let term = Term { weight: factor, product: vec![w.expr.clone()] };
    Weight { expr: Expr::WeightedSum { terms: vec![term] }, encoding: pomona_store::Encoding::F32, ..w }
}

pub(super) fn gemm(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let (alpha, beta) = (c.float_or("alpha", 1.0), c.float_or("beta", 1.0));
    let mut x = ctx.value(c, 0)?;
    if c.int_or("transA", 0) != 0 {
        x = ctx.transposed(&c.path, x, vec![1, 0])?;
    }
    let transposed = c.int_or("transB", 0) != 0;
    let bias = ctx.name(c, 2).is_some();
    if let Some(w) = matrix(ctx, c, 1) {
        let w = scaled(if transposed { w } else { w.transpose(&[1, 0]) }, alpha);
        let out = w.shape[0];
        let mut weights = vec![(Slot::Weight, ctx.parameter(&c.path, "weight", &w)?)];
        let row = if bias { bias_row(ctx, c, out)? } else { None };
        if let Some(b) = row {
            weights.push((Slot::Bias, ctx.parameter(&c.path, "bias", &scaled(b, beta))?));
        }
        if !bias || weights.len() == 2 {
            return ctx.add(&c.path, Op::Linear {}, &[x], &weights);
        }
        let path = ctx.names.unique(&format!("{}.product", c.path));
        let y = ctx.add(&path, Op::Linear {}, &[x], &weights)?;
        return plus(ctx, c, y, beta);
    }
    let b = ctx.value(c, 1)?;
    let product = Op::MatMul { transpose_b: transposed };
    if !bias && alpha == 1.0 {
        return ctx.add(&c.path, product, &[x, b], &[]);
    }
    let mut y = ctx.part(&c.path, "product", product, &[x, b])?;
    if alpha != 1.0 {
        y = part_scalar(ctx, &c.path, "alpha", BinaryFn::Mul, y, alpha)?;
    }
    if bias { plus(ctx, c, y, beta) } else { Ok(y) }
}

fn plus(ctx: &mut Context<'_>, c: &Call<'_>, y: ValueId, beta: f64) -> Lower<ValueId> {
    let mut b = ctx.value(c, 2)?;
    if beta != 1.0 {
        b = part_scalar(ctx, &c.path, "beta", BinaryFn::Mul, b, beta)?;
    }
    ctx.add(&c.path, Op::Binary { function: BinaryFn::Add }, &[y, b], &[])
}

/// A constant of two axes.
fn matrix(ctx: &mut Context<'_>, c: &Call<'_>, i: usize) -> Option<Weight> {
    let name = ctx.name(c, i)?;
    if !ctx.is_constant(name) {
        return None;
    }
    ctx.need_weight(c, i).ok().filter(|w| w.shape.len() == 2)
}

/// A bias that is one number an output column.
fn bias_row(ctx: &mut Context<'_>, c: &Call<'_>, out: usize) -> Lower<Option<Weight>> {
    if !ctx.name(c, 2).is_some_and(|n| ctx.is_constant(n)) {
        return Ok(None);
    }
    let b = ctx.need_weight(c, 2)?;
    let row = b.elements() == out && b.shape.last() == Some(&out);
    if row {
        return Ok(Some(b.reshape(vec![out])));
    }
    if b.elements() == 1 {
        let one = b.reshape(vec![1]);
        let expr = Expr::Tile { repeats: vec![out], of: Box::new(one.expr.clone()) };
        return Ok(Some(Weight { expr, shape: vec![out], ..one }));
    }
    Ok(None)
}

pub(super) fn matmul(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let (Some(a), Some(b)) = (ctx.name(c, 0), ctx.name(c, 1)) else { return unsupported("has one input") };
    let ranks = (ctx.shape_of(a)?.len(), ctx.shape_of(b)?.len());
    if !ctx.is_constant(a)
        && let Some(w) = matrix(ctx, c, 1)
    {
        let x = ctx.value(c, 0)?;
        let id = ctx.parameter(&c.path, "weight", &w.transpose(&[1, 0]))?;
        return ctx.add(&c.path, Op::Linear {}, &[x], &[(Slot::Weight, id)]);
    }
    let (mut x, mut y) = (ctx.value(c, 0)?, ctx.value(c, 1)?);
    // Vectors count as one row, or one column, which the result then lacks.
    if ranks.0 == 1 {
        let shape = vec![Dim::from(1), ctx.shape(x)[0].clone()];
        x = ctx.reshape(&c.path, x, shape)?;
    }
    if ranks.1 == 1 {
        let shape = vec![ctx.shape(y)[0].clone(), Dim::from(1)];
        y = ctx.reshape(&c.path, y, shape)?;
    }
    if ranks.0 != 1 && ranks.1 != 1 {
        return ctx.add(&c.path, Op::MatMul { transpose_b: false }, &[x, y], &[]);
    }
    let out = ctx.part(&c.path, "product", Op::MatMul { transpose_b: false }, &[x, y])?;
    let mut shape = ctx.shape(out);
    let n = shape.len();
    if ranks.0 == 1 {
        shape.remove(n - 2);
    }
    if ranks.1 == 1 {
        shape.pop();
    }
    ctx.add(&c.path, Op::Reshape { shape }, &[out], &[])
}

/// The weight of a node that has one, for its path: the second input where that is a tensor of the file.
pub(in super::super) fn weight_name<'n>(
    ctx: &Context<'_>,
    node: &'n pomona_store::onnx::OnnxNode,
) -> Option<&'n str> {
    let at = match node.op.as_str() {
        "Conv"
        | "ConvTranspose"
        | "Gemm"
        | "MatMul"
        | "BatchNormalization"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "GroupNormalization"
        | "PRelu"
        | "LSTM"
        | "GRU" => 1,
        "Gather" => 0,
        _ => return None,
    };
    let name = node.inputs.get(at)?;
    match ctx.entries.get(name)? {
        Entry::Weight(w) if w.shape.len() != 1 || node.op.ends_with("Normalization") => Some(&**name),
        _ => None,
    }
}
