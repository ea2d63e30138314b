//! Rotary embedding over rows of heads.

use pomona_graph::RopePairing;
use rayon::prelude::*;

use super::uninit;

/// Sizes of a rotation: rows of `width` in heads of `head`, of which the first `rotary` turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub width: usize,
    pub head: usize,
    pub rotary: usize,
    pub pairing: RopePairing,
    /// The other way round, as gradients turn.
    pub back: bool,
}

/// Turns each head of each row. `tables` holds cosine and sine of every position: `[positions][rotary / 2]` each;
/// `position_of` maps a row to its place in them.
pub(crate) fn rotate(
    x: &[f32],
    t: Turn,
    tables: (&[f32], &[f32]),
    position_of: impl Fn(usize) -> usize + Sync,
) -> Vec<f32> {
    let half = t.rotary / 2;
    let sign = if t.back { -1.0 } else { 1.0 };
    let mut y = uninit(x.len());
    if y.is_empty() {
        return y;
    }
    let rows = super::rows_per_task(t.width);
    let chunks = y.par_chunks_mut(rows * t.width).zip(x.par_chunks(rows * t.width)).enumerate();
    chunks.for_each(|(chunk, (y, x))| {
        for (i, (y, x)) in y.chunks_exact_mut(t.width).zip(x.chunks_exact(t.width)).enumerate() {
            let p = position_of(chunk * rows + i) * half;
            let (cos, sin) = (&tables.0[p..p + half], &tables.1[p..p + half]);
            for (y, x) in y.chunks_exact_mut(t.head).zip(x.chunks_exact(t.head)) {
                y[t.rotary..].copy_from_slice(&x[t.rotary..]);
                match t.pairing {
                    RopePairing::Halves => {
                        let ((y, z), (u, v)) =
                            (y[..t.rotary].split_at_mut(half), x[..t.rotary].split_at(half));
                        for ((((y, z), (u, v)), c), s) in
                            y.iter_mut().zip(z).zip(u.iter().zip(v)).zip(cos).zip(sin)
                        {
                            let s = sign * s;
                            (*y, *z) = (u * c - v * s, v * c + u * s);
                        }
                    }
                    RopePairing::Interleaved => {
                        let (pairs, _) = y[..t.rotary].as_chunks_mut::<2>();
                        for (((y, x), c), s) in
                            pairs.iter_mut().zip(x[..t.rotary].as_chunks::<2>().0).zip(cos).zip(sin)
                        {
                            let s = sign * s;
                            *y = [x[0] * c - x[1] * s, x[1] * c + x[0] * s];
                        }
                    }
                }
            }
        }
    });
    y
}
