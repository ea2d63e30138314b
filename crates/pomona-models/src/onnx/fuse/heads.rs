//! An operand of decomposed attention, traced back to a value whose channels hold all heads.

use pomona_graph::{BinaryFn, Dim, Op, Shape, SplitMap, ValueId};

use super::Work;
use super::views::{Atom, Axes, merged, reshape, whole};

/// Which of the last two axes holds the tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    TokensFirst,
    ChannelsFirst,
}

/// Where an operand comes from.
pub(super) struct Traced {
    source: ValueId,
    batch: Vec<usize>,
    tokens: Vec<usize>,
    /// An axis of heads of its own, where the channels' axis does not hold them.
    head_axis: Option<usize>,
    channels: usize,
    /// Which part of the channels: part, number of parts, and whether each head has its own parts.
    part: Option<(usize, usize, bool)>,
    /// Heads, those that an expansion repeats not counted.
    pub heads: usize,
    /// How often each head is repeated.
    pub share: usize,
    /// Channels of a head.
    pub width: usize,
    /// Factor that was applied on the way.
    pub scale: f64,
    pub batch_size: Dim,
    pub length: Dim,
}

/// A part of size 1 taken from an axis.
struct Taken {
    axis: usize,
    stride: Dim,
    index: usize,
    count: usize,
}

/// A step back from a value: its node and the index of a Split's output.
type Step = (usize, usize);

fn back(w: &Work, v: ValueId, scalars: bool) -> Option<(Step, ValueId)> {
    let (id, k) = w.producers.get(v.0 as usize).copied().flatten()?;
    if w.rounds(id.0 as usize) {
        return None;
    }
    let node = w.node(id.0 as usize);
    let passes = match &node.op {
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } => true,
        Op::Scalar { function: BinaryFn::Mul | BinaryFn::Div, reversed, .. } => scalars && !reversed,
        Op::Slice { start, end, step: 1, .. } => {
            end.as_int().zip(start.as_int()).is_some_and(|(e, s)| e - s == 1)
        }
        Op::Split { map: SplitMap::Parts { sizes }, .. } => {
            sizes.get(k).is_some_and(|s| s.as_int() == Some(1))
        }
        _ => false,
    };
    passes.then(|| ((id.0 as usize, k), node.inputs[0]))
}

/// Traces an operand `[..., tokens, channels]`, as far back as its axes can be told apart.
pub(super) fn trace(w: &Work, v: ValueId, order: Order, scalars: bool) -> Option<Traced> {
    let mut steps = Vec::new();
    let mut sources = vec![v];
    while let Some((step, source)) = back(w, sources[steps.len()], scalars) {
        steps.push(step);
        sources.push(source);
    }
    (0..=steps.len()).rev().find_map(|n| from(w, sources[n], &steps[..n], order))
}

fn from(w: &Work, source: ValueId, steps: &[Step], order: Order) -> Option<Traced> {
    let shape = w.shape(source);
    let mut axes = whole(shape);
    let mut taken = Vec::new();
    let mut scale = 1.0;
    for (at, k) in steps.iter().rev() {
        let node = w.node(*at);
        axes = match &node.op {
            Op::Reshape { shape } => reshape(&axes, shape)?,
            Op::Transpose { axes: order } => order.iter().map(|a| axes[*a].clone()).collect(),
            Op::Expand { shape } => expanded(&axes, w.shape(node.inputs[0]), shape)?,
            Op::Scalar { function, value, .. } => {
                scale *= if *function == BinaryFn::Mul { *value } else { 1.0 / value };
                axes
            }
            Op::Slice { axis, start, .. } => take(axes, *axis, start.as_int()?, &mut taken)?,
            Op::Split { axis, .. } => take(axes, *axis, *k as i64, &mut taken)?,
            _ => return None,
        };
    }
    let mut axes = merged(&axes);
    let (last, before) = (axes.pop()?, axes.pop()?);
    let (tokens, channels) = if order == Order::TokensFirst { (before, last) } else { (last, before) };
    let [d] = channels.as_slice() else { return None };
    let c = d.axis?;
    let width = size(&d.size)?;
    let leading: Vec<Atom> = axes.concat();
    let own: Vec<&Atom> = leading.iter().filter(|a| a.axis == Some(c)).collect();
    let repeats: Vec<&Atom> = leading.iter().filter(|a| a.axis.is_none()).collect();
    let share = match repeats.as_slice() {
        [] => 1,
        [one] => size(&one.size)?,
        _ => return None,
    };
    let (head, head_axis) = match own.as_slice() {
        [one] => (Some((*one).clone()), None),
        [] if axes.len() >= 2 => {
            // Heads have an axis: the last one before tokens that is not a repetition.
            let list =
                axes.last().filter(|l| l.iter().any(|a| a.axis.is_some())).or(axes.get(axes.len() - 2))?;
            match list.iter().filter(|a| a.axis.is_some()).collect::<Vec<_>>()[..] {
                [one] if size(&one.size).is_some() && is_whole(one, shape) => (Some(one.clone()), one.axis),
                [] => (None, None),
                _ => return None,
            }
        }
        [] => (None, None),
        _ => return None,
    };
    let heads = head.as_ref().map_or(Some(1), |h| size(&h.size))?;
    let batch: Vec<Atom> =
        leading.iter().filter(|a| a.axis.is_some() && Some(*a) != head.as_ref()).cloned().collect();
    // Heads come after the batch, and their repetitions right after them.
    let place = |a: &Atom| leading.iter().position(|b| b == a);
    let ordered = head.as_ref().is_none_or(|h| batch.iter().all(|b| place(b) < place(h)))
        && repeats.first().is_none_or(|r| place(r).is_some_and(|p| p + 1 == leading.len()));
    let entire = batch.iter().chain(&tokens).all(|a| is_whole(a, shape) && a.axis != Some(c));
    if !ordered || !entire {
        return None;
    }
    let part = part_of(shape, c, d, head.as_ref().filter(|_| head_axis.is_none()), &taken)?;
    let axis_of = |list: &[Atom]| list.iter().filter_map(|a| a.axis).collect::<Vec<_>>();
    let (batch, tokens) = (axis_of(&batch), axis_of(&tokens));
    let product = |list: &[usize]| list.iter().try_fold(Dim::from(1), |n, a| n.checked_mul(&shape[*a]).ok());
    let (batch_size, length) = (product(&batch)?, product(&tokens)?);
    Some(Traced {
        source,
        batch,
        tokens,
        head_axis,
        channels: c,
        part,
        heads,
        share,
        width,
        scale,
        batch_size,
        length,
    })
}

