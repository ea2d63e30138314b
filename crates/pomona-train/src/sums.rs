//! Sums of buffers, on all threads.

use rayon::prelude::*;

/// Elements that a task takes.
const CHUNK: usize = 1 << 14;

/// `sum += more`.
pub(crate) fn add(sum: &mut [f32], more: &[f32]) {
    (sum.par_chunks_mut(CHUNK), more.par_chunks(CHUNK))
        .into_par_iter()
        .for_each(|(s, m)| s.iter_mut().zip(m).for_each(|(s, m)| *s += m));
}
