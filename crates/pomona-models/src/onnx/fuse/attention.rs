//! Attention from its parts: two products around a softmax, between reshapes of heads.

use pomona_graph::{AttentionAttrs, BinaryFn, Dim, Op, Shape, ValueId};

use super::Work;
use super::heads::{Order, Traced, flat, trace};

struct Found {
    q: Traced,
    k: Traced,
    v: Traced,
    mask: Option<ValueId>,
    scale: f64,
}

pub(super) fn fuse(w: &mut Work, at: usize) -> bool {
    let Some(found) = find(w, at) else { return false };
    let Found { q, k, v, mask, scale } = found;
    let attrs = AttentionAttrs {
        heads: q.heads,
        kv_heads: k.heads,
        scale,
        causal: false,
        window: None,
        softcap: None,
    };
    let own = w.node(at).path.clone();
    let module = w.module_path(at);
    let path = if module == own { format!("{own}.attention") } else { module };
    let mut place = at;
    let mut inputs = vec![
        flat(w, &mut place, &format!("{path}.q"), &q),
        flat(w, &mut place, &format!("{path}.k"), &k),
        flat(w, &mut place, &format!("{path}.v"), &v),
    ];
    inputs.extend(mask);
    let wide: Shape = vec![q.batch_size.clone(), q.length.clone(), Dim::from(q.heads * v.width)];
    let out = w.node(place).outputs[0];
    let target = w.shape(out).clone();
    if target == wide && q.heads == 1 {
        let node = &mut w.draft.graph.nodes[place];
        node.op = Op::Attention(attrs);
        node.inputs = inputs;
        return true;
    }
    // The path was taken for the attention itself.
    w.paths.remove(&path);
    let mut y = w.insert(place, &path, Op::Attention(attrs), inputs, vec![wide])[0];
    place += 1;
    let split: Shape = vec![q.batch_size.clone(), q.length.clone(), q.heads.into(), v.width.into()];
    y = w.insert(place, &format!("{path}.heads"), Op::Reshape { shape: split.clone() }, vec![y], vec![split])
        [0];
    place += 1;
    let by_head: Shape = vec![q.batch_size.clone(), q.heads.into(), q.length.clone(), v.width.into()];
    let order = Op::Transpose { axes: vec![0, 2, 1, 3] };
    let node = &mut w.draft.graph.nodes[place];
    if by_head == target {
        (node.op, node.inputs) = (order, vec![y]);
        return true;
    }
    y = w.insert(place, &format!("{path}.by_head"), order, vec![y], vec![by_head])[0];
    place += 1;
    let node = &mut w.draft.graph.nodes[place];
    (node.op, node.inputs) = (Op::Reshape { shape: target }, vec![y]);
    true
}

fn find(w: &Work, at: usize) -> Option<Found> {
    let node = w.node(at);
    let Op::MatMul { transpose_b } = node.op else { return None };
    let (p, values) = (node.inputs[0], node.inputs[1]);
    let softmax = w.node(w.maker(p)?);
    let rank = w.shape(p).len();
    match softmax.op {
        Op::Softmax { axis, log: false } if axis + 1 == rank && w.once(p) => {}
        _ => return None,
    }
    let (product, mask, scale) = logits(w, softmax.inputs[0])?;
    let logits = w.node(w.maker(product)?);
    let Op::MatMul { transpose_b: keys_by_token } = logits.op else { return None };
    let order = |by_token: bool| if by_token { Order::TokensFirst } else { Order::ChannelsFirst };
    let q = trace(w, logits.inputs[0], Order::TokensFirst, true)?;
    let k = trace(w, logits.inputs[1], order(keys_by_token), true)?;
    let v = trace(w, values, order(!transpose_b), false)?;
    let fits = q.share == 1
        && k.heads * k.share == q.heads
        && v.heads == k.heads
        && v.share == k.share
        && q.width == k.width
        && k.length == v.length
        && q.batch_size == k.batch_size
        && q.batch_size == v.batch_size
        && mask.is_none_or(|m| fits_mask(w, m, rank, q.heads));
    let scale = scale * q.scale * k.scale;
    fits.then_some(Found { q, k, v, mask, scale })
}

/// A mask that means the same for `[batch, heads, queries, keys]` as for the file's logits.
fn fits_mask(w: &Work, mask: ValueId, rank: usize, heads: usize) -> bool {
    let shape = w.shape(mask);
    let plain = |i: usize| shape.len() <= i || shape[shape.len() - 1 - i].as_int() == Some(1);
    match rank {
        4 => shape.len() <= 4,
        // Batch and heads share an axis.
        3 => shape.len() <= 2 || (plain(2) && shape.len() == 3) || (heads == 1 && shape.len() <= 2),
        _ => false,
    }
}

/// Under the softmax: a product of values, the mask that is added, and the factor.
fn logits(w: &Work, v: ValueId) -> Option<(ValueId, Option<ValueId>, f64)> {
    if let Some((x, scale)) = scaled(w, v) {
        return Some((x, None, scale));
    }
    let (a, b) = w.binary(v, BinaryFn::Add)?;
    let with = |x: ValueId, mask: ValueId| scaled(w, x).map(|(x, scale)| (x, Some(mask), scale));
    with(a, b).or_else(|| with(b, a))
}

fn scaled(w: &Work, v: ValueId) -> Option<(ValueId, f64)> {
    let (mut v, mut scale) = (v, 1.0);
    loop {
        if matches!(w.node(w.maker(v)?).op, Op::MatMul { .. }) {
            return Some((v, scale));
        }
        if let Some((x, f)) = w.scalar(v, BinaryFn::Mul) {
            (v, scale) = (x, scale * f);
        } else if let Some((x, f)) = w.scalar(v, BinaryFn::Div) {
            (v, scale) = (x, scale / f);
        } else {
            return None;
        }
    }
}
