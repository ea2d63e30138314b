//! Losses over a model's output, with their gradients in closed form. Plain loops over slices: an autograd tape over
//! `[tokens, vocabulary]` costs several copies of the largest activation that a language model has.

use pomona_exec::{cross_entropy, log_sum_exp};

/// Negative log-likelihood of each target: `logits` is `[rows, vocab]` row-major, a target a row.
///
/// Panics nowhere: a target outside the vocabulary gives infinity, which callers report.
pub fn nll_rows(logits: &[f32], vocab: usize, targets: &[u32]) -> Vec<f64> {
    let rows = logits.chunks_exact(vocab.max(1)).zip(targets);
    let own = rows.map(|(row, &target)| row.get(target as usize));
    let sums = log_sum_exp(logits, vocab);
    sums.iter().zip(own).map(|(sum, own)| own.map_or(f64::INFINITY, |&t| sum - f64::from(t))).collect()
}

/// Gradient of `scale * sum of nll_rows` with respect to the logits, in place of them: `scale * (softmax - one-hot)`.
pub fn nll_gradient(logits: &mut [f32], vocab: usize, targets: &[u32], scale: f64) {
    cross_entropy(logits, vocab, targets, scale as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> (Vec<f32>, Vec<u32>) {
        let logits = (0..3 * 21).map(|i| ((i * 37 % 23) as f32 - 11.0) / 3.0).collect();
        (logits, vec![4, 20, 0])
    }

    #[test]
    fn nll_is_minus_log_softmax() {
        let (logits, targets) = rows();
        for (i, nll) in nll_rows(&logits, 21, &targets).into_iter().enumerate() {
            let row = &logits[i * 21..(i + 1) * 21];
            let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
            let expected = -(f64::from(row[targets[i] as usize]).exp() / sum).ln();
            assert!((nll - expected).abs() < 1e-6, "{nll} {expected}");
        }
        assert!(nll_rows(&[0.0, 1.0], 2, &[9])[0].is_infinite());
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let (logits, targets) = rows();
        let mut gradient = logits.clone();
        nll_gradient(&mut gradient, 21, &targets, 0.5);
        for k in 0..logits.len() {
            let at = |d: f32| {
                let mut moved = logits.clone();
                moved[k] += d;
                0.5 * nll_rows(&moved, 21, &targets).iter().sum::<f64>()
            };
            let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((numeric - f64::from(gradient[k])).abs() < 1e-4, "{k}: {numeric} {}", gradient[k]);
        }
    }
}
