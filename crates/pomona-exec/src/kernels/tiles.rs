//! The tile of a product that fits each instruction set's registers, for code that is written around it.

/// Calls a function or a method (`self.name(..)`) that is generic over a set and its tile (`S`, rows `MR`, registers a row
/// `NV`, columns `NR`) from one that enables the set.
macro_rules! in_tile {
    ($($call:tt)*) => { $crate::kernels::tiles::in_tile_of!([12, 2, 32], $($call)*) };
}
pub(crate) use in_tile;

/// As [`in_tile`], with the tile of `gemm`'s products: as many registers, of which fewer are rows, so that a product reads less of memory
/// (with AVX-512, eleven times for 24 results in place of fourteen; whoever shares the core leaves less for that).
macro_rules! in_wide_tile {
    ($($call:tt)*) => { $crate::kernels::tiles::in_tile_of!([8, 3, 48], $($call)*) };
}
pub(crate) use in_wide_tile;

/// Both, with the tile for AVX-512.
macro_rules! in_tile_of {
    ([$mr:literal, $nv:literal, $nr:literal], $($name:ident).+($($arg:expr),* $(,)?)) => {
        match $crate::kernels::simd::level() {
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::simd::Level::Avx512 => {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
                fn run<R>(f: impl FnOnce() -> R) -> R {
                    f()
                }
                // SAFETY: `level` found the set on this processor.
                unsafe { run(#[inline(always)] || $($name).+::<$crate::kernels::simd::Avx512, $mr, $nv, $nr>($($arg),*)) }
            }
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::simd::Level::Avx2 => {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn run<R>(f: impl FnOnce() -> R) -> R {
                    f()
                }
                // SAFETY: `level` found the set on this processor.
                unsafe { run(#[inline(always)] || $($name).+::<$crate::kernels::simd::Avx2, 6, 2, 16>($($arg),*)) }
            }
            $crate::kernels::simd::Level::Portable => $($name).+::<$crate::kernels::simd::Portable, 4, 2, 8>($($arg),*),
        }
    };
}
pub(crate) use in_tile_of;

use super::simd::Simd;

#[inline(always)]
fn sizes<S: Simd, const MR: usize, const NV: usize, const NR: usize>() -> (usize, usize) {
    debug_assert_eq!(NR, NV * S::LANES);
    (MR, NR)
}

/// Rows and columns of the tile of the set in use.
pub(crate) fn tile_size() -> (usize, usize) {
    in_tile!(sizes())
}

/// Those of the tile of `gemm`'s products.
pub(crate) fn wide_tile_size() -> (usize, usize) {
    in_wide_tile!(sizes())
}

/// Floats of a register of the set in use.
pub(crate) fn lanes() -> usize {
    #[inline(always)]
    fn lanes<S: Simd, const MR: usize, const NV: usize, const NR: usize>() -> usize {
        S::LANES
    }
    in_tile!(lanes())
}
