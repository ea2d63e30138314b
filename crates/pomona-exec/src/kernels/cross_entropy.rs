//! Cross-entropy from logits: with its gradient in the same pass, or its normaliser alone.

use rayon::prelude::*;

use super::math::{exp, exponentials, largest, sums};
use super::rows_per_task;
use super::simd::simd;
use crate::threads::stay_awake;

simd! {
    fn rows<S>(x: &mut [f32], n: usize, targets: &[u32], scale: f32, losses: &mut [f32]) {
        for ((x, target), loss) in x.chunks_exact_mut(n).zip(targets).zip(losses) {
            let own = x.get(*target as usize).copied();
            let max = largest(x);
            let sum = exponentials::<S>(x, max);
            let factor = scale / sum;
            x.iter_mut().for_each(|x| *x *= factor);
            *loss = own.map_or(f32::INFINITY, |own| max + sum.ln() - own);
            if let Some(x) = x.get_mut(*target as usize) {
                *x -= scale;
            }
        }
    }
}

/// Elements whose sum stays in 32 bits.
const BLOCK: usize = 1024;

simd! {
    fn normalisers<S>(x: &[f32], n: usize, out: &mut [f64]) {
        for (x, out) in x.chunks_exact(n).zip(out) {
            let max = largest(x);
            *out = f64::from(max);
            if !max.is_finite() {
                // The largest is that of the numbers.
                if x.iter().any(|v| v.is_nan()) {
                    *out = f64::NAN;
                }
            } else {
                let mut sum = 0.0;
                for block in x.chunks(BLOCK) {
                    sum += f64::from(sums([block], |[v]| [exp::<S>(v - max)])[0]);
                }
                *out += sum.ln();
            }
        }
    }
}

/// ln of the sum of exp of each row of `n` logits, without overflow; a row with a NaN gives NaN.
pub fn log_sum_exp(logits: &[f32], n: usize) -> Vec<f64> {
    stay_awake(logits.len());
    let n = n.max(1);
    let mut out = vec![0.0; logits.len() / n];
    let size = rows_per_task(n);
    (logits.par_chunks(size * n), out.par_chunks_mut(size))
        .into_par_iter()
        .for_each(|(x, out)| normalisers(x, n, out));
    out
}

/// Cross-entropy of each row of `n` logits with its target, in nats; the logits become the gradient of `scale` times the sum:
/// `scale * (softmax - one-hot)`. A target outside the row costs infinity and takes nothing off.
pub fn cross_entropy(logits: &mut [f32], n: usize, targets: &[u32], scale: f32) -> Vec<f32> {
    stay_awake(logits.len());
    let n = n.max(1);
    let mut losses = vec![0.0; targets.len().min(logits.len() / n)];
    let size = rows_per_task(n);
    (logits.par_chunks_mut(size * n), targets.par_chunks(size), losses.par_chunks_mut(size))
        .into_par_iter()
        .for_each(|(x, t, l)| rows(x, n, t, scale, l));
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_finite_number_have_a_normaliser_too() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let found =
            log_sum_exp(&[nan, nan, nan, inf, 1.0, nan, inf, 0.0, -inf, -inf, -inf, -inf, nan, 0.0, 1.0], 3);
        assert!(found[0].is_nan() && found[1].is_nan() && found[4].is_nan());
        assert_eq!(found[2..4], [f64::INFINITY, f64::NEG_INFINITY]);
    }
}
