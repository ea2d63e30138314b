//! Softmax and its logarithm over rows.

use rayon::prelude::*;

use super::math::{dot, exp, exponentials, largest};
use super::simd::simd;
use super::{rows_per_task, uninit};

simd! {
    fn forward<S>(x: &[f32], n: usize, log: bool, y: &mut [f32]) {
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            let max = largest(x);
            let max = if max == f32::NEG_INFINITY { 0.0 } else { max };
            y.copy_from_slice(x);
            let sum = exponentials::<S>(y, max);
            if log {
                let shift = max + sum.ln();
                for (x, y) in x.iter().zip(y.iter_mut()) {
                    *y = x - shift;
                }
            } else {
                let scale = 1.0 / sum;
                for y in y.iter_mut() {
                    *y *= scale;
                }
            }
        }
    }
}

/// Softmax over rows of `n`, or its logarithm.
pub(crate) fn softmax(x: &[f32], n: usize, log: bool) -> Vec<f32> {
    let mut y = uninit(x.len());
    let chunk = rows_per_task(n) * n.max(1);
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| forward(x, n.max(1), log, y));
    y
}

simd! {
    fn backward<S>(y: &[f32], n: usize, log: bool, above: &[f32], dx: &mut [f32]) {
        for ((y, above), dx) in y.chunks_exact(n).zip(above.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            if log {
                let sum = super::math::sum(above);
                for ((dx, y), above) in dx.iter_mut().zip(y).zip(above) {
                    *dx = S::mul_add(-exp::<S>(*y), sum, *above);
                }
            } else {
                let sum = dot::<S>(y, above);
                for ((dx, y), above) in dx.iter_mut().zip(y).zip(above) {
                    *dx = y * (above - sum);
                }
            }
        }
    }
}

/// The gradient of `x` from the values `y` and theirs.
pub(crate) fn softmax_back(y: &[f32], n: usize, log: bool, above: &[f32]) -> Vec<f32> {
    let mut dx = uninit(y.len());
    let chunk = rows_per_task(n) * n.max(1);
    let chunks = dx.par_chunks_mut(chunk).zip(y.par_chunks(chunk)).zip(above.par_chunks(chunk));
    chunks.for_each(|((dx, y), above)| backward(y, n.max(1), log, above, dx));
    dx
}
