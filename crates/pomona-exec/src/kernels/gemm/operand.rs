//! Where the factors of a product come from.

use std::ops::Range;

/// A factor: lanes (rows of the left, columns of the right one) by depth (the index that is summed over).
pub(crate) trait Operand: Sync {
    /// Writes lanes `first .. first + n`, `n <= W`, as `[depth][W]` with zeros in lanes beyond `n`.
    fn pack<const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]);
}

/// A matrix in memory, `at(lane, k) = data[lane * lane_stride + k * depth_stride]`; one of the strides is 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub data: &'a [f32],
    pub lane_stride: usize,
    pub depth_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Lanes are rows of `width`.
    pub(crate) fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, lane_stride: width, depth_stride: 1 }
    }

    /// Lanes are columns of rows of `width`.
    pub(crate) fn columns(data: &'a [f32], width: usize) -> Self {
        Self { data, lane_stride: 1, depth_stride: width }
    }
}

impl Operand for Matrix<'_> {
    #[inline(always)]
    fn pack<const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        if self.lane_stride == 1 {
            for (k, out) in depth.zip(out.chunks_exact_mut(W)) {
                copy_lanes::<W>(&self.data[first + k * self.depth_stride..], n, out);
            }
            return;
        }
        if n < W {
            out.fill(0.0);
        }
        for l in 0..n {
            let start = (first + l) * self.lane_stride;
            if self.depth_stride == 1 {
                let row = &self.data[start + depth.start..start + depth.end];
                for (v, out) in row.iter().zip(out.chunks_exact_mut(W)) {
                    out[l] = *v;
                }
            } else {
                for (k, out) in depth.clone().zip(out.chunks_exact_mut(W)) {
                    out[l] = self.data[start + k * self.depth_stride];
                }
            }
        }
    }
}

/// The first `n` of `W` lanes from `source`, zeros beyond.
#[inline(always)]
pub(crate) fn copy_lanes<const W: usize>(source: &[f32], n: usize, out: &mut [f32]) {
    if n == W
        && let (Some(from), Some(to)) = (source.first_chunk::<W>(), out.first_chunk_mut::<W>())
    {
        *to = *from;
        return;
    }
    out[..n].copy_from_slice(&source[..n]);
    out[n..W].fill(0.0);
}
