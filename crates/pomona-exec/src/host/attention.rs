//! Attention without an N x N buffer: a task takes some queries of one head and keeps one row of logits each.

use rayon::prelude::*;

use super::exp::exp;
use super::{lanes, wide};

/// Queries of one head that a task takes.
const QUERIES: usize = 16;

/// Sizes and rules of an attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Channels of a query or key head.
    pub dk: usize,
    /// Channels of a value head.
    pub dv: usize,
    pub scale: f32,
    pub causal: bool,
    /// Latest keys that a query sees; 0 for all.
    pub window: usize,
    /// 0 for none.
    pub softcap: f32,
}

impl AttentionShape {
    /// Keys that query `i` sees.
    pub(crate) fn visible(&self, i: usize) -> std::ops::Range<usize> {
        if !self.causal {
            return 0..self.keys;
        }
        let end = (i + 1 + self.keys).saturating_sub(self.queries).min(self.keys);
        let start = if self.window == 0 { 0 } else { end.saturating_sub(self.window) };
        start..end
    }
}

wide! {
    /// One query of one head: `logits` is scratch for the visible keys.
    fn one_query(q: &[f32], k: &[f32], v: &[f32], strides: (usize, usize), logits: &mut [f32], out: &mut [f32], rule: (f32, f32)) {
        let (scale, softcap) = rule;
        let mut max = f32::NEG_INFINITY;
        for (j, l) in logits.iter_mut().enumerate() {
            let k = &k[j * strides.0..j * strides.0 + q.len()];
            let mut dot = scale * lanes(q.len(), |i| q[i] * k[i]);
            if softcap > 0.0 {
                dot = softcap * (dot / softcap).tanh();
            }
            *l = dot;
            max = max.max(dot);
        }
        for l in logits.iter_mut() {
            *l = exp(*l - max);
        }
        let sum = lanes(logits.len(), |i| logits[i]);
        out.fill(0.0);
        for (j, l) in logits.iter().enumerate() {
            let v = &v[j * strides.1..j * strides.1 + out.len()];
            for (o, v) in out.iter_mut().zip(v) {
                *o += l * v;
            }
        }
        let scale = 1.0 / sum;
        for o in out.iter_mut() {
            *o *= scale;
        }
    }
}

/// Flat heads in, flat heads out: q `[b, n, heads*dk]`, k `[b, m, kv_heads*dk]`, v `[b, m, kv_heads*dv]`.
pub(crate) fn attention(q: &[f32], k: &[f32], v: &[f32], s: AttentionShape) -> Vec<f32> {
    let (qw, kw, vw, ow) = (s.heads * s.dk, s.kv_heads * s.dk, s.kv_heads * s.dv, s.heads * s.dv);
    let group = s.heads / s.kv_heads;
    let mut out = vec![0.0; s.batch * s.queries * ow];
    // A task owns whole output rows of all heads, so that the output is cut without unsafe code.
    out.par_chunks_mut(QUERIES.min(s.queries.max(1)) * ow).enumerate().for_each(|(t, out)| {
        let mut logits = vec![0.0; s.keys];
        let first = t * QUERIES.min(s.queries.max(1));
        for h in 0..s.heads {
            for (r, out) in out.chunks_exact_mut(ow).enumerate() {
                let row = first + r;
                let (b, i) = (row / s.queries, row % s.queries);
                let seen = s.visible(i);
                let (kb, vb) = (&k[b * s.keys * kw..], &v[b * s.keys * vw..]);
                let (kh, vh) = (h / group * s.dk, h / group * s.dv);
                one_query(
                    &q[row * qw + h * s.dk..row * qw + (h + 1) * s.dk],
                    &kb[seen.start * kw + kh..],
                    &vb[seen.start * vw + vh..],
                    (kw, vw),
                    &mut logits[..seen.len()],
                    &mut out[h * s.dv..(h + 1) * s.dv],
                    (s.scale, s.softcap),
                );
            }
        }
    });
    out
}
