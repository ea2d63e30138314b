//! Elementary functions as polynomials, so that loops over them vectorise, and sums in lanes.

use super::simd::Simd;

/// e^x with a relative error below 2e-7. Below -87.3 it gives 0, above 88.7 infinity; a NaN stays one.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: f32) -> f32 {
    let clamped = x.clamp(-87.3, 88.7);
    // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds n to an integer.
    let shifted = S::mul_add(clamped, std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = S::mul_add(n, -1.428_606_8e-6, S::mul_add(n, -0.693_145_75, clamped));
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = S::mul_add(p, r, c);
    }
    let result = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    let result = if x < -87.3 { 0.0 } else { result };
    let result = if x > 88.7 { f32::INFINITY } else { result };
    if x.is_nan() { x } else { result }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<S>(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(super) fn tanh<S: Simd>(x: f32) -> f32 {
    let e = exp::<S>(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    // Near zero 1 - e cancels: the series instead.
    let s = x * x;
    let mut p = 62.0 / 2835.0;
    for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = S::mul_add(p, s, c);
    }
    if x.abs() < 0.3 { x * p } else { far }
}

/// The error function with a relative error below 4e-7: x P(x^2) / Q(x^2), fitted by iterated least squares on
/// [-3.95, 3.95] (relative error 2e-8 before rounding), and 1 from there on. A NaN stays one.
#[inline(always)]
pub(super) fn erf<S: Simd>(x: f32) -> f32 {
    let a = x.clamp(-3.95, 3.95);
    let s = a * a;
    let (mut p, mut q) = (2.025_876_5e-6, 3.783_143e-5);
    for c in [2.846_867_4e-4, 3.808_195_2e-3, 0.052_875_54, 0.191_551_33, std::f32::consts::FRAC_2_SQRT_PI] {
        p = S::mul_add(p, s, c);
    }
    for c in [1.170_730_8e-3, 0.015_055_157, 0.114_560_01, 0.503_090_6, 1.0] {
        q = S::mul_add(q, s, c);
    }
    (a * p / q).clamp(-1.0, 1.0)
}

/// Sums that one chain of additions would not vectorise: 32 chains, added in a fixed order.
const CHAINS: usize = 32;

/// Sums of `N` functions of the elements at one place of `M` slices, each as long as the first.
#[inline(always)]
pub(super) fn sums<const N: usize, const M: usize>(
    slices: [&[f32]; M],
    f: impl Fn([f32; M]) -> [f32; N],
) -> [f32; N] {
    let n = slices[0].len();
    let mut acc = [[0.0_f32; CHAINS]; N];
    let mut rest = slices.map(|s| &s[..n]);
    while let Some((heads, tails)) = split(rest) {
        for l in 0..CHAINS {
            let v = f(heads.map(|h| h[l]));
            for k in 0..N {
                acc[k][l] += v[k];
            }
        }
        rest = tails;
    }
    let mut out = acc.map(total);
    for i in 0..rest[0].len() {
        let v = f(rest.map(|s| s[i]));
        for k in 0..N {
            out[k] += v[k];
        }
    }
    out
}

/// Sum of the chains, half onto half: a handful of steps instead of one a chain.
#[inline(always)]
fn total(mut chains: [f32; CHAINS]) -> f32 {
    let mut n = CHAINS;
    while n > 1 {
        n /= 2;
        for l in 0..n {
            chains[l] += chains[l + n];
        }
    }
    chains[0]
}

/// The next elements of some slices, and what is left of them.
type Split<'a, const M: usize> = ([&'a [f32; CHAINS]; M], [&'a [f32]; M]);

/// None where a slice has too few elements left.
#[inline(always)]
fn split<const M: usize>(slices: [&[f32]; M]) -> Option<Split<'_, M>> {
    if slices[0].len() < CHAINS {
        return None;
    }
    let mut heads = [&[0.0_f32; CHAINS]; M];
    let mut tails = slices;
    for m in 0..M {
        (heads[m], tails[m]) = slices[m].split_first_chunk::<CHAINS>()?;
    }
    Some((heads, tails))
}

/// Sum of a slice.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    sums([x], |[v]| [v])[0]
}

