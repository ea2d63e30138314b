//! The innermost loop of every product: a tile of the result held in registers.

use crate::kernels::simd::Simd;

/// `tile = a @ b` for packed panels: `a` holds `MR` and `b` holds `NV * LANES` floats for each of `k` products.
/// The tile is row-major with rows of `NV * LANES`; what `finish` makes of each row's registers is up to it.
///
/// # Safety
/// The processor has the set; `a` and `b` are good for `k` groups.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
) -> [[S::V; NV]; MR] {
    // SAFETY: the caller vouches for the set and for `k` groups behind both pointers.
    unsafe {
        let mut acc = [[S::zero(); NV]; MR];
        let (mut a, mut b) = (a, b);
        for _ in 0..k {
            let mut row = [S::zero(); NV];
            for v in 0..NV {
                row[v] = S::load(b.add(v * S::LANES));
            }
            for i in 0..MR {
                let x = S::splat(*a.add(i));
                for v in 0..NV {
                    acc[i][v] = S::fma(x, row[v], acc[i][v]);
                }
            }
            a = a.add(MR);
            b = b.add(NV * S::LANES);
        }
        acc
    }
}

/// As [`tile`], with the left factor's rows `stride` apart in memory instead of packed.
///
/// # Safety
/// The processor has the set; each of `MR` rows from `a` on is good for `k` floats, and `b` for `k` groups.
#[inline(always)]
pub(crate) unsafe fn tile_of_rows<S: Simd, const MR: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    stride: usize,
    b: *const f32,
) -> [[S::V; NV]; MR] {
    // SAFETY: the caller vouches for the set, the rows and the groups.
    unsafe {
        let mut acc = [[S::zero(); NV]; MR];
        for p in 0..k {
            let mut row = [S::zero(); NV];
            for v in 0..NV {
                row[v] = S::load(b.add((p * NV + v) * S::LANES));
            }
            for i in 0..MR {
                let x = S::splat(*a.add(i * stride + p));
                for v in 0..NV {
                    acc[i][v] = S::fma(x, row[v], acc[i][v]);
                }
            }
        }
        acc
    }
}
