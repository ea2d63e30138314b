#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::{AttentionShape, Known, Mask, attention, attention_back};
use crate::kernels::simd::{Level, with};
use crate::kernels::tests::noise;

/// Values and the gradients of q, k and v in double precision, by the definition.
fn definition([q, k, v, up]: [&[f32]; 4], mask: Option<Mask<'_>>, s: AttentionShape) -> [Vec<f64>; 4] {
    let (qw, kw, vw, ow) = (s.heads * s.dk, s.kv_heads * s.dk, s.kv_heads * s.dv, s.heads * s.dv);
    let mut out = vec![0.0; up.len()];
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let at = |v: &[f32], i: usize| f64::from(v[i]);
    for b in 0..s.batch {
        for h in 0..s.heads {
            let g = h / (s.heads / s.kv_heads);
            for i in 0..s.queries {
                let (qi, oi) = ((b * s.queries + i) * qw + h * s.dk, (b * s.queries + i) * ow + h * s.dv);
                let seen = s.visible(i);
                let ki = |j: usize| (b * s.keys + j) * kw + g * s.dk;
                let vi = |j: usize| (b * s.keys + j) * vw + g * s.dv;
                let logit = |j: usize| {
                    let d: f64 = (0..s.dk).map(|c| at(q, qi + c) * at(k, ki(j) + c)).sum();
                    f64::from(s.scale) * d
                };
                let cap = f64::from(s.softcap);
                let soft = |x: f64| if cap > 0.0 { cap * (x / cap).tanh() } else { x };
                let bend = |x: f64| if cap > 0.0 { 1.0 - (x / cap).tanh().powi(2) } else { 1.0 };
                let masked = |j: usize| {
                    let [x, y, z, w] = mask.map_or([0; 4], |m| m.strides);
                    mask.map_or(0.0, |m| f64::from(m.values[b * x + h * y + i * z + j * w]))
                };
                let total: f64 = seen.clone().map(|j| (soft(logit(j)) + masked(j)).exp()).sum();
                let weight: Vec<f64> =
                    seen.clone().map(|j| (soft(logit(j)) + masked(j)).exp() / total).collect();
                for (w, j) in weight.iter().zip(seen.clone()) {
                    (0..s.dv).for_each(|c| out[oi + c] += w * at(v, vi(j) + c));
                }
                let slope: Vec<f64> = seen
                    .clone()
                    .map(|j| (0..s.dv).map(|c| at(up, oi + c) * at(v, vi(j) + c)).sum())
                    .collect();
                let mean: f64 = slope.iter().zip(&weight).map(|(d, w)| d * w).sum();
                for ((d, w), j) in slope.iter().zip(&weight).zip(seen) {
                    let ds = w * (d - mean) * bend(logit(j)) * f64::from(s.scale);
                    (0..s.dk).for_each(|c| dq[qi + c] += ds * at(k, ki(j) + c));
                    (0..s.dk).for_each(|c| dk[ki(j) + c] += ds * at(q, qi + c));
                    (0..s.dv).for_each(|c| dv[vi(j) + c] += w * at(up, oi + c));
                }
            }
        }
    }
    [out, dq, dk, dv]
}

fn check(s: AttentionShape) {
    check_with(None, s);
}

/// With a mask that differs along the axes that are named; a third of its places are hidden for good.
fn check_masked(axes: [bool; 4], s: AttentionShape) {
    let sizes = [s.batch, s.heads, s.queries, s.keys];
    let mut strides = [0; 4];
    let mut size = 1;
    for d in (0..4).rev().filter(|d| axes[*d]) {
        (strides[d], size) = (size, size * sizes[d]);
    }
    let mut values = noise(5, size);
    for v in &mut values {
        *v = if *v < -0.33 { f32::NEG_INFINITY } else { 2.0 * *v };
    }
    // Every query sees the last of its keys.
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in 0..s.queries {
                let key = s.visible(i).end - 1;
                values[b * strides[0] + h * strides[1] + i * strides[2] + key * strides[3]] = 0.5;
            }
        }
    }
    check_with(Some(Mask { values: &values, strides }), s);
}

