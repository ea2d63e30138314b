//! Tests: kernels that are no products against their definitions in double precision, with each instruction set and on one
//! and three threads.

#![allow(clippy::unwrap_used, reason = "tests")]

use pomona_graph::{Activation, RopePairing};
use proptest::prelude::*;

use super::simd::{Level, with};
use super::tests::noise;
use super::*;
use crate::tensor::Tensor;
use crate::{AdamW, Device, Moving};

/// Runs with every set, and holds that threads change no bit and that the set's result is near the definition's.
fn check(what: &str, want: &[Vec<f64>], run: impl Fn() -> Vec<Vec<f32>> + Sync + Send) {
    for level in Level::all() {
        let one = with(level, 1, &run);
        assert!(one == with(level, 3, &run), "{what}: threads change the result with {level:?}");
        assert_eq!(one.len(), want.len(), "{what}");
        for (k, (got, want)) in one.iter().zip(want).enumerate() {
            assert_eq!(got.len(), want.len(), "{what}, part {k}");
            let scale = want.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
            for (i, (g, w)) in got.iter().zip(want).enumerate() {
                let near = (f64::from(*g) - w).abs() <= 2e-5 * scale;
                assert!(near, "{what} with {level:?}, part {k}, element {i}: {g}, by definition {w}");
            }
        }
    }
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|x| f64::from(*x)).collect()
}

/// Values and the gradients of x, weight and bias of `(x - mean) / deviation * weight + bias` for sets of elements that share
/// moments, each element with the number of its weight.
fn normalised(
    x: &[f32],
    up: &[f32],
    weight: &[f32],
    bias: &[f32],
    sets: &[Vec<(usize, usize)>],
    centred: bool,
) -> Vec<Vec<f64>> {
    let (x, up, weight, bias) = (wide(x), wide(up), wide(weight), wide(bias));
    let mut out =
        vec![vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; bias.len()]];
    for set in sets {
        let n = set.len() as f64;
        let mean = if centred { set.iter().map(|(i, _)| x[*i]).sum::<f64>() / n } else { 0.0 };
        let scale = (set.iter().map(|(i, _)| (x[*i] - mean).powi(2)).sum::<f64>() / n + EPS).sqrt().recip();
        let normal = |i: usize| (x[i] - mean) * scale;
        let one = if centred { set.iter().map(|(i, w)| up[*i] * weight[*w]).sum::<f64>() / n } else { 0.0 };
        let two = set.iter().map(|(i, w)| up[*i] * weight[*w] * normal(*i)).sum::<f64>() / n;
        for &(i, w) in set {
            out[0][i] = normal(i) * weight[w] + bias[w];
            out[1][i] = scale * (up[i] * weight[w] - one - normal(i) * two);
            out[2][w] += up[i] * normal(i);
            out[3][w] += up[i];
        }
    }
    out
}

const EPS: f64 = 1e-3;

fn rows(count: usize, n: usize, centred: bool) {
    let (x, up) = (noise(1, count * n), noise(2, count * n));
    let (weight, bias) = (noise(3, n), noise(4, n));
    let sets: Vec<Vec<_>> = (0..count).map(|r| (0..n).map(|i| (r * n + i, i)).collect()).collect();
    let want = normalised(&x, &up, &weight, &bias, &sets, centred);
    check("rows", &want, || {
        let (y, moments) = norm(&x, &weight, &bias, EPS as f32, centred);
        let [dx, dw, db] = norm_back(&x, &up, &weight, &moments, centred);
        vec![y, dx, dw, db]
    });
}

