//! LayerNorm, RMSNorm and GroupNorm from their parts.

use pomona_graph::{Activation, BinaryFn, Dim, Op, ReduceFn, Slot, TensorId, ValueId};

use super::Work;

/// Mean over the last axes, which stay: operand and number of axes.
fn mean(w: &Work, v: ValueId) -> Option<(ValueId, usize)> {
    let node = w.node(w.maker(v)?);
    let Op::Reduce { function: ReduceFn::Mean, axes, keep: true } = &node.op else { return None };
    let rank = w.shape(node.inputs[0]).len();
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    (sorted == (rank - axes.len()..rank).collect::<Vec<_>>()).then_some((node.inputs[0], axes.len()))
}

fn activated(w: &Work, v: ValueId, wanted: Activation) -> Option<ValueId> {
    let node = w.node(w.maker(v)?);
    match node.op {
        Op::Activation { function } if function == wanted => Some(node.inputs[0]),
        _ => None,
    }
}

/// `sqrt(mean(square) + eps)`, in the forms that exporters write: operand of the square, axes and eps. The value may be
/// the root or its reciprocal.
fn deviation(w: &Work, v: ValueId, reciprocal: bool) -> Option<(ValueId, usize, f64)> {
    let sum = match reciprocal {
        false => activated(w, v, Activation::Sqrt)
            .or_else(|| w.scalar(v, BinaryFn::Pow).filter(|p| p.1 == 0.5).map(|p| p.0))?,
        true => {
            let root = activated(w, v, Activation::Reciprocal).or_else(|| {
                let node = w.node(w.maker(v)?);
                match node.op {
                    Op::Scalar { function: BinaryFn::Div, value: 1.0, reversed: true } => {
                        Some(node.inputs[0])
                    }
                    _ => None,
                }
            });
            let of_root = root.and_then(|r| activated(w, r, Activation::Sqrt));
            of_root.or_else(|| w.scalar(v, BinaryFn::Pow).filter(|p| p.1 == -0.5).map(|p| p.0))?
        }
    };
    let (variance, eps) = w.scalar(sum, BinaryFn::Add)?;
    let (square, axes) = mean(w, variance)?;
    let of = match w.scalar(square, BinaryFn::Pow) {
        Some((x, 2.0)) => x,
        _ => {
            let (a, b) = w.binary(square, BinaryFn::Mul)?;
            (a == b).then_some(a)?
        }
    };
    Some((of, axes, eps))
}

/// The normalised value and its deviation: `x / root` or `x * (1 / root)`.
fn normalised(w: &Work, v: ValueId) -> Option<(ValueId, ValueId, usize, f64)> {
    if let Some((x, root)) = w.binary(v, BinaryFn::Div) {
        let (of, axes, eps) = deviation(w, root, false)?;
        return Some((x, of, axes, eps));
    }
    let (a, b) = w.binary(v, BinaryFn::Mul)?;
    let with = |x: ValueId, r: ValueId| deviation(w, r, true).map(|(of, axes, eps)| (x, of, axes, eps));
    with(a, b).or_else(|| with(b, a))
}

/// What is centred: `x - mean(x)`.
fn centred(w: &Work, v: ValueId, axes: usize) -> Option<ValueId> {
    let (x, m) = w.binary(v, BinaryFn::Sub)?;
    (mean(w, m) == Some((x, axes))).then_some(x)
}

pub(super) fn decomposed(w: &mut Work, at: usize) -> bool {
    let out = w.node(at).outputs[0];
    let Some((x, of, axes, eps)) = normalised(w, out) else { return false };
    // Exporters may centre twice, for the numerator and for the variance.
    if let Some(source) = centred(w, x, axes)
        && (of == x || centred(w, of, axes) == Some(source))
    {
        w.replace(at, Op::LayerNorm { axes, eps }, vec![source], vec![]);
        return true;
    }
    if of == x && axes == 1 {
        w.replace(at, Op::RmsNorm { eps, offset: 0.0 }, vec![x], vec![]);
        return true;
    }
    false
}

