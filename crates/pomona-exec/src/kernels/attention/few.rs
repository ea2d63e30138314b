//! A few queries, as in decoding: keys are read once, in place.

use rayon::prelude::*;

use super::{AttentionShape, Mask};
use crate::kernels::math::{dot, exponentials, largest, tanh};
use crate::kernels::simd::simd;

simd! {
    /// One query of one head: `logits` is scratch for the visible keys. Gives the logarithm of the sum of exponentials.
    fn one_query<S>(q: &[f32], k: &[f32], v: &[f32], strides: [usize; 2], mask: Option<(&[f32], usize)>, logits: &mut [f32], out: &mut [f32], rule: [f32; 2]) -> f32 {
        let [scale, softcap] = rule;
        for (j, l) in logits.iter_mut().enumerate() {
            let d = scale * dot::<S>(q, &k[j * strides[0]..j * strides[0] + q.len()]);
            *l = if softcap > 0.0 { softcap * tanh::<S>(d / softcap) } else { d };
        }
        if let Some((mask, step)) = mask {
            logits.iter_mut().enumerate().for_each(|(j, l)| *l += mask[j * step]);
        }
        let max = largest(logits);
        let total = exponentials::<S>(logits, max);
        out.fill(0.0);
        for (j, l) in logits.iter().enumerate() {
            let v = &v[j * strides[1]..j * strides[1] + out.len()];
            for (o, v) in out.iter_mut().zip(v) {
                *o = S::mul_add(*l, *v, *o);
            }
        }
        let scale = 1.0 / total;
        for o in out.iter_mut() {
            *o *= scale;
        }
        max + total.ln()
    }
}

/// Writes `out` `[batch, queries, heads * dv]` and the logarithms of the sums, `[batch, heads, queries]`.
pub(super) fn few(
    [q, k, v]: [&[f32]; 3],
    mask: Option<Mask<'_>>,
    s: AttentionShape,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let (qw, kw, vw) = (s.heads * s.dk, s.kv_heads * s.dk, s.kv_heads * s.dv);
    let group = s.heads / s.kv_heads;
    let heads: Vec<(usize, &mut [f32])> = out.chunks_exact_mut(s.dv).enumerate().collect();
    let found: Vec<(usize, f32)> = heads
        .into_par_iter()
        .map_init(Vec::new, |logits, (at, out)| {
            let (row, h) = (at / s.heads, at % s.heads);
            let (b, i) = (row / s.queries, row % s.queries);
            let seen = s.visible(i);
            logits.resize(seen.len(), 0.0);
            let (kh, vh) = (h / group * s.dk, h / group * s.dv);
            let mask = mask.map(|m| m.row(b, h, i)).map(|(row, step)| (&row[seen.start * step..], step));
            let total = one_query(
                &q[row * qw + h * s.dk..row * qw + (h + 1) * s.dk],
                &k[(b * s.keys + seen.start) * kw + kh..],
                &v[(b * s.keys + seen.start) * vw + vh..],
                [kw, vw],
                mask,
                logits,
                out,
                [s.scale, s.softcap],
            );
            ((b * s.heads + h) * s.queries + i, total)
        })
        .collect();
    for (at, total) in found {
        lse[at] = total;
    }
}
