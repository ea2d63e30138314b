//! How queries, keys and values are laid out for the products.

use crate::kernels::gemm::{Matrix, Operand, add_tile, for_rows, some_rows};
use crate::kernels::simd::Simd;
use crate::kernels::uninit;

/// Rows of one head within a flat tensor: row `i` is `data[i * stride..][..width]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub width: usize,
    pub count: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(data: &'a [f32], first: usize, stride: usize, width: usize, count: usize) -> Self {
        let end = if count == 0 { first } else { first + (count - 1) * stride + width };
        Self { data: &data[first..end], stride, width, count }
    }

    /// Panels of `W` rows: `[rows / W][width][W]`, zeros beyond the last row.
    #[inline(always)]
    pub(super) fn by_rows<S: Simd, const W: usize>(&self) -> Vec<f32> {
        let mut out = uninit(self.count.div_ceil(W) * W * self.width);
        for (p, out) in out.chunks_exact_mut((W * self.width).max(1)).enumerate() {
            self.panel::<S, W>(p * W, out);
        }
        out
    }

    /// One panel, from a row on.
    #[inline(always)]
    pub(super) fn panel<S: Simd, const W: usize>(&self, first: usize, out: &mut [f32]) {
        let m = Matrix { data: self.data, lane_stride: self.stride, depth_stride: 1 };
        let n = W.min(self.count - first);
        m.pack::<S, W>(first, n, 0..self.width, out);
        clear_lanes::<W>(n, out);
    }

    /// Panels of `W` channels: `[width / W][rows][W]`, zeros beyond the last channel.
    #[inline(always)]
    pub(super) fn by_channels<S: Simd, const W: usize>(
        &self,
        rows: std::ops::Range<usize>,
        out: &mut Vec<f32>,
    ) {
        let m = Matrix { data: self.data, lane_stride: 1, depth_stride: self.stride };
        let size = W * rows.len();
        out.resize(self.width.div_ceil(W) * size, 0.0);
        for (p, out) in out.chunks_exact_mut(size.max(1)).enumerate() {
            let n = W.min(self.width - p * W);
            m.pack::<S, W>(p * W, n, rows.clone(), out);
            clear_lanes::<W>(n, out);
        }
    }
}

/// Zeros in the lanes from `n` on.
#[inline(always)]
fn clear_lanes<const W: usize>(n: usize, out: &mut [f32]) {
    if n < W {
        out.chunks_exact_mut(W).for_each(|lanes| lanes[n..].fill(0.0));
    }
}

/// Adds the first `rows` of `MR` rows of a product over packed panels to rows of registers at `c`.
///
/// # Safety
/// The processor has the set; `a` and `b` are good for `k` groups, `c` for `MR * NV * LANES` floats.
#[inline(always)]
pub(super) unsafe fn add_product<S: Simd, const MR: usize, const NV: usize>(
    rows: usize,
    k: usize,
    (a, b): (*const f32, *const f32),
    c: *mut f32,
) {
    // SAFETY: as the caller vouches; no tile has more than `MR` rows.
    unsafe { for_rows!(rows, MR, add_rows::<S, _, MR, NV>(k, (a, b), c)) }
}

/// # Safety
/// As [`add_product`], for `R` rows.
#[inline(always)]
unsafe fn add_rows<S: Simd, const R: usize, const MR: usize, const NV: usize>(
    k: usize,
    (a, b): (*const f32, *const f32),
    c: *mut f32,
) {
    // SAFETY: as the caller vouches.
    unsafe { add_tile::<S, R, NV>(some_rows::<S, R, MR, NV>(k, a, b), c, NV * S::LANES) }
}
