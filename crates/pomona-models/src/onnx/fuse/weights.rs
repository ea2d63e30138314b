//! Biases that are added after a product.

use pomona_graph::{BinaryFn, Op, Slot, ValueId};

use super::Work;

/// Linear or convolution, then a constant of one number a channel: its bias.
pub(super) fn biases(w: &mut Work, at: usize) -> bool {
    let out = w.node(at).outputs[0];
    let Some((a, b)) = w.binary(out, BinaryFn::Add) else { return false };
    let Some((layer, bias)) = product(w, a).map(|l| (l, b)).or_else(|| product(w, b).map(|l| (l, a))) else {
        return false;
    };
    let node = w.node(layer);
    let result = node.outputs[0];
    let (op, inputs, mut weights) = (node.op.clone(), node.inputs.clone(), node.weights.clone());
    let path = node.path.clone();
    let Some(id) = weights.get(&Slot::Weight) else { return false };
    let shape = w.graph().tensor(*id).shape.clone();
    let (channels, from_right) = match &op {
        Op::Linear {} => (shape[0], 0),
        Op::Conv(_) => (shape[0], shape.len() - 2),
        Op::ConvTranspose { conv, .. } => (shape[1] * conv.groups, shape.len() - 2),
        _ => return false,
    };
    if weights.contains_key(&Slot::Bias) || !w.once(result) || w.shape(result) != w.shape(out) {
        return false;
    }
    let Some(row) = w.row(bias, channels, from_right) else { return false };
    let row = w.reshaped(row, vec![channels]);
    weights.insert(Slot::Bias, row);
    w.replace(at, op, inputs, weights.into_iter().collect());
    // The whole keeps the layer's path; the layer that is left over is dead.
    let notes = w.draft.graph.annotations.remove(&path);
    let replaced = w.node(at).path.clone();
    w.draft.graph.nodes[layer].path = format!("{path}.without_bias");
    w.draft.graph.nodes[at].path.clone_from(&path);
    if let Some(notes) = notes.or_else(|| w.draft.graph.annotations.remove(&replaced)) {
        w.draft.graph.annotations.insert(path, notes);
    }
    true
}

fn product(w: &Work, v: ValueId) -> Option<usize> {
    // What it reads may be rounded: its annotations go along.
    let at = w.only_maker(v)?;
    matches!(w.node(at).op, Op::Linear {} | Op::Conv(_) | Op::ConvTranspose { .. }).then_some(at)
}