fn channels(p: Planes, groups: usize) {
    let n = p.batch * p.channels * p.space;
    let (x, up) = (noise(1, n), noise(2, n));
    let (weight, bias) = (noise(3, p.channels), noise(4, p.channels));
    let width = p.channels / groups;
    let at = |b: usize, c: usize, s: usize| ((b * p.channels + c) * p.space + s, c);
    let plane = |b: usize, c: usize| (0..p.space).map(move |s| at(b, c, s));
    let sets: Vec<Vec<_>> = (0..p.batch * groups)
        .map(|g| (0..width).flat_map(|c| plane(g / groups, g % groups * width + c)).collect())
        .collect();
    let after = After { weight: &weight, bias: &bias, then: None };
    let silu = After { then: kernels_of(Activation::Silu), ..after };
    let want = normalised(&x, &up, &weight, &bias, &sets, true);
    let run = |after: After<'_>| {
        let (y, moments) = group_norm(&x, p, after, groups, EPS as f32);
        let [dx, dw, db] = group_norm_back(&x, &up, p, after, groups, &moments);
        vec![y, dx, dw, db]
    };
    check("groups", &want, || run(after));
    check(
        "groups, then SiLU",
        &with_silu(&want[0], &up, |up| normalised(&x, up, &weight, &bias, &sets, true)),
        || run(silu),
    );
    let sets: Vec<Vec<_>> =
        (0..p.channels).map(|c| (0..p.batch).flat_map(|b| plane(b, c)).collect()).collect();
    let want = normalised(&x, &up, &weight, &bias, &sets, true);
    let run = |after: After<'_>| {
        let moments = batch_moments(&x, p, EPS as f32);
        let [dx, dw, db] = batch_norm_back(&x, &up, p, after, &moments, true);
        vec![batch_norm(&x, p, after, &moments), dx, dw, db]
    };
    check("batch", &want, || run(after));
    check(
        "batch, then SiLU",
        &with_silu(&want[0], &up, |up| normalised(&x, up, &weight, &bias, &sets, true)),
        || run(silu),
    );
}

fn kernels_of(f: Activation) -> Option<Loops> {
    let found = Loops::of(f);
    assert!(found.is_some(), "{f:?}");
    found
}

/// Values and gradients of SiLU behind values `z` whose own gradients `back` gives from that of each of them.
fn with_silu(z: &[f64], up: &[f32], back: impl Fn(&[f32]) -> Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let slope = |z: f64| sigmoid(z) * (1.0 + z * (1.0 - sigmoid(z)));
    let through: Vec<f32> = z.iter().zip(up).map(|(z, u)| (slope(*z) * f64::from(*u)) as f32).collect();
    let mut want = back(&through);
    want[0] = z.iter().map(|z| z * sigmoid(*z)).collect();
    want
}

