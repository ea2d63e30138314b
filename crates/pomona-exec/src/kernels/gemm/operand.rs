//! Where the factors of a product come from.

use std::ops::Range;

use crate::kernels::simd::Simd;

/// A factor: lanes (rows of the left, columns of the right one) by depth (the index that is summed over).
pub(crate) trait Operand: Sync {
    /// Writes lanes `first .. first + n`, `n <= W`, as `[depth][W]`. Lanes beyond `n` may hold anything: what is made of
    /// them is thrown away.
    fn pack<S: Simd, const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]);

    /// Whether registers of `width` lanes, as many as `starts` from `first` on, may be read where they lie in [`values`]: each
    /// at its start plus the depth's [offset]. Then `starts` has been filled.
    ///
    /// [`values`]: Operand::values
    /// [offset]: Operand::offsets
    fn in_place(&self, _first: usize, _width: usize, _starts: &mut [usize]) -> bool {
        false
    }

    /// What is read in place.
    fn values(&self) -> &[f32] {
        &[]
    }

    /// How far from its start a register lies for each depth.
    fn offsets(&self, _depth: Range<usize>, _out: &mut Vec<usize>) {}
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
    fn pack<S: Simd, const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        if self.lane_stride == 1 {
            for (k, out) in depth.zip(out.chunks_exact_mut(W)) {
                copy_lanes::<W>(&self.data[first + k * self.depth_stride..], n, out);
            }
            return;
        }
        debug_assert_eq!(self.depth_stride, 1, "one of the strides is 1");
        let data = &self.data[first * self.lane_stride + depth.start..];
        turn_rows::<S, W>(data, self.lane_stride, n, depth.len(), out);
    }
}

/// `n` rows of `len`, `stride` apart, as `[len][W]`: `out[k * W + l] = data[l * stride + k]`.
#[inline(always)]
pub(crate) fn turn_rows<S: Simd, const W: usize>(
    data: &[f32],
    stride: usize,
    n: usize,
    len: usize,
    out: &mut [f32],
) {
    const NONE: [f32; 8] = [0.0; 8];
    /// Floats of a row ahead of which memory is asked for: two cache lines.
    const AHEAD: usize = 32;
    if n == 0 || len == 0 {
        return;
    }
    assert!(
        (n - 1) * stride + len <= data.len() && len * W <= out.len(),
        "rows within their data and their panel"
    );
    let mut k = 0;
    // A block of eight lanes spills over lanes that are written later: the next depth's, or those of a lower block.
    let top = (W - 1) / 8 * 8;
    let room = out.len();
    let fits = |k: usize| k <= len && (k - 1) * W + top + 8 <= room;
    while fits(k + 8) {
        // A whole cache line of each row at a time: rows that lie a power of two apart drive each other out of the cache.
        let depth = if fits(k + 16) { 16 } else { 8 };
        for l in (0..top + 8).step_by(8).rev() {
            for k in (k..k + depth).step_by(8) {
                let row = |i: usize| {
                    if l + i < n { data[(l + i) * stride + k..].as_ptr() } else { NONE.as_ptr() }
                };
                let rows = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
                if k.is_multiple_of(16) {
                    // No processor follows as many rows as a panel has: their next lines are asked for.
                    for row in rows {
                        S::expect(row.wrapping_add(AHEAD));
                    }
                }
                // SAFETY: whoever chose `S` found the set; eight floats of each row lie within `data`, as asserted; the last
                // write ends at `(k + 7) * W + l + 8`, within `out` as `fits` says.
                unsafe { S::turn(rows, out.as_mut_ptr().add(k * W + l), W) };
            }
        }
        k += depth;
    }
    for l in 0..n {
        let rest = data[l * stride + k..l * stride + len].iter();
        rest.zip(out[k * W..].chunks_exact_mut(W)).for_each(|(v, out)| out[l] = *v);
    }
}

/// The first `n` of `W` lanes from `source`.
#[inline(always)]
pub(crate) fn copy_lanes<const W: usize>(source: &[f32], n: usize, out: &mut [f32]) {
    if let (Some(from), Some(to)) = (source.first_chunk::<W>(), out.first_chunk_mut::<W>()) {
        *to = *from;
        return;
    }
    out[..n].copy_from_slice(&source[..n]);
}
