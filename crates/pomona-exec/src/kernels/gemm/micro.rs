//! The innermost loop of every product: a tile of the result held in registers.

use crate::kernels::simd::Simd;

/// `tile = a @ b` for packed panels: `a` holds `MR` and `b` holds `NV * LANES` floats for each of `k` products.
///
/// # Safety
/// The processor has the set; `a` and `b` are good for `k` groups.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
) -> [[S::V; NV]; MR] {
    // SAFETY: as the caller vouches.
    unsafe { some_rows::<S, MR, MR, NV>(k, a, b) }
}

/// Products ahead of which memory is asked for.
const AHEAD: usize = 16;

/// Asks for a line of the left and `W` of the right factor, which the caller wants some products later: perhaps the next panel's. With the widest registers a product
/// takes so few cycles that the second-level cache's answers come late; narrower ones have no instruction to spare.
#[inline(always)]
fn ahead<S: Simd, const W: usize>(a: *const f32, b: *const f32) {
    if S::LANES >= 16 {
        S::expect(a);
        for v in 0..W {
            S::expect(b.wrapping_add(v * S::LANES));
        }
    }
}

/// Calls a function that is generic over a tile's rows (the first parameter after the set) with the least of 4, 8 and `MR` that is
/// enough: a few of a factor's last rows are worth a tile of their own.
macro_rules! for_rows {
    ($rows:expr, $mr:ident, $name:ident::<$s:ident, _, $($generic:ident),*>($($arg:expr),* $(,)?)) => {
        match $rows {
            rows if $mr > 4 && rows <= 4 => $name::<$s, 4, $($generic),*>($($arg),*),
            rows if $mr > 8 && rows <= 8 => $name::<$s, 8, $($generic),*>($($arg),*),
            _ => $name::<$s, $mr, $($generic),*>($($arg),*),
        }
    };
}
pub(crate) use for_rows;

/// As [`tile`], of which the first `R` rows are wanted.
///
/// # Safety
/// As there; `R` is at most `MR`.
#[inline(always)]
pub(crate) unsafe fn some_rows<S: Simd, const R: usize, const MR: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
) -> [[S::V; NV]; R] {
    // SAFETY: as the caller vouches.
    unsafe { some_rows_while::<S, R, MR, NV, NV>(k, a, b, |_| {}) }
}

/// As [`some_rows`], of which the first `W` registers of each row are wanted; between the products `between` is called for each row:
/// whoever asks for as many lines of memory at once waits until there is room for them.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn some_rows_while<
    S: Simd,
    const R: usize,
    const MR: usize,
    const NV: usize,
    const W: usize,
>(
    k: usize,
    a: *const f32,
    b: *const f32,
    between: impl Fn(usize),
) -> [[S::V; W]; R] {
    // SAFETY: the caller vouches for the set.
    let mut acc = unsafe { [[S::zero(); W]; R] };
    let (mut a, mut b) = (a, b);
    for i in 0..R {
        between(i);
        for _ in i * k / R..(i + 1) * k / R {
            ahead::<S, W>(a.wrapping_add(AHEAD * MR), b.wrapping_add(AHEAD * NV * S::LANES));
            // SAFETY: the caller vouches for the set and for `k` groups behind both pointers.
            unsafe {
                product::<S, R, W>(&mut acc, |i| a.add(i), |v| b.add(v * S::LANES));
                (a, b) = (a.add(MR), b.add(NV * S::LANES));
            }
        }
    }
    acc
}

/// As [`some_rows_while`], with the right factor's registers read where they lie: that of column block `v` for the product `k` at
/// `b[v] + offsets[k]`.
///
/// # Safety
/// As there; a register can be read at each of these places.
#[inline(always)]
pub(super) unsafe fn some_rows_in_place<
    S: Simd,
    const R: usize,
    const MR: usize,
    const NV: usize,
    const W: usize,
>(
    offsets: &[usize],
    a: *const f32,
    b: [*const f32; NV],
) -> [[S::V; W]; R] {
    // SAFETY: the caller vouches for the set.
    let mut acc = unsafe { [[S::zero(); W]; R] };
    let mut a = a;
    for (p, offset) in offsets.iter().enumerate() {
        if S::LANES >= 16
            && let Some(offset) = offsets.get(p + AHEAD)
        {
            // A window's values lie far apart: no processor guesses where the next ones are.
            for v in 0..W {
                S::expect(b[v].wrapping_add(*offset));
            }
        }
        // SAFETY: the caller vouches for the set, for a group of `a` and for registers of `b` at each offset.
        unsafe {
            product::<S, R, W>(&mut acc, |i| a.add(i), |v| b[v].add(*offset));
            a = a.add(MR);
        }
    }
    acc
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
    // SAFETY: the caller vouches for the set.
    let mut acc = unsafe { [[S::zero(); NV]; MR] };
    for p in 0..k {
        // SAFETY: the caller vouches for the set, the rows and the groups.
        unsafe {
            let b = b.add(p * NV * S::LANES);
            product::<S, MR, NV>(&mut acc, |i| a.add(i * stride + p), |v| b.add(v * S::LANES));
        }
    }
    acc
}

