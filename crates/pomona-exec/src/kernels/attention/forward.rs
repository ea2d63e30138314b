//! Values from keys: panels of queries along the lanes, blocks of keys along the depth.

use rayon::prelude::*;

use super::few::few;
use super::panels::{Rows, add_product};
use super::{AttentionShape, KEYS, Mask};
use crate::kernels::gemm::{put_tile, tile};
use crate::kernels::math::{exp, tanh};
use crate::kernels::simd::Simd;
use crate::kernels::tiles::in_tile;
use crate::kernels::{Room, Shared, uninit};

/// Queries up to which laying out the keys would cost more than it brings.
const FEW: usize = 6;

/// The attention's values, and the logarithms of each query's sum of exponentials, `[batch, heads, queries]`.
pub(crate) fn attention(
    [q, k, v]: [&[f32]; 3],
    mask: Option<Mask<'_>>,
    s: AttentionShape,
) -> (Vec<f32>, Vec<f32>) {
    let mut out = uninit(s.batch * s.queries * s.heads * s.dv);
    let mut lse = uninit(s.batch * s.heads * s.queries);
    if out.is_empty() || s.keys == 0 || s.dk == 0 {
        out.fill(0.0);
        lse.fill(0.0);
    } else if s.queries <= FEW {
        few([q, k, v], mask, s, &mut out, &mut lse);
    } else {
        let (o, l) = (Shared::new(&mut out), Shared::new(&mut lse));
        (0..s.batch * s.kv_heads).into_par_iter().for_each(|t| in_tile!(head([q, k, v], mask, s, t, o, l)));
    }
    (out, lse)
}

/// One head of keys and values, with every head of queries that reads it.
#[inline(always)]
fn head<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
    [q, k, v]: [&[f32]; 3],
    mask: Option<Mask<'_>>,
    s: AttentionShape,
    t: usize,
    out: Shared<'_>,
    lse: Shared<'_>,
) {
    let (b, g) = (t / s.kv_heads, t % s.kv_heads);
    let (kw, vw) = (s.kv_heads * s.dk, s.kv_heads * s.dv);
    let keys = Rows::new(k, b * s.keys * kw + g * s.dk, kw, s.dk, s.keys).by_rows::<S, MR>();
    let mut values = Vec::new();
    Rows::new(v, b * s.keys * vw + g * s.dv, vw, s.dv, s.keys).by_channels::<S, MR>(0..s.keys, &mut values);
    let group = s.heads / s.kv_heads;
    let panels = s.queries.div_ceil(NR);
    (0..group * panels).into_par_iter().for_each_init(Scratch::default, |scratch, t| {
        let (h, first) = (g * group + t / panels, t % panels * NR);
        let task = Task { q, keys: &keys, values: &values, mask, s, b, h, first, out, lse };
        in_tile!(panel(&task, scratch));
    });
}

struct Task<'a> {
    q: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    mask: Option<Mask<'a>>,
    s: AttentionShape,
    b: usize,
    h: usize,
    first: usize,
    out: Shared<'a>,
    lse: Shared<'a>,
}

#[derive(Default)]
struct Scratch {
    query: Room,
    logits: Room,
    values: Room,
}

