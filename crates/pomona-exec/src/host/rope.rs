//! Rotary embedding over rows of heads.

use pomona_graph::RopePairing;
use rayon::prelude::*;

/// Turns each head of each row. `tables` holds cosine and sine of every position: `[positions][rotary / 2]` each;
/// `position_of` maps a row to its place in them.
pub(crate) fn rotate(
    x: &[f32],
    width: usize,
    head: usize,
    rotary: usize,
    pairing: RopePairing,
    tables: (&[f32], &[f32]),
    position_of: impl Fn(usize) -> usize + Sync,
) -> Vec<f32> {
    let half = rotary / 2;
    let mut y = x.to_vec();
    y.par_chunks_mut(width).enumerate().for_each(|(row, y)| {
        let p = position_of(row) * half;
        let (cos, sin) = (&tables.0[p..p + half], &tables.1[p..p + half]);
        for y in y.chunks_exact_mut(head) {
            for i in 0..half {
                let (a, b) = match pairing {
                    RopePairing::Halves => (i, i + half),
                    RopePairing::Interleaved => (2 * i, 2 * i + 1),
                };
                let (u, v) = (y[a], y[b]);
                y[a] = u * cos[i] - v * sin[i];
                y[b] = v * cos[i] + u * sin[i];
            }
        }
    });
    y
}