fn size(d: &Dim) -> Option<usize> {
    d.as_int().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
}

fn is_whole(a: &Atom, shape: &Shape) -> bool {
    a.axis.is_some_and(|i| shape[i] == a.size)
}

fn expanded(axes: &Axes, from: &Shape, to: &Shape) -> Option<Axes> {
    if from.len() != to.len() {
        return None;
    }
    let one = |((list, a), b): ((&Vec<Atom>, &Dim), &Dim)| match a == b {
        true => Some(list.clone()),
        false if a.as_int() == Some(1) => Some(vec![Atom { axis: None, size: b.clone(), stride: 1.into() }]),
        false => None,
    };
    axes.iter().zip(from).zip(to).map(one).collect()
}

fn take(mut axes: Axes, axis: usize, index: i64, taken: &mut Vec<Taken>) -> Option<Axes> {
    let list = axes.get_mut(axis)?;
    let [atom] = list.as_slice() else { return None };
    let (index, count) = (usize::try_from(index).ok()?, size(&atom.size)?);
    taken.push(Taken { axis: atom.axis?, stride: atom.stride.clone(), index, count });
    list.clear();
    Some(axes)
}

/// Whether heads and their channels, with a taken part, make up the whole axis.
fn part_of(
    shape: &Shape,
    c: usize,
    d: &Atom,
    head: Option<&Atom>,
    taken: &[Taken],
) -> Option<Option<(usize, usize, bool)>> {
    let total = shape[c].as_int()?;
    let width = d.size.as_int()?;
    let heads = head.map_or(Some(1), |h| h.size.as_int())?;
    let stride = |a: &Dim| a.as_int();
    if stride(&d.stride)? != 1 {
        return None;
    }
    match taken {
        [] => {
            let fits = head.is_none_or(|h| stride(&h.stride) == Some(width)) && heads * width == total;
            fits.then_some(None)
        }
        [one] if one.axis == c => {
            let count = one.count as i64;
            if heads * width * count != total {
                return None;
            }
            let outer = stride(&one.stride)? == heads * width
                && head.is_none_or(|h| stride(&h.stride) == Some(width));
            let inner = stride(&one.stride)? == width
                && head.is_none_or(|h| stride(&h.stride) == Some(width * count));
            (outer || inner).then_some(Some((one.index, one.count, !outer)))
        }
        _ => None,
    }
}

/// The operand as `[batch, tokens, heads * width]`, by nodes right before `at`, which moves on.
pub(super) fn flat(w: &mut Work, at: &mut usize, path: &str, t: &Traced) -> ValueId {
    let mut x = t.source;
    if let Some((index, count, by_head)) = t.part {
        x = parted(w, at, path, t, index, count, by_head);
    }
    let shape = w.shape(x).clone();
    let mut order: Vec<usize> =
        t.batch.iter().chain(&t.tokens).chain(&t.head_axis).chain([&t.channels]).copied().collect();
    // Axes of size 1 may stand anywhere: they join the batch.
    let rest: Vec<usize> = (0..shape.len()).filter(|a| !order.contains(a)).collect();
    order.splice(0..0, rest);
    if order.iter().enumerate().any(|(i, a)| i != *a) {
        let turned: Shape = order.iter().map(|a| shape[*a].clone()).collect();
        x = w.insert(*at, &format!("{path}.tokens"), Op::Transpose { axes: order }, vec![x], vec![turned])[0];
        *at += 1;
    }
    let wanted: Shape = vec![t.batch_size.clone(), t.length.clone(), Dim::from(t.heads * t.width)];
    if *w.shape(x) != wanted {
        let op = Op::Reshape { shape: wanted.clone() };
        x = w.insert(*at, &format!("{path}.flat"), op, vec![x], vec![wanted])[0];
        *at += 1;
    }
    x
}

/// One part of a fused projection; operands of the same source share the Split.
fn parted(
    w: &mut Work,
    at: &mut usize,
    path: &str,
    t: &Traced,
    index: usize,
    count: usize,
    by_head: bool,
) -> ValueId {
    let each = Dim::from(if by_head { t.width } else { t.heads * t.width });
    let sizes = vec![each; count];
    let map =
        if by_head { SplitMap::Interleaved { groups: t.heads, sizes } } else { SplitMap::Parts { sizes } };
    let op = Op::Split { axis: t.channels, map };
    let known = w.draft.graph.nodes.iter().position(|n| n.op == op && n.inputs == [t.source]);
    if let Some(known) = known.filter(|k| k < at) {
        return w.node(known).outputs[index];
    }
    let mut shape = w.shape(t.source).clone();
    shape[t.channels] = Dim::from(t.heads * t.width);
    let outputs = w.insert(*at, &format!("{path}.parts"), op, vec![t.source], vec![shape; count]);
    *at += 1;
    outputs[index]
}
