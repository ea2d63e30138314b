//! Resampling of 8-bit pictures as Pillow does it, which the usual preprocessing was trained with: windows that widen when
//! a picture shrinks, weights in 22-bit fixed point, one axis after the other with rounding between.

use super::picture::Picture;

/// A resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Linear weights.
    Bilinear,
    /// Cubic weights, a = -1/2.
    Bicubic,
    /// Windowed sinc over three pixels.
    Lanczos,
}

/// Bits behind the point: what 32 bits leave for a byte and two bits of overshoot.
const BITS: u32 = 22;

impl Filter {
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.0,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Nearest => 1.0,
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Filter::Bicubic | Filter::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// The picture in another size; both sides at least 1.
pub fn resample(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    let (width, height) = (width.max(1), height.max(1));
    let mut out = picture.clone();
    if width != out.width {
        out = across(&out, width, filter);
    }
    if height != out.height {
        out = turned(&across(&turned(&out), height, filter));
    }
    out
}

/// First source pixel of each window and its weights.
fn windows(from: usize, to: usize, filter: Filter) -> Vec<(usize, Vec<i32>)> {
    let scale = from as f64 / to as f64;
    if filter == Filter::Nearest {
        let one = |i: usize| ((i as f64 + 0.5) * scale).floor() as usize;
        return (0..to).map(|i| (one(i).min(from - 1), vec![1 << BITS])).collect();
    }
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let window = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5).max(0.0) as usize).min(from).max(first + 1);
        let weights: Vec<f64> =
            (first..end).map(|x| filter.weight((x as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: &f64| {
            let scaled = w / sum * f64::from(1_u32 << BITS);
            (scaled + 0.5_f64.copysign(scaled)) as i32
        };
        (first, weights.iter().map(fixed).collect())
    };
    (0..to).map(window).collect()
}

fn across(picture: &Picture, width: usize, filter: Filter) -> Picture {
    let windows = windows(picture.width, width, filter);
    let mut pixels = Vec::with_capacity(picture.height * width * 3);
    for row in picture.pixels.chunks_exact(picture.width * 3) {
        for (first, weights) in &windows {
            let mut sums = [1_i64 << (BITS - 1); 3];
            for (pixel, w) in row[first * 3..].chunks_exact(3).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i64::from(*value) * i64::from(*w);
                }
            }
            pixels.extend(sums.map(|s| (s >> BITS).clamp(0, 255) as u8));
        }
    }
    Picture { width, height: picture.height, pixels }
}

/// Rows as columns.
fn turned(picture: &Picture) -> Picture {
    let mut pixels = Vec::with_capacity(picture.pixels.len());
    for x in 0..picture.width {
        for y in 0..picture.height {
            let at = (y * picture.width + x) * 3;
            pixels.extend_from_slice(&picture.pixels[at..at + 3]);
        }
    }
    Picture { width: picture.height, height: picture.width, pixels }
}