/// Reshape to groups, InstanceNorm with ones and zeros (or none), and back: GroupNorm without scale.
pub(super) fn grouped(w: &mut Work, at: usize) -> bool {
    let back = w.node(at);
    let (Op::Reshape { shape }, Some(&y)) = (&back.op, back.inputs.first()) else { return false };
    let shape = shape.clone();
    let Some(norm) = w.maker(y) else { return false };
    let Op::InstanceNorm { eps } = w.node(norm).op else { return false };
    let grouped = w.node(norm).inputs[0];
    let weights: Vec<(Slot, TensorId)> = w.node(norm).weights.iter().map(|(s, t)| (*s, *t)).collect();
    let Some(split) = w.maker(grouped).filter(|n| matches!(w.node(*n).op, Op::Reshape { .. })) else {
        return false;
    };
    let x = w.node(split).inputs[0];
    let (from, mid) = (w.shape(x).clone(), w.shape(grouped).clone());
    let groups = mid.get(1).and_then(Dim::as_int).and_then(|n| usize::try_from(n).ok());
    let channels = from.get(1).and_then(Dim::as_int).and_then(|n| usize::try_from(n).ok());
    let (Some(groups), Some(channels)) = (groups, channels) else { return false };
    let plain = from == shape && from.first() == mid.first() && groups > 0 && channels % groups == 0;
    if !plain || from.len() < 2 {
        return false;
    }
    // Its own scale and bias are by group: they must do nothing.
    if !weights.iter().all(|(slot, t)| w.filled(*t, if *slot == Slot::Weight { 1.0 } else { 0.0 })) {
        return false;
    }
    w.replace(at, Op::GroupNorm { groups, eps }, vec![x], vec![]);
    // The inner norm had its module's path; it is dead now.
    let own = w.node(at).path.clone();
    let inner = w.node(norm).path.clone();
    w.draft.graph.nodes[norm].path = format!("{own}.inner");
    w.draft.graph.nodes[at].path = inner;
    true
}

/// Scale and bias behind a norm without them.
pub(super) fn affine(w: &mut Work, at: usize) -> bool {
    let out = w.node(at).outputs[0];
    let (y, constant, slot) = match (w.binary(out, BinaryFn::Mul), w.binary(out, BinaryFn::Add)) {
        (Some((a, b)), _) => {
            let (y, c) = if w.constant(b).is_some() { (a, b) } else { (b, a) };
            (y, c, Slot::Weight)
        }
        (_, Some((a, b))) => {
            let (y, c) = if w.constant(b).is_some() { (a, b) } else { (b, a) };
            (y, c, Slot::Bias)
        }
        _ => return false,
    };
    let Some(norm) = w.maker(y) else { return false };
    let node = w.node(norm).clone();
    if node.weights.contains_key(&slot)
        || node.weights.contains_key(&Slot::Bias)
        || !w.once(y)
        || w.shape(y) != w.shape(out)
    {
        return false;
    }
    let shape = w.shape(y);
    let size = |i: usize| shape.get(i).and_then(Dim::as_int).and_then(|n| usize::try_from(n).ok());
    let rank = shape.len();
    let row = match node.op {
        Op::LayerNorm { axes: 1, .. } => size(rank - 1).and_then(|n| Some((w.row(constant, n, 0)?, n))),
        Op::RmsNorm { .. } if slot == Slot::Weight => {
            size(rank - 1).and_then(|n| Some((w.row(constant, n, 0)?, n)))
        }
        Op::GroupNorm { .. } | Op::InstanceNorm { .. } if rank > 1 => {
            size(1).and_then(|n| Some((w.row(constant, n, rank - 2)?, n)))
        }
        _ => None,
    };
    let Some((row, n)) = row else { return false };
    let row = w.reshaped(row, vec![n]);
    let mut weights = node.weights.clone();
    weights.insert(slot, row);
    w.replace(at, node.op.clone(), node.inputs.clone(), weights.into_iter().collect());
    // The module's path, where the norm without it had got it.
    let own = w.node(at).path.clone();
    w.draft.graph.nodes[norm].path = format!("{own}.plain");
    w.draft.graph.nodes[at].path = node.path;
    true
}
