//! Products with a stored matrix and of two values.

use pomona_graph::Slot;

use super::{Count, OpCost, Shapes, elements, other, times};

/// `[..., in] -> [..., out]`: every output element takes `in` products.
pub(super) fn linear(s: &Shapes) -> Count<OpCost> {
    let out = elements(s.output()?)?;
    let weight = s.weight(Slot::Weight)?;
    let [_, width] = weight else { return Err(format!("its weight has shape {weight:?}, not [out, in]")) };
    let macs = times(&[out, *width])?;
    Ok(OpCost { macs_full: macs, macs_thop: macs, ..bias(s, out) })
}

/// `[..., n, k] x [..., k, m]`: not in `thop`, which sees modules only.
pub(super) fn matmul(s: &Shapes) -> Count<OpCost> {
    let Some(k) = s.input(0)?.last() else { return Err("its first input has no axes".to_owned()) };
    Ok(OpCost { macs_full: times(&[elements(s.output()?)?, *k])?, ..OpCost::default() })
}

/// One addition an output element where there is a bias.
pub(super) fn bias(s: &Shapes, out: u64) -> OpCost {
    other(if s.has(Slot::Bias) { out } else { 0 })
}
