//! Cross-entropy from logits, with its gradient in the same pass.

use rayon::prelude::*;

use super::math::{exponentials, largest};
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
