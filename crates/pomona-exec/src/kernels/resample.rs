//! Resampling along one axis: each element is a weighted sum of a few.

use rayon::prelude::*;

use super::simd::simd;
use super::uninit;

/// For each element along the axis: the elements that it is made of and their weights.
pub(crate) type Taps = Vec<Vec<(usize, f32)>>;

simd! {
    /// `y += w * x`, or `y = w * x`.
    fn blend<S>(x: &[f32], w: f32, y: &mut [f32], fresh: bool) {
        if fresh {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = w * x);
        } else {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = S::mul_add(*x, w, *y));
        }
    }
}

/// `[outer, from, inner]` to `[outer, taps.len(), inner]`.
pub(crate) fn resample(x: &[f32], from: usize, inner: usize, taps: &Taps) -> Vec<f32> {
    let to = taps.len();
    let outer = x.len() / (from * inner).max(1);
    let mut y = uninit(outer * to * inner);
    if y.is_empty() {
        return y;
    }
    let each = super::rows_per_task(to * inner);
    let chunks = y.par_chunks_mut(each * to * inner).zip(x.par_chunks(each * from * inner));
    chunks.for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(to * inner).zip(x.chunks_exact(from * inner)) {
            if inner == 1 {
                for (y, taps) in y.iter_mut().zip(taps) {
                    *y = taps.iter().map(|(j, w)| w * x[*j]).sum();
                }
                continue;
            }
            for (y, taps) in y.chunks_exact_mut(inner).zip(taps) {
                for (k, (j, w)) in taps.iter().enumerate() {
                    blend(&x[j * inner..(j + 1) * inner], *w, y, k == 0);
                }
            }
        }
    });
    y
}

/// The taps of the way back: for each element of the source, the elements that it is part of.
pub(crate) fn turned(taps: &Taps, from: usize) -> Taps {
    let mut out = vec![Vec::new(); from];
    for (i, row) in taps.iter().enumerate() {
        for (j, w) in row {
            out[*j].push((i, *w));
        }
    }
    // An element that nothing is made of has a gradient of zero.
    out.iter_mut().filter(|r| r.is_empty()).for_each(|r: &mut Vec<(usize, f32)>| r.push((0, 0.0)));
    out
}
