//! Magnitude (Shortened LLaMA): the sum of |w| over every weight that only this part uses.

use pomona_task::Weights;

use crate::error::Result;
use crate::unit::Unit;

/// Magnitude of each candidate. Data-free.
pub fn magnitude(
    units: &[Unit],
    weights: &dyn Weights,
    candidates: &[usize],
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let mut scores = Vec::with_capacity(candidates.len());
    for &j in candidates {
        let mut sum = 0.0;
        for &id in &units[j].tensors {
            sum += absolute_sum(&weights.get(id)?.to_f32()?);
        }
        weights.release();
        scores.push(sum);
        advance(1)?;
    }
    Ok(scores)
}

/// Sum of |v|, f32 within short runs and f64 across them.
pub(crate) fn absolute_sum(values: &[f32]) -> f64 {
    values.chunks(64).map(|c| f64::from(c.iter().map(|v| v.abs()).sum::<f32>())).sum()
}
