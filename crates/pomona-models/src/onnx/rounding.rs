//! Rounded operands of an ONNX node as annotations of the graph's nodes that read them.

use pomona_graph::{Annotation, Op, QuantTarget, Slot, ValueId, ValueType};

use super::context::{Call, Context, Entry, Lower, unsupported};
use super::ops::Rounding;

/// Notes on what a call added, from node `first` on: those that read a rounded value round it, and a result that is that value itself
/// is rounded for its own readers.
pub(super) fn note(ctx: &mut Context<'_>, c: &Call<'_>, made: &[Entry], first: usize) -> Lower<()> {
    if ctx.rounded.is_empty() || matches!(c.node.op.as_str(), "QuantizeLinear" | "DequantizeLinear") {
        return Ok(());
    }
    if !matches!(made.first(), Some(Entry::Value(_))) {
        return constant(ctx, c);
    }
    let mut read: Vec<(ValueId, Option<Rounding>)> = Vec::new();
    for (i, name) in c.node.inputs.iter().enumerate() {
        let how = ctx.rounded.get(name).cloned();
        match (ctx.entries.get(name), how) {
            (Some(Entry::Value(v)), how) => {
                if read.iter().any(|(known, other)| known == v && *other != how) {
                    return unsupported(format!("reads `{name}` rounded in two ways"));
                }
                if !read.contains(&(*v, how.clone())) {
                    read.push((*v, how));
                }
            }
            (Some(_), Some(how)) => weight(ctx, c, (i, name), &how, first)?,
            _ => {}
        }
    }
    for (v, how) in read {
        let Some(how) = how else { continue };
        let nodes = ctx.builder.nodes()[first..].iter();
        let readers: Vec<(String, usize)> = nodes
            .flat_map(|n| {
                let at = n.inputs.iter().enumerate().filter(|(_, x)| **x == v);
                at.map(|(i, _)| (n.path.clone(), i))
            })
            .collect();
        let same = |e: &Entry| matches!(e, Entry::Value(x) if *x == v);
        if readers.is_empty() && !made.iter().any(same) {
            return unsupported("reads a rounded value in a way that is not followed");
        }
        for (path, i) in readers {
            ctx.builder.annotate(&path, how.annotation(QuantTarget::Input(i)));
        }
        for (name, _) in c.node.outputs.iter().zip(made).filter(|(_, e)| same(e)) {
            ctx.rounded.insert(name.clone(), how.clone());
        }
    }
    Ok(())
}

/// A rounded constant: of a layer's weight the layer knows it.
fn weight(
    ctx: &mut Context<'_>,
    c: &Call<'_>,
    (i, name): (usize, &str),
    how: &Rounding,
    first: usize,
) -> Lower<()> {
    let place = match c.node.op.as_str() {
        "Conv" | "ConvTranspose" | "MatMul" | "Gemm" => Some(1),
        "Gather" => Some(0),
        _ => None,
    };
    let layer = ctx.builder.nodes()[first..].iter().find(|n| {
        let layer = matches!(n.op, Op::Linear {} | Op::Conv(_) | Op::ConvTranspose { .. } | Op::Embedding {});
        layer && place == Some(i) && n.weights.contains_key(&Slot::Weight)
    });
    let Some(layer) = layer else { return spared(ctx, name) };
    let (path, linear) = (layer.path.clone(), matches!(layer.op, Op::Linear {}));
    // Gemm's factor went into the weight.
    let factor = if c.node.op == "Gemm" { c.float_or("alpha", 1.0) as f32 } else { 1.0 };
    if factor <= 0.0 {
        return spared(ctx, name);
    }
    let scales = how.scales.iter().map(|s| s * factor).collect();
    let mut note = Rounding { scales, ..how.clone() }.annotation(QuantTarget::Weight);
    // A product's matrix is stored the other way round here.
    if let Annotation::Quantisation { axis: Some(a), .. } = &mut note
        && linear
        && !(c.node.op == "Gemm" && c.int_or("transB", 0) != 0)
    {
        *a = 1 - (*a).min(1);
    }
    ctx.builder.annotate(&path, note);
    Ok(())
}

/// A constant of a rounded constant: turned and reshaped it stays rounded, and its layer is to know.
fn constant(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<()> {
    let Some(name) = c.node.inputs.first().filter(|n| ctx.rounded.contains_key(*n)).cloned() else {
        return Ok(());
    };
    let turned = match (c.node.op.as_str(), ctx.rounded[&name].axis) {
        ("Transpose", Some(a)) => match c.ints("perm") {
            Some(order) => order.iter().position(|p| usize::try_from(*p) == Ok(a)).map(Some),
            None => ctx.shape_of(&name).ok().map(|s| Some(s.len() - 1 - a)),
        },
        ("Identity" | "Cast", axis) => Some(axis),
        ("Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze", None) => Some(None),
        _ => None,
    };
    match (turned, c.node.outputs.first()) {
        (Some(axis), Some(out)) => {
            let how = Rounding { axis, ..ctx.rounded[&name].clone() };
            ctx.rounded.insert(out.clone(), how);
            if ctx.unrounded.contains(&name) {
                ctx.unrounded.insert(out.clone());
            }
            Ok(())
        }
        _ if matches!(c.node.op.as_str(), "Shape" | "Size") => Ok(()),
        _ => spared(ctx, &name),
    }
}

/// Nothing knows of the rounding of this constant: fine where its numbers are rounded already.
fn spared(ctx: &Context<'_>, name: &str) -> Lower<()> {
    match ctx.unrounded.contains(name) {
        true => unsupported(format!("reads the constant `{name}` rounded; only weights of layers are")),
        false => Ok(()),
    }
}

/// The value of an output port: rounded where the file says so, by its maker if nothing else reads it.
pub(super) fn output(ctx: &mut Context<'_>, name: &str, value: ValueId, alone: bool) -> Lower<ValueId> {
    let Some(how) = ctx.rounded.get(name).cloned() else { return Ok(value) };
    let read = ctx.builder.nodes().iter().any(|n| n.inputs.contains(&value));
    match ctx.builder.producer(value).filter(|_| alone && !read) {
        Some((path, k)) => {
            ctx.builder.annotate(&path, how.annotation(QuantTarget::Output(k)));
            Ok(value)
        }
        None => {
            let path = format!("{name}.rounded");
            let value = ctx.add(&path, Op::Cast { to: ValueType::Float }, &[value], &[])?;
            ctx.builder.annotate(&path, how.annotation(QuantTarget::Input(0)));
            Ok(value)
        }
    }
}
