//! Gradients of queries, keys and values. Logits are made again, a block of keys and a few panels of queries at a time.

use std::ops::Range;

use rayon::prelude::*;

use super::forward::hide;
use super::panels::{Rows, add_product};
use super::{AttentionShape, KEYS, Mask};
use crate::kernels::gemm::{add_tile, put_tile, tile};
use crate::kernels::math::{dot, exp, tanh};
use crate::kernels::simd::Simd;
use crate::kernels::tiles::in_tile;
use crate::kernels::{Room, Shared, uninit};

/// Panels of queries that are summed over before a tile of the keys' gradients is written.
const PANELS: usize = 4;
/// Tasks that the work is cut into where there are queries for them.
const TASKS: usize = 8;

/// What was read and made forward: q, k, v, a mask, the values and the logarithms of the sums.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub mask: Option<Mask<'a>>,
    pub out: &'a [f32],
    pub lse: &'a [f32],
}

/// Gradients of q, k and v.
pub(crate) fn attention_back(known: Known<'_>, above: &[f32], s: AttentionShape) -> [Vec<f32>; 3] {
    let mut dq = uninit(known.q.len());
    let (mut dk, mut dv) = (vec![0.0; known.k.len()], vec![0.0; known.v.len()]);
    if above.is_empty() || s.keys == 0 || s.dk == 0 || s.dv == 0 {
        dq.fill(0.0);
        return [dq, dk, dv];
    }
    // Queries are shared out as well where there are few heads; each share sums the keys' gradients of its own.
    let shares = TASKS.div_ceil(s.batch * s.heads).min(s.queries.div_ceil(64)).max(1);
    let size = s.queries.div_ceil(shares);
    let out = Shared::new(&mut dq);
    let group = s.heads / s.kv_heads;
    for b in 0..s.batch {
        let parts: Vec<(usize, Vec<f32>, Vec<f32>)> = (0..s.heads * shares)
            .into_par_iter()
            .map(|t| {
                let (h, share) = (t / shares, t % shares);
                let queries = (share * size).min(s.queries)..((share + 1) * size).min(s.queries);
                let (dk, dv) = in_tile!(head(&known, above, s, (b, h), queries, out));
                (h / group, dk, dv)
            })
            .collect();
        // In the order of heads and shares, whoever made them.
        for (g, k, v) in &parts {
            let at = (b * s.keys * s.kv_heads + g) * s.dk;
            add_rows(k, k.len() / s.keys, &mut dk[at..], s.kv_heads * s.dk, s.dk);
            let at = (b * s.keys * s.kv_heads + g) * s.dv;
            add_rows(v, v.len() / s.keys, &mut dv[at..], s.kv_heads * s.dv, s.dv);
        }
    }
    [dq, dk, dv]
}

fn add_rows(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize, width: usize) {
    for (from, to) in from.chunks_exact(from_stride).zip(to.chunks_mut(to_stride)) {
        to[..width].iter_mut().zip(from).for_each(|(t, f)| *t += f);
    }
}

/// Scratch of one panel of queries.
struct Panel<const NR: usize> {
    queries: Range<usize>,
    /// `[dk][NR]`, scaled, and `[dv][NR]`.
    query: Room,
    above: Room,
    /// The same by rows: `[width / NR][NR queries][NR]`.
    query_rows: Room,
    above_rows: Room,
    lse: [f32; NR],
    /// Sum of values times their gradients.
    delta: [f32; NR],
    /// `[dk][NR]`.
    dq: Room,
    /// `[keys of the block][NR]`.
    weights: Room,
    slopes: Room,
}