/// As [`some_rows`], with the left factor in registers of each row: `[k / LANES][MR][LANES]`. The places of a product's rows are a
/// pointer and constants.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn tile_of_registers<S: Simd, const R: usize, const MR: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
) -> [[S::V; NV]; R] {
    // SAFETY: the caller vouches for the set.
    let mut acc = unsafe { [[S::zero(); NV]; R] };
    let (mut a, mut b, mut left) = (a, b, k);
    while left > 0 {
        let some = left.min(S::LANES);
        for p in 0..some {
            // A line of the next rows with every product: as many of them as there are lanes.
            ahead::<S, NV>(a.wrapping_add((MR + p) * S::LANES), b.wrapping_add(AHEAD * NV * S::LANES));
            // SAFETY: the caller vouches for the set and for `k` groups.
            unsafe { product::<S, R, NV>(&mut acc, |i| a.add(i * S::LANES + p), |v| b.add(v * S::LANES)) };
            b = b.wrapping_add(NV * S::LANES);
        }
        a = a.wrapping_add(MR * S::LANES);
        left -= some;
    }
    acc
}

/// As [`some_rows`], with both factors' groups `strides` apart instead of side by side.
///
/// # Safety
/// The processor has the set; each of `k` groups has `R` numbers of the left and `NV` registers of the right factor.
#[inline(always)]
pub(crate) unsafe fn tile_of_columns<S: Simd, const R: usize, const NV: usize>(
    k: usize,
    (a, b): (*const f32, *const f32),
    strides: [usize; 2],
) -> [[S::V; NV]; R] {
    // SAFETY: the caller vouches for the set.
    let mut acc = unsafe { [[S::zero(); NV]; R] };
    let (mut a, mut b) = (a, b);
    for _ in 0..k {
        // SAFETY: the caller vouches for the set and the groups.
        unsafe { product::<S, R, NV>(&mut acc, |i| a.add(i), |v| b.add(v * S::LANES)) };
        (a, b) = (a.wrapping_add(strides[0]), b.wrapping_add(strides[1]));
    }
    acc
}

/// Stores a tile as rows of registers that begin `stride` apart from `c` on.
///
/// # Safety
/// The processor has the set; each of the rows is good for `NV` registers.
#[inline(always)]
pub(crate) unsafe fn put_tile<S: Simd, const R: usize, const NV: usize>(
    acc: [[S::V; NV]; R],
    c: *mut f32,
    stride: usize,
) {
    for (i, row) in acc.iter().enumerate() {
        for (v, x) in row.iter().enumerate() {
            // SAFETY: the caller vouches for the set and for this many floats.
            unsafe { S::store(c.add(i * stride + v * S::LANES), *x) };
        }
    }
}

/// As [`put_tile`], added to what is there.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn add_tile<S: Simd, const R: usize, const NV: usize>(
    acc: [[S::V; NV]; R],
    c: *mut f32,
    stride: usize,
) {
    for (i, row) in acc.iter().enumerate() {
        for (v, x) in row.iter().enumerate() {
            // SAFETY: the caller vouches for the set and for this many floats.
            unsafe {
                let c = c.add(i * stride + v * S::LANES);
                S::store(c, S::add(*x, S::load(c)));
            }
        }
    }
}

/// One product of the depth: adds each of `R` numbers of the left factor times each of `NV` registers of the right one.
///
/// # Safety
/// The processor has the set; what the places point to can be read.
#[inline(always)]
unsafe fn product<S: Simd, const R: usize, const NV: usize>(
    acc: &mut [[S::V; NV]; R],
    a: impl Fn(usize) -> *const f32,
    b: impl Fn(usize) -> *const f32,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let mut row = [S::zero(); NV];
        for v in 0..NV {
            row[v] = S::load(b(v));
        }
        for i in 0..R {
            let x = S::splat(*a(i));
            for v in 0..NV {
                acc[i][v] = S::fma(x, row[v], acc[i][v]);
            }
        }
    }
}
