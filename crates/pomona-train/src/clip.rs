//! The global norm of gradients.

use pomona_exec::Tensor;
use rayon::prelude::*;

use crate::error::Result;

/// Elements that a task takes: sums have one order, whatever the threads.
const CHUNK: usize = 1 << 16;

/// Root of the sum of squares over all gradients.
pub(crate) fn norm<'a>(gradients: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    let mut total = 0.0;
    for g in gradients {
        total += g.with_f32(|v| {
            let squares: Vec<f64> = v.par_chunks(CHUNK).map(squares).collect();
            squares.iter().sum::<f64>()
        })?;
    }
    Ok(total.sqrt())
}

fn squares(v: &[f32]) -> f64 {
    // Short sums in f32, long ones in f64.
    v.chunks(256).map(|c| f64::from(c.iter().map(|x| x * x).sum::<f32>())).sum()
}

/// Scales every gradient so that the global norm is at most `limit`, as `torch.nn.utils.clip_grad_norm_` does.
pub(crate) fn clip<'a>(
    gradients: impl IntoIterator<Item = &'a mut Tensor>,
    norm: f64,
    limit: f64,
) -> Result<()> {
    let factor = limit / (norm + 1e-6);
    if factor >= 1.0 {
        return Ok(());
    }
    for g in gradients {
        g.update(|v| v.par_chunks_mut(CHUNK).for_each(|c| c.iter_mut().for_each(|x| *x *= factor as f32)))?;
    }
    Ok(())
}