fn softmaxes(count: usize, n: usize) {
    let (x, up) = (noise(5, count * n).iter().map(|v| 9.0 * v).collect::<Vec<_>>(), noise(6, count * n));
    for log in [false, true] {
        let mut want = vec![Vec::new(), Vec::new()];
        for (x, up) in x.chunks(n).zip(up.chunks(n)) {
            let (x, up) = (wide(x), wide(up));
            let total: f64 = x.iter().map(|v| v.exp()).sum();
            let p: Vec<f64> = x.iter().map(|v| v.exp() / total).collect();
            let sum: f64 = if log { up.iter().sum() } else { up.iter().zip(&p).map(|(u, p)| u * p).sum() };
            want[0].extend(p.iter().map(|p| if log { p.ln() } else { *p }));
            want[1].extend(up.iter().zip(&p).map(|(u, p)| if log { u - p * sum } else { p * (u - sum) }));
        }
        check("softmax", &want, || {
            let y = softmax(&x, n, log);
            let dx = softmax_back(&y, n, log, &up);
            vec![y, dx]
        });
    }
    let targets: Vec<u32> = (0..count as u32).map(|i| i * 7 % n as u32).collect();
    let mut want = vec![Vec::new(), Vec::new(), Vec::new()];
    for (x, t) in x.chunks(n).zip(&targets) {
        let x = wide(x);
        let total: f64 = x.iter().map(|v| v.exp()).sum();
        want[2].push(total.ln());
        want[0].push(total.ln() - x[*t as usize]);
        want[1].extend(
            x.iter()
                .enumerate()
                .map(|(i, v)| 0.5 * (v.exp() / total - f64::from(u8::from(i == *t as usize)))),
        );
    }
    check("cross-entropy", &want, || {
        let mut dx = x.clone();
        let losses = cross_entropy(&mut dx, n, &targets, 0.5);
        let sums = log_sum_exp(&x, n).into_iter().map(|v| v as f32).collect();
        vec![losses, dx, sums]
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn norms_and_softmax_of_any_shape(
        (count, n) in (1_usize..40, 1_usize..90),
        (batch, width, groups, space) in (1_usize..4, 1_usize..4, 1_usize..4, 1_usize..50),
    ) {
        rows(count, n, true);
        rows(count, n, false);
        // Of one element normalised alone only rounding is left.
        if width * space > 1 && batch * space > 1 {
            channels(Planes { batch, channels: width * groups, space }, groups);
        }
        softmaxes(count, n);
    }
}

#[test]
fn norms_and_softmax_of_several_tasks() {
    rows(300, 257, true);
    rows(300, 257, false);
    channels(Planes { batch: 3, channels: 12, space: 700 }, 4);
    // Planes of several pieces.
    channels(Planes { batch: 2, channels: 4, space: 5003 }, 2);
    softmaxes(200, 331);
}

/// The definition in double precision.
fn function(f: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match f {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu(s) => {
            if x < 0.0 {
                s * x
            } else {
                x
            }
        }
        Activation::Elu(a) => {
            if x < 0.0 {
                a * x.exp_m1()
            } else {
                x
            }
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        // The error function as its series, which converges everywhere.
        Activation::Gelu => {
            let z = x / std::f64::consts::SQRT_2;
            let mut term = z;
            let mut sum = z;
            for k in 1..200 {
                term *= -z * z / f64::from(k);
                sum += term / f64::from(2 * k + 1);
            }
            0.5 * x * (1.0 + std::f64::consts::FRAC_2_SQRT_PI * sum)
        }
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::Tanh => x.tanh(),
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::HardSigmoid(a, b) => (a * x + b).clamp(0.0, 1.0),
        other => unreachable!("{other:?} has no kernel"),
    }
}

#[test]
fn activations_and_their_slopes() {
    let all = [
        Activation::Relu,
        Activation::Relu6,
        Activation::LeakyRelu(0.2),
        Activation::Elu(1.3),
        Activation::Silu,
        Activation::Sigmoid,
        Activation::QuickGelu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Tanh,
        Activation::HardSwish,
        Activation::HardSigmoid(0.2, 0.5),
    ];
    // Several tasks, and an end that fills no register; no element lies on a kink.
    let n = 40_003;
    let x: Vec<f32> = noise(7, n).iter().map(|v| 4.0 * v + 1e-3).collect();
    let up = noise(8, n);
    for f in all {
        assert!(has(f), "{f:?}");
        let y: Vec<f64> = x.iter().map(|x| function(f, f64::from(*x))).collect();
        let slope = |x: f64| (function(f, x + 1e-6) - function(f, x - 1e-6)) / 2e-6;
        let dx = x.iter().zip(&up).map(|(x, u)| slope(f64::from(*x)) * f64::from(*u)).collect();
        check(&format!("{f:?}"), &[y, dx], || vec![activate(f, &x), activate_back(f, &x, &up)]);
        let nan = activate(f, &[f32::NAN; 40]);
        assert!(nan.iter().all(|v| v.is_nan()), "{f:?} of a NaN");
    }
    let want = x.iter().zip(&up).map(|(a, b)| f64::from(*a) * f64::from(*b)).collect();
    check("products", &[want], || vec![multiply(&x, &up)]);
}

#[test]
fn turning_back_undoes_a_turn() {
    let (rows, heads, head) = (700, 3, 10);
    let x = noise(9, rows * heads * head);
    for (rotary, pairing) in
        [(10, RopePairing::Halves), (6, RopePairing::Halves), (6, RopePairing::Interleaved)]
    {
        let angles = noise(10, rows * rotary / 2);
        let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
        let turn = Turn { width: heads * head, head, rotary, pairing, back: false };
        let mut want = wide(&x);
        for (r, row) in want.chunks_mut(heads * head).enumerate() {
            for h in row.chunks_mut(head) {
                for i in 0..rotary / 2 {
                    let (a, b) =
                        if pairing == RopePairing::Halves { (i, i + rotary / 2) } else { (2 * i, 2 * i + 1) };
                    let angle = f64::from(angles[r * rotary / 2 + i]);
                    let (u, v) = (h[a], h[b]);
                    (h[a], h[b]) = (u * angle.cos() - v * angle.sin(), v * angle.cos() + u * angle.sin());
                }
            }
        }
        check("a turn and back", &[want, wide(&x)], || {
            let y = rotate(&x, turn, (&cos, &sin), |r| r);
            let back = rotate(&y, Turn { back: true, ..turn }, (&cos, &sin), |r| r);
            vec![y, back]
        });
    }
}

#[test]
fn resampling_and_its_way_back() {
    // Element 2 of the source is read twice, element 3 never.
    let taps = vec![vec![(0, 0.25), (2, 0.75)], vec![(2, 1.0)], vec![(1, -0.5), (0, 1.5)]];
    for inner in [1, 5, 40] {
        let (x, up) = (noise(11, 700 * 4 * inner), noise(12, 700 * 3 * inner));
        let (mut y, mut dx) = (vec![0.0; up.len()], vec![0.0; x.len()]);
        for o in 0..700 {
            for (i, row) in taps.iter().enumerate() {
                for (j, w) in row {
                    for k in 0..inner {
                        let (to, from) = ((o * 3 + i) * inner + k, (o * 4 + j) * inner + k);
                        y[to] += f64::from(*w) * f64::from(x[from]);
                        dx[from] += f64::from(*w) * f64::from(up[to]);
                    }
                }
            }
        }
        let back = turned(&taps, 4);
        check("resampling", &[y, dx], || vec![resample(&x, 4, inner, &taps), resample(&up, 3, inner, &back)]);
    }
}

#[test]
fn rows_of_a_table_and_back() {
    let (count, width) = (50, 37);
    let (table, picked) = (noise(13, count * width), (0..900).map(|i| i * i % 43).collect::<Vec<usize>>());
    let up = noise(14, picked.len() * width);
    let rows = picked.iter().flat_map(|r| wide(&table[r * width..][..width])).collect();
    let mut sums = vec![0.0; count * width];
    for (r, up) in picked.iter().zip(up.chunks(width)) {
        sums[r * width..][..width].iter_mut().zip(up).for_each(|(s, u)| *s += f64::from(*u));
    }
    check("a table", &[rows, sums], || {
        vec![gather(&table, width, &picked), scatter(&up, width, &picked, count)]
    });
}

#[test]
fn steps_of_adamw_follow_their_definition() {
    let n = 40_001;
    let rule = AdamW { rate: 0.02, betas: [0.9, 0.95], eps: 1e-6, decay: 0.1 };
    let start = noise(15, n);
    let gradients: Vec<Vec<f32>> = (0..3).map(|i| noise(16 + i, n)).collect();
    let [b1, b2] = rule.betas.map(f64::from);
    let (mut want, mut m, mut v) = (wide(&start), vec![0.0; n], vec![0.0; n]);
    for (t, g) in gradients.iter().enumerate() {
        let (c1, c2) = (1.0 - b1.powi(t as i32 + 1), 1.0 - b2.powi(t as i32 + 1));
        for i in 0..n {
            let g = f64::from(g[i]);
            m[i] = b1 * m[i] + (1.0 - b1) * g;
            v[i] = b2 * v[i] + (1.0 - b2) * g * g;
            want[i] *= 1.0 - f64::from(rule.rate) * f64::from(rule.decay);
            want[i] -= f64::from(rule.rate) * (m[i] / c1) / ((v[i] / c2).sqrt() + f64::from(rule.eps));
        }
    }
    let tensor = |v: &[f32]| Tensor::from_f32(v.to_vec(), &[v.len()], &Device::cpu()).unwrap();
    check("AdamW", &[want, wide(&start)], || {
        let mut p = tensor(&start);
        // Another tensor that shares the memory keeps what it had.
        let before = p.clone();
        let mut moving = Moving::new(n);
        for g in &gradients {
            rule.step(&mut p, &tensor(g), &mut moving).unwrap();
        }
        vec![p.to_f32().unwrap(), before.to_f32().unwrap()]
    });
    let mut p = tensor(&start);
    assert!(rule.step(&mut p, &tensor(&start[1..]), &mut Moving::new(n)).is_err());
    assert!(rule.step(&mut p, &tensor(&start), &mut Moving::new(3)).is_err());
    assert_eq!(p.to_f32().unwrap(), start);
}
