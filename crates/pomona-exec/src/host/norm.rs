//! Norms and softmax over rows.

use rayon::prelude::*;

use super::exp::exp;
use super::{lanes, wide};

/// Rows that one task takes: enough work to pay for its scheduling.
fn rows_per_task(width: usize) -> usize {
    (1 << 14) / width.max(1) + 1
}

wide! {
    fn rms_rows(x: &[f32], y: &mut [f32], weight: &[f32], eps: f32, offset: f32) {
        let n = weight.len();
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            let mean = lanes(n, |i| x[i] * x[i]) / n as f32;
            let scale = 1.0 / (mean + eps).sqrt();
            for i in 0..n {
                y[i] = x[i] * scale * (offset + weight[i]);
            }
        }
    }
}

/// `x / rms(x) * (offset + weight)` for each row of `weight.len()`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, offset: f32) -> Vec<f32> {
    let n = weight.len().max(1);
    let mut y = vec![0.0; x.len()];
    let chunk = rows_per_task(n) * n;
    y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| rms_rows(x, y, weight, eps, offset));
    y
}

wide! {
    fn layer_rows(x: &[f32], y: &mut [f32], weight: &[f32], bias: &[f32], n: usize, eps: f32) {
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            let mean = lanes(n, |i| x[i]) / n as f32;
            let var = lanes(n, |i| (x[i] - mean) * (x[i] - mean)) / n as f32;
            let scale = 1.0 / (var + eps).sqrt();
            for i in 0..n {
                y[i] = (x[i] - mean) * scale;
            }
            if weight.len() == n {
                for i in 0..n {
                    y[i] *= weight[i];
                }
            }
            if bias.len() == n {
                for i in 0..n {
                    y[i] += bias[i];
                }
            }
        }
    }
}

/// LayerNorm over rows of `n`; empty weight or bias for none.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], n: usize, eps: f32) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    let chunk = rows_per_task(n) * n.max(1);
    y.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .for_each(|(y, x)| layer_rows(x, y, weight, bias, n, eps));
    y
}

wide! {
    /// Softmax of each row of `n`, in place.
    fn softmax_rows_in_place(rows: &mut [f32], n: usize) {
        for row in rows.chunks_exact_mut(n) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let max = if max == f32::NEG_INFINITY { 0.0 } else { max };
            for v in row.iter_mut() {
                *v = exp(*v - max);
            }
            let sum = lanes(n, |i| row[i]);
            let scale = 1.0 / sum;
            for v in row.iter_mut() {
                *v *= scale;
            }
        }
    }
}

/// Softmax over rows of `n`.
pub(crate) fn softmax_rows(x: &[f32], n: usize) -> Vec<f32> {
    let mut y = x.to_vec();
    let chunk = rows_per_task(n) * n.max(1);
    y.par_chunks_mut(chunk).for_each(|y| softmax_rows_in_place(y, n));
    y
}
