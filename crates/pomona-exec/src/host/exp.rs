//! The exponential as a polynomial, so that loops over it vectorise. Relative error below 2e-7 on the normal range.

/// e^x. Clamped where f32 has no normal result: below -87.3 it gives 0, above 88.7 infinity.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.3, 88.7);
    // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds n to an integer.
    let shifted = clamped * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = clamped - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let result = f32::from_bits((p.to_bits() as i32).wrapping_add((shifted.to_bits() << 23) as i32) as u32);
    let result = if x < -87.3 { 0.0 } else { result };
    let result = if x > 88.7 { f32::INFINITY } else { result };
    if x.is_nan() { x } else { result }
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_agrees_with_the_library() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (got, want) = (f64::from(super::exp(x)), f64::from(x).exp());
            assert!((got - want).abs() <= 4e-7 * want, "{x}: {got} {want}");
        }
        assert_eq!(super::exp(-1000.0), 0.0);
        assert_eq!(super::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(super::exp(1000.0), f32::INFINITY);
        assert!(super::exp(f32::NAN).is_nan());
    }
}
