//! Scaled dot-product attention.

use pomona_graph::AttentionAttrs;

use super::{Count, OpCost, Shapes, elements, times};

/// Operations a score of a softmax: maximum, subtraction, exponential, sum, division.
pub(super) const SOFTMAX_OPS: u64 = 5;

/// q `[.., n, heads*dk]`, k `[.., m, kv_heads*dk]`, output `[.., n, heads*dv]`: `n * m` scores a head of `dk` products
/// each, and as many weighted sums of `dv`. A causal or windowed mask saves nothing in this count.
pub(super) fn attention(s: &Shapes, a: &AttentionAttrs) -> Count<OpCost> {
    let (q, k, out) = (s.input(0)?, s.input(1)?, s.output()?);
    let ([batch @ .., n, q_width], [.., m, _], Some(out_width)) = (q, k, out.last()) else {
        return Err(format!("its inputs have shapes {q:?} and {k:?}, not [batch, tokens, width]"));
    };
    let pairs = times(&[elements(batch)?, *n, *m])?;
    let width = q_width.checked_add(*out_width).ok_or("its widths do not fit 64 bits")?;
    let scale = 1;
    let mask = u64::from(s.inputs.len() > 3);
    let softcap = if a.softcap.is_some() { 3 } else { 0 };
    let per_score = scale + mask + softcap + SOFTMAX_OPS;
    Ok(OpCost {
        macs_full: times(&[pairs, width])?,
        macs_thop: 0,
        other_ops: times(&[pairs, a.heads as u64, per_score])?,
    })
}
