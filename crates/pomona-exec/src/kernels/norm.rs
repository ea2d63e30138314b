//! LayerNorm and RMSNorm over rows.

use rayon::prelude::*;

use super::math::{sum, sums};
use super::simd::simd;
use super::{rows_per_task, uninit};

/// What a row is normalised by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub mean: f32,
    /// One over the standard deviation.
    pub scale: f32,
}

simd! {
    fn forward<S>(x: &[f32], y: &mut [f32], weight: &[f32], bias: &[f32], eps: f32, centred: bool, moments: &mut [Moments]) {
        let n = weight.len();
        for ((x, y), m) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(moments) {
            let mean = if centred { sum(x) / n as f32 } else { 0.0 };
            let [square] = sums([x], |[v]| [(v - mean) * (v - mean)]);
            let scale = 1.0 / (square / n as f32 + eps).sqrt();
            for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = S::mul_add((x - mean) * scale, *w, *b);
            }
            *m = Moments { mean, scale };
        }
    }
}

/// `(x - mean) / deviation * weight + bias` for each row of `weight.len()`; RMSNorm where not `centred`.
pub(crate) fn norm(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    centred: bool,
) -> (Vec<f32>, Vec<Moments>) {
    let n = weight.len().max(1);
    let mut y = uninit(x.len());
    let mut moments = vec![Moments { mean: 0.0, scale: 0.0 }; x.len() / n];
    let rows = rows_per_task(n);
    let chunks = y.par_chunks_mut(rows * n).zip(x.par_chunks(rows * n)).zip(moments.par_chunks_mut(rows));
    chunks.for_each(|((y, x), m)| forward(x, y, weight, bias, eps, centred, m));
    (y, moments)
}

simd! {
    fn backward<S>(x: &[f32], above: &[f32], weight: &[f32], moments: &[Moments], centred: bool, dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
        let n = weight.len();
        let rows = x.chunks_exact(n).zip(above.chunks_exact(n)).zip(dx.chunks_exact_mut(n)).zip(moments);
        for (((x, above), dx), m) in rows {
            let (mean, scale) = (m.mean, m.scale);
            let [first, second] = sums([x, above, weight], |[x, a, w]| {
                let g = a * w;
                [g, g * ((x - mean) * scale)]
            });
            let first = if centred { first / n as f32 } else { 0.0 };
            let second = second / n as f32;
            for (((((dx, x), a), w), dw), db) in
                dx.iter_mut().zip(x).zip(above).zip(weight).zip(dw.iter_mut()).zip(db.iter_mut())
            {
                let normal = (x - mean) * scale;
                *dx = scale * (S::mul_add(*a, *w, -first) - normal * second);
                *dw = S::mul_add(*a, normal, *dw);
                *db += a;
            }
        }
    }
}

/// Gradients of the rows, the weight and the bias.
pub(crate) fn norm_back(
    x: &[f32],
    above: &[f32],
    weight: &[f32],
    moments: &[Moments],
    centred: bool,
) -> [Vec<f32>; 3] {
    let n = weight.len().max(1);
    let mut dx = uninit(x.len());
    // Blocks of rows that depend on sizes alone, so that sums over rows have one order.
    let rows = rows_per_task(n);
    let chunks = dx.par_chunks_mut(rows * n).zip(x.par_chunks(rows * n)).zip(above.par_chunks(rows * n));
    let parts: Vec<(Vec<f32>, Vec<f32>)> = chunks
        .zip(moments.par_chunks(rows))
        .map(|(((dx, x), above), m)| {
            let (mut dw, mut db) = (vec![0.0; n], vec![0.0; n]);
            backward(x, above, weight, m, centred, dx, &mut dw, &mut db);
            (dw, db)
        })
        .collect();
    let (mut dw, mut db) = (vec![0.0; n], vec![0.0; n]);
    for (w, b) in &parts {
        dw.iter_mut().zip(w).for_each(|(d, v)| *d += v);
        db.iter_mut().zip(b).for_each(|(d, v)| *d += v);
    }
    [dx, dw, db]
}
