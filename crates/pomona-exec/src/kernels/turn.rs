//! Matrices turned in blocks of eight by eight.

use rayon::prelude::*;

use super::simd::{Simd, simd};
use super::uninit;

simd! {
    /// `out[j * out_stride + i] = data[i * stride + j]` for `rows` and `columns`.
    pub(super) fn turn<S>(data: &[f32], stride: usize, rows: usize, columns: usize, out: &mut [f32], out_stride: usize) {
        if rows == 0 || columns == 0 {
            return;
        }
        assert!((columns - 1) * out_stride + rows <= out.len(), "a matrix lies within its slice");
        // SAFETY: whoever chose `S` found the set; the result lies within `out`.
        unsafe { turn_to::<S>(data, stride, rows, columns, out.as_mut_ptr(), out_stride) };
    }
}

/// As [`turn`], to elements that lie among those of other tasks.
///
/// # Safety
/// The processor has the set; every element of the result can be written, and no other task has it.
#[inline(always)]
pub(super) unsafe fn turn_to<S: Simd>(
    data: &[f32],
    stride: usize,
    rows: usize,
    columns: usize,
    out: *mut f32,
    out_stride: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * stride + columns <= data.len(), "a matrix lies within its slice");
    let (whole_rows, whole_columns) = (rows / 8 * 8, columns / 8 * 8);
    // Two blocks of the same rows: a whole cache line of each, before rows that lie a power of two apart drive each other out.
    for j in (0..whole_columns).step_by(16) {
        for i in (0..whole_rows).step_by(8) {
            for j in (j..(j + 16).min(whole_columns)).step_by(8) {
                let row = |k: usize| data[(i + k) * stride + j..].as_ptr();
                let block = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
                // SAFETY: the caller vouches for the set and the result; the block lies within the matrix.
                unsafe { S::turn(block, out.add(j * out_stride + i), out_stride) };
            }
        }
    }
    for i in 0..rows {
        let from = if i < whole_rows { whole_columns } else { 0 };
        for j in from..columns {
            // SAFETY: as the caller vouches.
            unsafe { *out.add(j * out_stride + i) = data[i * stride + j] };
        }
    }
}

/// Planes `[batch, channels, plane]` with the channels last, `[batch, plane, channels]`.
pub(super) fn channels_last(x: &[f32], channels: usize, plane: usize) -> Vec<f32> {
    /// Pixels of a task.
    const PIXELS: usize = 64;
    let mut out = uninit(x.len());
    if x.is_empty() {
        return out;
    }
    let samples = out.par_chunks_mut(channels * plane).zip(x.par_chunks(channels * plane));
    samples.for_each(|(out, x)| {
        out.par_chunks_mut(PIXELS * channels).enumerate().for_each(|(b, out)| {
            turn(&x[b * PIXELS..], plane, channels, out.len() / channels, out, channels);
        });
    });
    out
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Level, with};
    use super::super::tests::noise;

    #[test]
    fn every_element_comes_to_its_place() {
        for (rows, columns) in [(1, 1), (8, 8), (7, 9), (16, 24), (9, 64), (33, 70), (3, 100)] {
            let (stride, out_stride) = (columns + 3, rows + 2);
            let data = noise(1, rows * stride);
            for level in Level::all() {
                let mut out = vec![0.0; columns * out_stride];
                with(level, 1, || super::turn(&data, stride, rows, columns, &mut out, out_stride));
                for (at, v) in out.iter().enumerate() {
                    let (j, i) = (at / out_stride, at % out_stride);
                    let want = if i < rows { data[i * stride + j] } else { 0.0 };
                    assert_eq!(*v, want, "{level:?} {rows}x{columns}: {j} {i}");
                }
            }
        }
    }

    #[test]
    fn channels_go_last() {
        let (batch, channels, plane) = (2, 11, 150);
        let x = noise(2, batch * channels * plane);
        for level in Level::all() {
            let out = with(level, 3, || super::channels_last(&x, channels, plane));
            for (at, v) in out.iter().enumerate() {
                let (n, p, c) = (at / channels / plane, at / channels % plane, at % channels);
                assert_eq!(*v, x[(n * channels + c) * plane + p], "{level:?}");
            }
        }
    }
}