/// One head of queries: writes its gradient, gives those of its keys and values, rows padded to whole tiles.
#[inline(always)]
fn head<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
    known: &Known<'_>,
    above: &[f32],
    s: AttentionShape,
    (b, h): (usize, usize),
    queries: Range<usize>,
    dq: Shared<'_>,
) -> (Vec<f32>, Vec<f32>) {
    let g = h / (s.heads / s.kv_heads);
    let (qw, ow) = (s.heads * s.dk, s.heads * s.dv);
    let (kw, vw) = (s.kv_heads * s.dk, s.kv_heads * s.dv);
    let k = Rows::new(known.k, b * s.keys * kw + g * s.dk, kw, s.dk, s.keys);
    let v = Rows::new(known.v, b * s.keys * vw + g * s.dv, vw, s.dv, s.keys);
    let q = Rows::new(known.q, b * s.queries * qw + h * s.dk, qw, s.dk, s.queries);
    let o = Rows::new(known.out, b * s.queries * ow + h * s.dv, ow, s.dv, s.queries);
    let up = Rows::new(above, b * s.queries * ow + h * s.dv, ow, s.dv, s.queries);
    let (keys, values) = (k.by_rows::<S, MR>(), v.by_rows::<S, MR>());
    let mut turned = Vec::new();
    k.by_channels::<S, MR>(0..s.keys, &mut turned);
    let (kp, vp) = (s.dk.div_ceil(NR), s.dv.div_ceil(NR));
    // `[key panels][width / NR][MR keys][NR]`, so that a tile lies in one piece.
    let blocks = s.keys.div_ceil(MR);
    let (mut dk, mut dv) = (vec![0.0_f32; blocks * kp * MR * NR], vec![0.0_f32; blocks * vp * MR * NR]);
    for first in queries.clone().step_by(PANELS * NR) {
        let end = (first + PANELS * NR).min(queries.end);
        // A loop: within an iterator's closure the set's instructions would be calls.
        let mut panels: Vec<Panel<NR>> = Vec::with_capacity(PANELS);
        for i in (first..end).step_by(NR) {
            panels.push(prepare::<S, MR, NR>([&q, &o, &up], &s, known.lse, (b, h), i..(i + NR).min(end)));
        }
        let reach = s.reach(&(first..end));
        let mut at = reach.start / MR * MR;
        while at < reach.end {
            let block = at..(at + KEYS).min(reach.end);
            let n = block.len();
            for p in &mut panels {
                slopes::<S, MR, NV, NR>(p, &s, &block, (&keys, &values), (known.mask, b, h));
                for (c, dq) in p.dq.chunks_exact_mut(MR * NR).enumerate() {
                    let k = &turned[(c * s.keys + at) * MR..][..n * MR];
                    let factors = (k.as_ptr(), p.slopes.as_ptr());
                    // SAFETY: the set was found; both panels hold `n` groups, and the gradient a whole tile.
                    unsafe { add_product::<S, MR, NV>(s.dk - c * MR, n, factors, dq.as_mut_ptr()) };
                }
            }
            for m in 0..n.div_ceil(MR) {
                let key = at / MR + m;
                for c in 0..vp {
                    let to = &mut dv[(key * vp + c) * MR * NR..][..MR * NR];
                    rank::<S, MR, NV, NR>(&panels, |p| (&p.weights, &p.above_rows), (m, c, s.dv), to);
                }
                for c in 0..kp {
                    let to = &mut dk[(key * kp + c) * MR * NR..][..MR * NR];
                    rank::<S, MR, NV, NR>(&panels, |p| (&p.slopes, &p.query_rows), (m, c, s.dk), to);
                }
            }
            at = block.end;
        }
        for p in &panels {
            let (rows, _) = p.dq.as_chunks::<NR>();
            for (l, i) in p.queries.clone().enumerate() {
                // SAFETY: the row of this head and query lies within the gradient and is this task's alone.
                let out = unsafe { dq.part(((b * s.queries + i) * s.heads + h) * s.dk, s.dk) };
                for (o, x) in out.iter_mut().zip(rows) {
                    *o = s.scale * x[l];
                }
            }
        }
    }
    (by_key::<MR, NR>(&dk, kp, s.keys), by_key::<MR, NR>(&dv, vp, s.keys))
}

/// Tiles `[key panels][width / NR][MR][NR]` as rows `[keys][width]`, padded.
#[inline(always)]
fn by_key<const MR: usize, const NR: usize>(tiles: &[f32], panels: usize, keys: usize) -> Vec<f32> {
    let mut out = uninit(keys * panels * NR);
    for (key, out) in out.chunks_exact_mut(panels * NR).enumerate() {
        for (c, out) in out.chunks_exact_mut(NR).enumerate() {
            out.copy_from_slice(&tiles[((key / MR * panels + c) * MR + key % MR) * NR..][..NR]);
        }
    }
    out
}