fn check_with(mask: Option<Mask<'_>>, s: AttentionShape) {
    let noise = |seed, n: usize| noise(seed, n).iter().map(|x| 2.0 * x).collect::<Vec<f32>>();
    let q = noise(1, s.batch * s.queries * s.heads * s.dk);
    let k = noise(2, s.batch * s.keys * s.kv_heads * s.dk);
    let v = noise(3, s.batch * s.keys * s.kv_heads * s.dv);
    let up = noise(4, s.batch * s.queries * s.heads * s.dv);
    let want = definition([&q, &k, &v, &up], mask, s);
    for level in Level::all() {
        let run = || {
            let (out, lse) = attention([&q, &k, &v], mask, s);
            let known = Known { q: &q, k: &k, v: &v, mask, out: &out, lse: &lse };
            let [dq, dk, dv] = attention_back(known, &up, s);
            [out, dq, dk, dv]
        };
        let one = with(level, 1, run);
        assert!(one == with(level, 3, run), "threads change the result: {level:?} {s:?}");
        for ((got, want), what) in one.iter().zip(&want).zip(["values", "q", "k", "v"]) {
            let scale = want.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
            for (i, (g, w)) in got.iter().zip(want).enumerate() {
                assert!(
                    (f64::from(*g) - w).abs() <= 1e-5 * scale,
                    "{level:?} {what}[{i}]: {g}, by definition {w}; {s:?}"
                );
            }
        }
    }
}

const PLAIN: AttentionShape = AttentionShape {
    batch: 1,
    queries: 70,
    keys: 90,
    heads: 3,
    kv_heads: 3,
    dk: 20,
    dv: 20,
    scale: 0.22,
    causal: false,
    window: 0,
    softcap: 0.0,
};

#[test]
fn forms_of_attention() {
    check(PLAIN);
    // Several blocks of keys, one of them partly seen.
    check(AttentionShape {
        batch: 2,
        queries: 300,
        keys: 300,
        heads: 4,
        kv_heads: 2,
        dk: 8,
        dv: 12,
        causal: true,
        ..PLAIN
    });
    check(AttentionShape {
        queries: 300,
        keys: 340,
        heads: 2,
        kv_heads: 1,
        dk: 5,
        dv: 7,
        causal: true,
        window: 33,
        ..PLAIN
    });
    check(AttentionShape { queries: 19, keys: 530, heads: 1, kv_heads: 1, softcap: 1.5, ..PLAIN });
    check(AttentionShape { queries: 2, keys: 41, causal: true, ..PLAIN });
    check(AttentionShape { queries: 1, keys: 1, heads: 1, kv_heads: 1, dk: 1, dv: 1, ..PLAIN });
    check(AttentionShape { batch: 0, ..PLAIN });
}

#[test]
fn masks() {
    check_masked([true; 4], PLAIN);
    check_masked([false, false, true, true], AttentionShape { batch: 2, heads: 4, kv_heads: 2, ..PLAIN });
    check_masked([true, false, false, true], AttentionShape { batch: 2, queries: 40, keys: 600, ..PLAIN });
    check_masked([false, true, true, true], AttentionShape { queries: 3, causal: true, ..PLAIN });
    check_masked(
        [true, true, true, true],
        AttentionShape { causal: true, softcap: 1.5, window: 40, ..PLAIN },
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_shape(
        (batch, queries, more) in (1_usize..3, 1_usize..40, 0_usize..20),
        (kv_heads, group) in (1_usize..3, 1_usize..4),
        (dk, dv) in (1_usize..24, 1_usize..24),
        (causal, window, softcap) in (any::<bool>(), 0_usize..12, prop_oneof![Just(0.0_f32), Just(2.0)]),
    ) {
        let (heads, keys) = (kv_heads * group, queries + more);
        check(AttentionShape { batch, queries, keys, heads, kv_heads, dk, dv, scale: 0.3, causal, window, softcap });
    }
}
