//! Distances of pictures: mean absolute difference, peak signal-to-noise ratio, structural similarity.

/// Largest minus smallest value.
pub fn range(values: &[f32]) -> f64 {
    let (low, high) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    f64::from(high) - f64::from(low)
}

/// Mean |a - b|.
pub fn l1(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum();
    sum / a.len().max(1) as f64
}

/// Peak signal-to-noise ratio in dB for values that span `range`; infinite where they are equal.
pub fn psnr(a: &[f32], b: &[f32], range: f64) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    10.0 * (range * range / (sum / a.len().max(1) as f64)).log10()
}

/// Standard deviation of the window's Gaussian, in pixels.
const SIGMA: f64 = 1.5;
/// Pixels of the window beside its middle.
const RADIUS: usize = 5;

/// Structural similarity (Wang et al., 2004): Gaussian windows of 11 x 11, K1 0.01, K2 0.03, mean over all windows that lie
/// within the picture, a number a plane. Shape `[.., height, width]`; nothing for fewer than 11 pixels a side or rank below 3.
pub fn ssim(a: &[f32], b: &[f32], shape: &[usize], range: f64) -> Vec<f64> {
    let &[.., height, width] = shape else { return Vec::new() };
    let side = 2 * RADIUS + 1;
    if shape.len() < 3 || height < side || width < side {
        return Vec::new();
    }
    let plane = height * width;
    let of = |(a, b): (&[f32], &[f32])| plane_ssim(a, b, (height, width), range);
    a.chunks_exact(plane).zip(b.chunks_exact(plane)).map(of).collect()
}

fn plane_ssim(a: &[f32], b: &[f32], size: (usize, usize), range: f64) -> f64 {
    let mix = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
        let values: Vec<f64> = a.iter().zip(b).map(|(a, b)| f(f64::from(*a), f64::from(*b))).collect();
        blurred(&values, size)
    };
    let (ma, mb) = (mix(&|a, _| a), mix(&|_, b| b));
    let (aa, bb, ab) = (mix(&|a, _| a * a), mix(&|_, b| b * b), mix(&|a, b| a * b));
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let at = |i: usize| {
        let (va, vb, cov) = (aa[i] - ma[i] * ma[i], bb[i] - mb[i] * mb[i], ab[i] - ma[i] * mb[i]);
        let top = (2.0 * ma[i] * mb[i] + c1) * (2.0 * cov + c2);
        let bottom = (ma[i] * ma[i] + mb[i] * mb[i] + c1) * (va + vb + c2);
        // Two constant pictures of one value.
        if bottom == 0.0 { 1.0 } else { top / bottom }
    };
    (0..ma.len()).map(at).sum::<f64>() / ma.len().max(1) as f64
}

/// Gaussian windows at every place where they lie within the picture.
fn blurred(values: &[f64], (height, width): (usize, usize)) -> Vec<f64> {
    let mut kernel: Vec<f64> =
        (0..=2 * RADIUS).map(|i| (-0.5 * ((i as f64 - RADIUS as f64) / SIGMA).powi(2)).exp()).collect();
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|k| *k /= sum);
    let (h, w) = (height - 2 * RADIUS, width - 2 * RADIUS);
    let mut rows = Vec::with_capacity(height * w);
    for row in values.chunks_exact(width) {
        rows.extend((0..w).map(|x| kernel.iter().zip(&row[x..]).map(|(k, v)| k * v).sum::<f64>()));
    }
    let column = |i: usize| (0..=2 * RADIUS).map(|k| kernel[k] * rows[i + k * w]).sum();
    (0..h * w).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pictures by formula; the numbers are scikit-image's on the same ones (`scripts/image_metrics.py`).
    #[test]
    fn numbers_are_those_of_scikit_image() {
        let at = |i: usize, k: f32| ((i as f32 * 0.37).sin() + (i as f32 * k).cos()) / 2.0;
        let a: Vec<f32> = (0..2 * 20 * 24).map(|i| at(i, 0.11)).collect();
        let b: Vec<f32> = (0..2 * 20 * 24).map(|i| at(i, 0.12)).collect();
        let found = (l1(&a, &b), psnr(&a, &b, 2.0), ssim(&a, &b, &[2, 20, 24], 2.0));
        assert!((found.0 - GOLDEN.0).abs() < 1e-5, "{found:?}");
        assert!((found.1 - GOLDEN.1).abs() < 1e-3, "{found:?}");
        assert!(found.2.iter().zip(GOLDEN.2).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        assert_eq!(ssim(&a, &a, &[2, 20, 24], 2.0), [1.0, 1.0]);
        assert!(psnr(&a, &a, 2.0).is_infinite());
        assert!(ssim(&a, &b, &[960], 2.0).is_empty());
        assert!((range(&[0.5, -1.0, 0.0]) - 1.5).abs() < 1e-12);
    }

    const GOLDEN: (f64, f64, [f64; 2]) = (0.407_744, 11.994_35, [0.328_835, 0.734_072]);
}