#[inline(always)]
fn prepare<S: Simd, const MR: usize, const NR: usize>(
    [q, o, up]: [&Rows<'_>; 3],
    s: &AttentionShape,
    lse: &[f32],
    (b, h): (usize, usize),
    queries: Range<usize>,
) -> Panel<NR> {
    let n = queries.len();
    // Rows of other tasks do not count: a panel ends where the share does.
    let count = queries.end;
    let mut query = Room::new(s.dk * NR);
    Rows { count, ..*q }.panel::<S, NR>(queries.start, &mut query);
    query.iter_mut().for_each(|x| *x *= s.scale);
    let mut above = Room::new(s.dv * NR);
    Rows { count, ..*up }.panel::<S, NR>(queries.start, &mut above);
    let by_rows = |panel: &[f32], width: usize| {
        let mut out = Room::zeros(width.div_ceil(NR) * NR * NR);
        for (c, lanes) in panel.chunks_exact(NR).enumerate() {
            for (l, x) in lanes.iter().enumerate() {
                out[(c / NR * NR + l) * NR + c % NR] = *x;
            }
        }
        out
    };
    let (query_rows, above_rows) = (by_rows(&query, s.dk), by_rows(&above, s.dv));
    let mut p = Panel {
        query,
        above,
        query_rows,
        above_rows,
        lse: [0.0; NR],
        delta: [0.0; NR],
        dq: Room::zeros(s.dk.div_ceil(MR) * MR * NR),
        weights: Room::zeros((KEYS + MR) * NR),
        slopes: Room::zeros((KEYS + MR) * NR),
        queries: queries.clone(),
    };
    p.lse[..n].copy_from_slice(&lse[(b * s.heads + h) * s.queries + queries.start..][..n]);
    for (l, i) in queries.enumerate() {
        let (o, up) = (&o.data[i * o.stride..][..s.dv], &up.data[i * up.stride..][..s.dv]);
        p.delta[l] = dot::<S>(o, up);
    }
    p
}

/// Weights of a block of keys for a panel of queries, and the gradients of their logits.
#[inline(always)]
fn slopes<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
    p: &mut Panel<NR>,
    s: &AttentionShape,
    block: &Range<usize>,
    (keys, values): (&[f32], &[f32]),
    (mask, b, h): (Option<Mask<'_>>, usize, usize),
) {
    let n = block.len();
    for m in 0..n.div_ceil(MR) {
        let at = block.start + m * MR;
        let to = m * MR * NR..(m + 1) * MR * NR;
        let (k, v) = (&keys[at * s.dk..][..MR * s.dk], &values[at * s.dv..][..MR * s.dv]);
        // SAFETY: the set was found; the panels hold `dk` and `dv` groups, and the places whole tiles.
        unsafe {
            let acc = tile::<S, MR, NV>(s.dk, k.as_ptr(), p.query.as_ptr());
            put_tile::<S, MR, NV>(acc, p.weights[to.clone()].as_mut_ptr(), NR);
            let acc = tile::<S, MR, NV>(s.dv, v.as_ptr(), p.above.as_ptr());
            put_tile::<S, MR, NV>(acc, p.slopes[to].as_mut_ptr(), NR);
        }
    }
    let lanes = p.queries.len();
    let (logits, _) = p.weights[..n * NR].as_chunks_mut::<NR>();
    let (slopes, _) = p.slopes[..n * NR].as_chunks_mut::<NR>();
    let cap = s.softcap;
    let mut bend = Vec::new();
    if cap > 0.0 {
        bend.resize(n * NR, 0.0);
        for (row, bend) in logits.iter_mut().zip(bend.as_chunks_mut::<NR>().0) {
            for l in 0..NR {
                let t = tanh::<S>(row[l] / cap);
                row[l] = cap * t;
                bend[l] = 1.0 - t * t;
            }
        }
    }
    if !s.all_see(&p.queries, block) {
        hide(logits, s, &p.queries, block.start);
    }
    if let Some(mask) = mask {
        mask.add(logits, (b, h), &p.queries, block.start);
    }
    for (row, slope) in logits.iter_mut().zip(slopes.iter_mut()) {
        for l in 0..NR {
            let w = exp::<S>(row[l] - p.lse[l]);
            row[l] = w;
            slope[l] = w * (slope[l] - p.delta[l]);
        }
        // Lanes without a query.
        row[lanes..].fill(0.0);
        slope[lanes..].fill(0.0);
    }
    if cap > 0.0 {
        for (slope, bend) in slopes.iter_mut().zip(bend.as_chunks::<NR>().0) {
            for l in 0..NR {
                slope[l] *= bend[l];
            }
        }
    }
    // The last tile's rows beyond the block are read, but what they give is of no key.
    p.weights[n * NR..].fill(0.0);
    p.slopes[n * NR..].fill(0.0);
}

/// Adds, for the `m`-th tile of keys and `c`-th of `width` channels, the sum over all queries of the panels.
#[inline(always)]
fn rank<'a, S: Simd, const MR: usize, const NV: usize, const NR: usize>(
    panels: &'a [Panel<NR>],
    of: impl Fn(&'a Panel<NR>) -> (&'a [f32], &'a [f32]),
    (m, c, width): (usize, usize, usize),
    to: &mut [f32],
) {
    // A head's last channels may fill one register of a tile's two.
    if NV > 1 && width - c * NR <= S::LANES {
        rank_of::<S, MR, 1, NR>(panels, of, m, c, to);
    } else {
        rank_of::<S, MR, NV, NR>(panels, of, m, c, to);
    }
}

/// As [`rank`], for the first `N` registers of the channels.
#[inline(always)]
fn rank_of<'a, S: Simd, const MR: usize, const N: usize, const NR: usize>(
    panels: &'a [Panel<NR>],
    of: impl Fn(&'a Panel<NR>) -> (&'a [f32], &'a [f32]),
    m: usize,
    c: usize,
    to: &mut [f32],
) {
    // SAFETY: the set was found; slices are checked to hold whole tiles and `NR` rows of registers.
    unsafe {
        let mut acc = [[S::zero(); N]; MR];
        for p in panels {
            let (left, right) = of(p);
            let (left, right) = (&left[m * MR * NR..][..MR * NR], &right[c * NR * NR..][..NR * NR]);
            for l in 0..p.queries.len() {
                let mut row = [S::zero(); N];
                for (v, r) in row.iter_mut().enumerate() {
                    *r = S::load(right.as_ptr().add(l * NR + v * S::LANES));
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = S::splat(*left.as_ptr().add(i * NR + l));
                    for (a, r) in acc.iter_mut().zip(row) {
                        *a = S::fma(x, r, *a);
                    }
                }
            }
        }
        assert!(to.len() >= MR * NR, "a whole tile");
        add_tile::<S, MR, N>(acc, to.as_mut_ptr(), NR);
    }
}
