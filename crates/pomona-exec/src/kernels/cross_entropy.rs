//! Cross-entropy from logits, with its gradient in the same pass.

use rayon::prelude::*;

use super::math::{exp, largest};
use super::simd::simd;
use super::{rows_per_task, uninit};
use crate::error::{ExecError, Result};
use crate::tensor::Tensor;

simd! {
    /// Losses of rows of `n`, and `scale * (softmax - one-hot)`. A row whose target is negative counts for nothing.
    fn rows<S>(x: &[f32], n: usize, targets: &[i64], scale: f32, losses: &mut [f32], dx: &mut [f32]) {
        for (((x, dx), target), loss) in x.chunks_exact(n).zip(dx.chunks_exact_mut(n)).zip(targets).zip(losses) {
            if *target < 0 {
                dx.fill(0.0);
                *loss = 0.0;
                continue;
            }
            let max = largest(x);
            let mut acc = [0.0_f32; 32];
            let (heads, tail) = x.as_chunks::<32>();
            let (outs, rest) = dx.as_chunks_mut::<32>();
            for (x, y) in heads.iter().zip(outs) {
                for l in 0..32 {
                    let e = exp::<S>(x[l] - max);
                    y[l] = e;
                    acc[l] += e;
                }
            }
            let mut sum: f32 = acc.iter().sum();
            for (x, y) in tail.iter().zip(rest) {
                *y = exp::<S>(x - max);
                sum += *y;
            }
            let factor = scale / sum;
            for y in dx.iter_mut() {
                *y *= factor;
            }
            let at = *target as usize;
            dx[at] -= scale;
            *loss = max + sum.ln() - x[at];
        }
    }
}

/// Mean cross-entropy of rows of logits `[rows.., vocabulary]` and its gradient for them, in one pass. Rows with a negative
/// target are left out.
pub fn cross_entropy(logits: &Tensor, targets: &[i64]) -> Result<(f64, Tensor)> {
    let n = logits.shape().last().copied().unwrap_or(0);
    if n == 0 || targets.len() * n != logits.elements() {
        return Err(ExecError::Tensor(format!(
            "{logits:?} does not have a row for each of {} targets",
            targets.len()
        )));
    }
    if let Some(bad) = targets.iter().find(|t| **t >= n as i64) {
        return Err(ExecError::Tensor(format!("target {bad} lies outside the {n} columns of {logits:?}")));
    }
    let counted = targets.iter().filter(|t| **t >= 0).count().max(1);
    let (mut losses, mut dx) = (vec![0.0; targets.len()], uninit(logits.elements()));
    let scale = 1.0 / counted as f32;
    let size = rows_per_task(n);
    logits.with_f32(|x| {
        (
            x.par_chunks(size * n),
            targets.par_chunks(size),
            losses.par_chunks_mut(size),
            dx.par_chunks_mut(size * n),
        )
            .into_par_iter()
            .for_each(|(x, t, l, dx)| rows(x, n, t, scale, l, dx));
    })?;
    let mean = losses.iter().map(|l| f64::from(*l)).sum::<f64>() / counted as f64;
    Ok((mean, Tensor::from_f32(dx, logits.shape(), logits.device())?))
}
