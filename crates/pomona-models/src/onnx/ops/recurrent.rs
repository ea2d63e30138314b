//! LSTM and GRU over a sequence: gates and layouts as PyTorch has them.

use pomona_graph::{Dim, Direction, Expr, Op, RecurrentCell, Shape, Slot, ValueId};
use pomona_store::onnx::OnnxValue;

use super::super::context::{Call, Context, Entry, Lower, Weight, unsupported};
use super::super::host::{Data, Host};

/// Blocks of `hidden` rows in another order.
fn gates(w: &Weight, order: &[usize], hidden: usize) -> Weight {
    let block =
        |g: &usize| Expr::Split { axis: 0, start: g * hidden, len: hidden, of: Box::new(w.expr.clone()) };
    let expr = Expr::Concat { axis: 0, of: order.iter().map(block).collect() };
    Weight { expr, ..w.clone() }
}

fn part(w: &Weight, axis: usize, start: usize, len: usize) -> Weight {
    let mut shape = w.shape.clone();
    shape[axis] = len;
    let expr = Expr::Split { axis, start, len, of: Box::new(w.expr.clone()) };
    Weight { expr, shape, ..w.clone() }
}

pub(super) fn recurrent(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<Vec<Entry>> {
    let lstm = c.node.op == "LSTM";
    let hidden = usize::try_from(c.int_or("hidden_size", 0)).ok().filter(|h| (1..1 << 24).contains(h));
    let Some(hidden) = hidden else { return unsupported("has no hidden size") };
    let direction = match c.text("direction").unwrap_or("forward") {
        "forward" => Direction::Forward,
        "reverse" => Direction::Reverse,
        _ => Direction::Both,
    };
    check(ctx, c, lstm)?;
    let batch_first = c.int_or("layout", 0) == 1;
    let mut x = ctx.value(c, 0)?;
    if !batch_first {
        x = ctx.transposed(&c.path, x, vec![1, 0, 2])?;
    }
    let shape = ctx.shape(x);
    let dirs = if direction == Direction::Both { 2 } else { 1 };
    let weights = weights(ctx, c, lstm, hidden, dirs)?;
    let width = Dim::from(dirs * hidden);
    let mut inputs = vec![x];
    let states = if lstm { 2 } else { 1 };
    for k in 0..states {
        inputs.push(state(ctx, c, 5 + k, &shape[0], &width, batch_first)?);
    }
    let reset_after = c.int_or("linear_before_reset", 0) != 0;
    let cell = if lstm { RecurrentCell::Lstm } else { RecurrentCell::Gru };
    let op = Op::Recurrent { cell, hidden, direction, reset_after };
    let out = ctx.builder.node_multi(&c.path, op, &inputs, &weights)?;
    let wanted = |i: usize| c.node.outputs.get(i).is_some_and(|o| !o.is_empty());
    let mut entries = vec![Entry::Unknown; 1 + states];
    if wanted(0) {
        // [b, n, dirs * h] as [n, dirs, b, h], or [b, n, dirs, h].
        let split: Shape = vec![shape[0].clone(), shape[1].clone(), dirs.into(), hidden.into()];
        let y = ctx.reshape(&c.path, out[0], split)?;
        let y = if batch_first { y } else { ctx.transposed(&c.path, y, vec![1, 2, 0, 3])? };
        entries[0] = Entry::Value(y);
    }
    for k in 0..states {
        if wanted(1 + k) {
            let split: Shape = vec![shape[0].clone(), dirs.into(), hidden.into()];
            let y = ctx.reshape(&c.path, out[1 + k], split)?;
            let y = if batch_first { y } else { ctx.transposed(&c.path, y, vec![1, 0, 2])? };
            entries[1 + k] = Entry::Value(y);
        }
    }
    Ok(entries)
}

/// What the graph's cell does not do.
fn check(ctx: &Context<'_>, c: &Call<'_>, lstm: bool) -> Lower<()> {
    if let Some(OnnxValue::Texts(all)) = c.attribute("activations") {
        let usual: &[&str] = if lstm { &["Sigmoid", "Tanh", "Tanh"] } else { &["Sigmoid", "Tanh"] };
        if !all.iter().zip(usual.iter().cycle()).all(|(a, b)| a.eq_ignore_ascii_case(b)) {
            return unsupported(format!("has the activations {}", all.join(", ")));
        }
    }
    if c.attribute("clip").is_some() || c.int_or("input_forget", 0) != 0 {
        return unsupported("clips its cell or couples its gates");
    }
    if ctx.name(c, 7).is_some() && lstm {
        return unsupported("has peepholes");
    }
    if let Some(name) = ctx.name(c, 4) {
        // Sequences of one length are what the operator does anyway.
        let steps =
            ctx.shape_of(&c.node.inputs[0])?.get(if c.int_or("layout", 0) == 1 { 1 } else { 0 }).cloned();
        let full = ctx.host_of(name).and_then(|h| h.dims().ok().map(<[Dim]>::to_vec));
        if !full.is_some_and(|v| v.iter().all(|d| Some(d) == steps.as_ref())) {
            return unsupported("has sequences of different lengths");
        }
    }
    Ok(())
}

fn weights(
    ctx: &mut Context<'_>,
    c: &Call<'_>,
    lstm: bool,
    hidden: usize,
    dirs: usize,
) -> Lower<Vec<(Slot, pomona_graph::TensorId)>> {
    // ONNX: i, o, f, c and z, r, h. PyTorch: i, f, g, o and r, z, n.
    let order: &[usize] = if lstm { &[0, 2, 3, 1] } else { &[1, 0, 2] };
    let rows = order.len() * hidden;
    let (w, r) = (ctx.need_weight(c, 1)?, ctx.need_weight(c, 2)?);
    let bias = if ctx.name(c, 3).is_some() { Some(ctx.need_weight(c, 3)?) } else { None };
    let fits = w.shape.len() == 3
        && w.shape[..2] == [dirs, rows]
        && r.shape == [dirs, rows, hidden]
        && bias.as_ref().is_none_or(|b| b.shape == [dirs, 2 * rows]);
    if !fits {
        return unsupported(format!(
            "has weights of shapes {:?} and {:?} for {hidden} hidden units",
            w.shape, r.shape
        ));
    }
    let slots = [
        [Slot::WeightIh, Slot::WeightHh, Slot::BiasIh, Slot::BiasHh],
        [Slot::WeightIhReverse, Slot::WeightHhReverse, Slot::BiasIhReverse, Slot::BiasHhReverse],
    ];
    let mut out = Vec::new();
    for (d, slots) in slots.iter().enumerate().take(dirs) {
        let end = if d == 0 { "" } else { "_reverse" };
        let mut put = |ctx: &mut Context<'_>, slot: Slot, name: &str, w: &Weight| -> Lower<()> {
            let named = Weight { name: format!("{}.{name}{end}", c.path), ..gates(w, order, hidden) };
            let id = ctx.parameter(&c.path, name, &named)?;
            out.push((slot, id));
            Ok(())
        };
        put(ctx, slots[0], "weight_ih", &part(&w, 0, d, 1).reshape(vec![rows, w.shape[2]]))?;
        put(ctx, slots[1], "weight_hh", &part(&r, 0, d, 1).reshape(vec![rows, hidden]))?;
        if let Some(b) = &bias {
            let row = part(b, 0, d, 1).reshape(vec![2 * rows]);
            put(ctx, slots[2], "bias_ih", &part(&row, 0, 0, rows))?;
            put(ctx, slots[3], "bias_hh", &part(&row, 0, rows, rows))?;
        }
    }
    Ok(out)
}

/// A start state as `[b, dirs * h]`; zeros where the file has none.
fn state(
    ctx: &mut Context<'_>,
    c: &Call<'_>,
    i: usize,
    batch: &Dim,
    width: &Dim,
    batch_first: bool,
) -> Lower<ValueId> {
    let flat: Shape = vec![batch.clone(), width.clone()];
    if ctx.name(c, i).is_some() {
        let h = ctx.value(c, i)?;
        let h = if batch_first { h } else { ctx.transposed(&c.path, h, vec![1, 0, 2])? };
        return ctx.reshape(&c.path, h, flat);
    }
    let zero = Host { shape: vec![1, 1], data: Data::Floats(vec![0.0]) };
    let zero = ctx.host_value(&format!("{}.zero", c.path), &zero)?;
    ctx.part(&c.path, "start", Op::Expand { shape: flat }, &[zero])
}
