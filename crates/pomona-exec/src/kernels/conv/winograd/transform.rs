//! The transforms of F(4, 3): four sums of three products each from six products of transformed values.
//!
//! Six points of the projective line: 0, ±5/8, ±3/2 and infinity. With them sums over 256 channels have a relative error of 1.5e-6, where
//! fused products one after the other have 0.4e-6 (`conv/tests.rs`); with 0, ±1 and ±2, which are seen most, it is more than twice that.

use crate::kernels::simd::Simd;

/// Outputs of a tile along an axis, and values and products that it takes.
pub(super) const OUT: usize = 4;
pub(super) const IN: usize = 6;
/// Products of a tile.
pub(super) const PRODUCTS: usize = IN * IN;
/// Taps of a filter.
pub(super) const TAPS: usize = 9;

const A: f32 = 0.625;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;
const A3: f32 = A * A2;
const B3: f32 = B * B2;
/// What the filter's values at the points are divided by.
const AT_0: f32 = A2 * B2;
const AT_A: f32 = 2.0 * A2 * (A2 - B2);
const AT_B: f32 = 2.0 * B2 * (B2 - A2);

#[inline(always)]
unsafe fn add<S: Simd>(by: f32, x: S::V, y: S::V) -> S::V {
    // SAFETY: the caller vouches for the set.
    unsafe { S::fma(S::splat(by), x, y) }
}

/// Six values side by side, transformed.
///
/// # Safety
/// The processor has the set, as for all of these.
#[inline(always)]
pub(super) unsafe fn values<S: Simd>(d: [S::V; IN]) -> [S::V; IN] {
    // SAFETY: as the caller vouches.
    unsafe {
        let (even_a, odd_a) = (add::<S>(-B2, d[2], d[4]), add::<S>(-B2, d[1], d[3]));
        let (even_b, odd_b) = (add::<S>(-A2, d[2], d[4]), add::<S>(-A2, d[1], d[3]));
        [
            add::<S>(A2 * B2, d[0], add::<S>(-A2 - B2, d[2], d[4])),
            add::<S>(A, odd_a, even_a),
            add::<S>(-A, odd_a, even_a),
            add::<S>(B, odd_b, even_b),
            add::<S>(-B, odd_b, even_b),
            add::<S>(A2 * B2, d[1], add::<S>(-A2 - B2, d[3], d[5])),
        ]
    }
}

/// Three taps, transformed.
///
/// # Safety
/// As [`values`].
#[inline(always)]
pub(super) unsafe fn taps<S: Simd>(g: [S::V; 3]) -> [S::V; IN] {
    // SAFETY: as the caller vouches.
    unsafe {
        let zero = S::zero();
        let a = add::<S>(A2 / AT_A, g[2], add::<S>(1.0 / AT_A, g[0], zero));
        let b = add::<S>(B2 / AT_B, g[2], add::<S>(1.0 / AT_B, g[0], zero));
        [
            add::<S>(1.0 / AT_0, g[0], zero),
            add::<S>(A / AT_A, g[1], a),
            add::<S>(-A / AT_A, g[1], a),
            add::<S>(B / AT_B, g[1], b),
            add::<S>(-B / AT_B, g[1], b),
            g[2],
        ]
    }
}

/// Four sums from six products.
///
/// # Safety
/// As [`values`].
#[inline(always)]
pub(super) unsafe fn sums<S: Simd>(m: [S::V; IN]) -> [S::V; OUT] {
    // SAFETY: as the caller vouches.
    unsafe {
        let zero = S::zero();
        let (even_a, odd_a) = (S::add(m[1], m[2]), add::<S>(-1.0, m[2], m[1]));
        let (even_b, odd_b) = (S::add(m[3], m[4]), add::<S>(-1.0, m[4], m[3]));
        [
            S::add(m[0], S::add(even_a, even_b)),
            add::<S>(A, odd_a, add::<S>(B, odd_b, zero)),
            add::<S>(A2, even_a, add::<S>(B2, even_b, zero)),
            add::<S>(A3, odd_a, add::<S>(B3, odd_b, m[5])),
        ]
    }
}

/// The gradients of six products from those of four sums.
///
/// # Safety
/// As [`values`].
#[inline(always)]
pub(super) unsafe fn sums_back<S: Simd>(y: [S::V; OUT]) -> [S::V; IN] {
    // SAFETY: as the caller vouches.
    unsafe {
        let (even_a, odd_a) = (add::<S>(A2, y[2], y[0]), add::<S>(A2, y[3], y[1]));
        let (even_b, odd_b) = (add::<S>(B2, y[2], y[0]), add::<S>(B2, y[3], y[1]));
        [
            y[0],
            add::<S>(A, odd_a, even_a),
            add::<S>(-A, odd_a, even_a),
            add::<S>(B, odd_b, even_b),
            add::<S>(-B, odd_b, even_b),
            y[3],
        ]
    }
}

/// The gradients of three taps from those of what they became.
///
/// # Safety
/// As [`values`].
#[inline(always)]
pub(super) unsafe fn taps_back<S: Simd>(u: [S::V; IN]) -> [S::V; 3] {
    // SAFETY: as the caller vouches.
    unsafe {
        let zero = S::zero();
        let (even_a, odd_a) = (S::add(u[1], u[2]), add::<S>(-1.0, u[2], u[1]));
        let (even_b, odd_b) = (S::add(u[3], u[4]), add::<S>(-1.0, u[4], u[3]));
        let zeroth = add::<S>(1.0 / AT_0, u[0], zero);
        [
            add::<S>(1.0 / AT_A, even_a, add::<S>(1.0 / AT_B, even_b, zeroth)),
            add::<S>(A / AT_A, odd_a, add::<S>(B / AT_B, odd_b, zero)),
            add::<S>(A2 / AT_A, even_a, add::<S>(B2 / AT_B, even_b, u[5])),
        ]
    }
}

/// Both axes of a block, one after the other: columns of `block[row][column]` first.
macro_rules! both {
    ($name:ident, $axis:ident, $from:expr, $to:expr) => {
        /// Rows and columns of a block.
        ///
        /// # Safety
        /// As [`values`].
        #[inline(always)]
        pub(super) unsafe fn $name<S: Simd>(block: [[S::V; $from]; $from]) -> [[S::V; $to]; $to] {
            // SAFETY: as the caller vouches.
            unsafe {
                let mut half = [[S::zero(); $from]; $to];
                for x in 0..$from {
                    let mut column = [S::zero(); $from];
                    for y in 0..$from {
                        column[y] = block[y][x];
                    }
                    let column = $axis::<S>(column);
                    for y in 0..$to {
                        half[y][x] = column[y];
                    }
                }
                let mut out = [[S::zero(); $to]; $to];
                for y in 0..$to {
                    out[y] = $axis::<S>(half[y]);
                }
                out
            }
        }
    };
}
both!(taps_of_block, taps, 3, IN);
both!(sums_of_block, sums, IN, OUT);
both!(sums_back_of_block, sums_back, OUT, IN);
both!(taps_back_of_block, taps_back, IN, 3);