#[inline(always)]
fn panel<S: Simd, const MR: usize, const NV: usize, const NR: usize>(t: &Task<'_>, scratch: &mut Scratch) {
    let s = &t.s;
    let queries = t.first..(t.first + NR).min(s.queries);
    let qw = s.heads * s.dk;
    scratch.query.hold(s.dk * NR);
    Rows::new(t.q, t.b * s.queries * qw + t.h * s.dk, qw, s.dk, s.queries)
        .panel::<S, NR>(t.first, &mut scratch.query);
    scratch.query.iter_mut().for_each(|x| *x *= s.scale);
    scratch.logits.hold((KEYS + MR) * NR);
    let channels = s.dv.div_ceil(MR) * MR;
    scratch.values.hold(channels * NR).fill(0.0);
    let (mut max, mut sum) = ([f32::NEG_INFINITY; NR], [0.0_f32; NR]);
    let reach = s.reach(&queries);
    let mut at = reach.start / MR * MR;
    while at < reach.end {
        let block = at..(at + KEYS).min(reach.end);
        let n = block.len();
        for (p, logits) in scratch.logits.chunks_exact_mut(MR * NR).take(n.div_ceil(MR)).enumerate() {
            let keys = &t.keys[(at + p * MR) * s.dk..][..MR * s.dk];
            // SAFETY: `in_tile` found the set; both panels hold `dk` groups, and the logits a whole tile.
            unsafe {
                let acc = tile::<S, MR, NV>(s.dk, keys.as_ptr(), scratch.query.as_ptr());
                put_tile::<S, MR, NV>(acc, logits.as_mut_ptr(), NR);
            }
        }
        let (logits, _) = scratch.logits[..n * NR].as_chunks_mut::<NR>();
        soften::<S, NR>(logits, s.softcap);
        if !s.all_see(&queries, &block) {
            hide(logits, s, &queries, at);
        }
        if let Some(mask) = &t.mask {
            mask.add(logits, (t.b, t.h), &queries, at);
        }
        let mut now = max;
        for row in logits.iter() {
            for l in 0..NR {
                now[l] = if row[l] > now[l] { row[l] } else { now[l] };
            }
        }
        // A lane that has seen no key yet keeps zeros.
        let base = now.map(|m| if m == f32::NEG_INFINITY { 0.0 } else { m });
        let mut fresh = [0.0_f32; NR];
        for row in logits.iter_mut() {
            for l in 0..NR {
                let e = exp::<S>(row[l] - base[l]);
                row[l] = e;
                fresh[l] += e;
            }
        }
        let mut fade = [0.0_f32; NR];
        for l in 0..NR {
            fade[l] = exp::<S>(max[l] - base[l]);
            sum[l] = S::mul_add(sum[l], fade[l], fresh[l]);
        }
        if max != now {
            for row in scratch.values.as_chunks_mut::<NR>().0 {
                for l in 0..NR {
                    row[l] *= fade[l];
                }
            }
        }
        max = now;
        for (p, values) in scratch.values.chunks_exact_mut(MR * NR).enumerate() {
            let v = &t.values[(p * s.keys + at) * MR..][..n * MR];
            let factors = (v.as_ptr(), scratch.logits.as_ptr());
            // SAFETY: as above, with the block's keys as groups.
            unsafe { add_product::<S, MR, NV>(s.dv - p * MR, n, factors, values.as_mut_ptr()) };
        }
        at = block.end;
    }
    let (values, _) = scratch.values.as_chunks::<NR>();
    for (l, i) in queries.enumerate() {
        let scale = 1.0 / sum[l];
        // SAFETY: the row of this head and query, and its sum, lie within the results and are this task's alone.
        let (row, total) = unsafe {
            let row = t.out.part(((t.b * s.queries + i) * s.heads + t.h) * s.dv, s.dv);
            (row, t.lse.part((t.b * s.heads + t.h) * s.queries + i, 1))
        };
        for (o, v) in row.iter_mut().zip(values) {
            *o = v[l] * scale;
        }
        total[0] = max[l] + sum[l].ln();
    }
}

/// `cap * tanh(logit / cap)`.
#[inline(always)]
pub(super) fn soften<S: Simd, const NR: usize>(logits: &mut [[f32; NR]], cap: f32) {
    if cap > 0.0 {
        for row in logits {
            for x in row {
                *x = cap * tanh::<S>(*x / cap);
            }
        }
    }
}

/// Minus infinity where a query does not see a key. `first` is the key of the first row.
#[inline(always)]
pub(super) fn hide<const NR: usize>(
    logits: &mut [[f32; NR]],
    s: &AttentionShape,
    queries: &std::ops::Range<usize>,
    first: usize,
) {
    for (l, i) in queries.clone().enumerate() {
        let seen = s.visible(i);
        for (j, row) in logits.iter_mut().enumerate() {
            if !seen.contains(&(first + j)) {
                row[l] = f32::NEG_INFINITY;
            }
        }
    }
}