/// Sum of products.
#[inline(always)]
pub(super) fn dot<S: Simd>(x: &[f32], y: &[f32]) -> f32 {
    let n = x.len();
    let mut acc = [0.0_f32; CHAINS];
    let mut rest = [x, &y[..n]];
    while let Some((heads, tails)) = split(rest) {
        for l in 0..CHAINS {
            acc[l] = S::mul_add(heads[0][l], heads[1][l], acc[l]);
        }
        rest = tails;
    }
    let tail: f32 = rest[0].iter().zip(rest[1]).map(|(a, b)| a * b).sum();
    total(acc) + tail
}

/// As [`dot`] with a factor that is widened as it is read: the same bits as with that factor as floats. `load` gives a register
/// from an element on, `one` an element.
///
/// # Safety
/// Whoever chose `S` found the set; `load` is good for every register within `x`.
#[inline(always)]
pub(super) unsafe fn dot_widened<S: Simd>(
    x: &[f32],
    load: impl Fn(usize) -> S::V,
    one: impl Fn(usize) -> f32,
) -> f32 {
    // SAFETY: the caller vouches for the set.
    let mut acc = unsafe { [S::zero(); CHAINS / 4] };
    let acc = &mut acc[..CHAINS / S::LANES];
    let whole = x.len() / CHAINS * CHAINS;
    for at in (0..whole).step_by(CHAINS) {
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = at + r * S::LANES;
            // SAFETY: as above; `LANES` elements of `x` lie behind `at`.
            *acc = unsafe { S::fma(S::load(x.as_ptr().add(at)), load(at), *acc) };
        }
    }
    let mut chains = [0.0; CHAINS];
    for (r, acc) in acc.iter().enumerate() {
        // SAFETY: as above; `CHAINS` floats are there.
        unsafe { S::store(chains.as_mut_ptr().add(r * S::LANES), *acc) };
    }
    let tail: f32 = (whole..x.len()).map(|i| x[i] * one(i)).sum();
    total(chains) + tail
}

/// The largest element, minus infinity of none.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; CHAINS];
    let mut rest = [x];
    while let Some((heads, tails)) = split(rest) {
        for (a, v) in acc.iter_mut().zip(heads[0]) {
            *a = if *v > *a { *v } else { *a };
        }
        rest = tails;
    }
    let mut n = CHAINS;
    while n > 1 {
        n /= 2;
        for l in 0..n {
            acc[l] = if acc[l + n] > acc[l] { acc[l + n] } else { acc[l] };
        }
    }
    rest[0].iter().copied().fold(acc[0], f32::max)
}

/// Exponentials of the elements less `max`, in their place, and their sum.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(row: &mut [f32], max: f32) -> f32 {
    let mut acc = [0.0_f32; CHAINS];
    let (heads, tail) = row.as_chunks_mut::<CHAINS>();
    for head in heads {
        for (a, x) in acc.iter_mut().zip(head) {
            *x = exp::<S>(*x - max);
            *a += *x;
        }
    }
    let mut sum = total(acc);
    for x in tail {
        *x = exp::<S>(*x - max);
        sum += *x;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;

    #[test]
    fn functions_agree_with_the_library() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (got, want) = (f64::from(super::exp::<Portable>(x)), f64::from(x).exp());
            assert!((got - want).abs() <= 4e-7 * want, "exp {x}: {got} {want}");
            let x = i as f32 / 1000.0;
            let (got, want) = (f64::from(super::tanh::<Portable>(x)), f64::from(x).tanh());
            assert!((got - want).abs() <= 4e-7 * want.abs(), "tanh {x}: {got} {want}");
        }
        for (x, want) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916),
            (0.49, 0.511_668_26),
            (0.51, 0.529_243_65),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
            (4.0, 1.0),
        ] {
            assert!((super::erf::<Portable>(x) - want).abs() < 4e-7, "erf {x}");
            assert!((super::erf::<Portable>(-x) + want).abs() < 4e-7, "erf -{x}");
        }
        assert_eq!(super::exp::<Portable>(-1000.0), 0.0);
        assert_eq!(super::exp::<Portable>(f32::NEG_INFINITY), 0.0);
        assert_eq!(super::exp::<Portable>(1000.0), f32::INFINITY);
        assert!(super::exp::<Portable>(f32::NAN).is_nan());
        assert!(super::tanh::<Portable>(f32::NAN).is_nan());
    }
}
