//! Matrices turned in blocks of eight by eight.

use rayon::prelude::*;

use super::simd::simd;
use super::uninit;

simd! {
    /// `out[j * out_stride + i] = data[i * stride + j]` for `rows` and `columns`.
    pub(super) fn turn<S>(data: &[f32], stride: usize, rows: usize, columns: usize, out: &mut [f32], out_stride: usize) {
        if rows == 0 || columns == 0 {
            return;
        }
        let fits = (rows - 1) * stride + columns <= data.len() && (columns - 1) * out_stride + rows <= out.len();
        assert!(fits, "both matrices lie within their slices");
        let (whole_rows, whole_columns) = (rows / 8 * 8, columns / 8 * 8);
        for j in (0..whole_columns).step_by(8) {
            for i in (0..whole_rows).step_by(8) {
                let row = |k: usize| data[(i + k) * stride + j..].as_ptr();
                let block = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
                // SAFETY: whoever chose `S` found the set; the block lies within both matrices, which lie within their slices.
                unsafe { S::turn(block, out.as_mut_ptr().add(j * out_stride + i), out_stride) };
            }
        }
        for i in 0..rows {
            let from = if i < whole_rows { whole_columns } else { 0 };
            for (j, v) in data[i * stride..][..columns].iter().enumerate().skip(from) {
                out[j * out_stride + i] = *v;
            }
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
