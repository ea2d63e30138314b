//! GroupNorm, InstanceNorm and BatchNorm: normalisation over planes of `[batch, channels, space]`.

use rayon::prelude::*;

use super::math::{sum, sums};
use super::norm::Moments;
use super::simd::simd;
use super::{Shared, uninit};

/// Sizes of a tensor of planes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub batch: usize,
    pub channels: usize,
    pub space: usize,
}

impl Planes {
    fn plane(&self, n: usize, c: usize) -> std::ops::Range<usize> {
        let first = (n * self.channels + c) * self.space;
        first..first + self.space
    }
}

simd! {
    fn moments_of<S>(x: &[f32], eps: f32) -> Moments {
        let n = x.len() as f32;
        let mean = sum(x) / n;
        let [square] = sums([x], |[v]| [(v - mean) * (v - mean)]);
        Moments { mean, scale: 1.0 / (square / n + eps).sqrt() }
    }
}

simd! {
    fn scaled<S>(x: &[f32], factor: f32, shift: f32, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = S::mul_add(*x, factor, shift);
        }
    }
}

simd! {
    /// Sum of the gradient, and of its products with the normalised plane.
    fn gradient_sums<S>(x: &[f32], above: &[f32], mean: f32, scale: f32) -> [f32; 2] {
        sums([x, above], |[x, a]| [a, a * ((x - mean) * scale)])
    }
}

simd! {
    /// `above * a + x * b + c`.
    fn combined<S>(x: &[f32], above: &[f32], a: f32, b: f32, c: f32, dx: &mut [f32]) {
        for ((dx, x), above) in dx.iter_mut().zip(x).zip(above) {
            *dx = S::mul_add(*above, a, S::mul_add(*x, b, c));
        }
    }
}

/// GroupNorm with `weight` and `bias` a channel; InstanceNorm with as many groups as channels.
pub(crate) fn group_norm(
    x: &[f32],
    p: Planes,
    weight: &[f32],
    bias: &[f32],
    groups: usize,
    eps: f32,
) -> (Vec<f32>, Vec<Moments>) {
    let width = p.channels / groups.max(1);
    let block = (width * p.space).max(1);
    let mut y = uninit(x.len());
    let moments = y
        .par_chunks_mut(block)
        .zip(x.par_chunks(block))
        .enumerate()
        .map(|(i, (y, x))| {
            let m = moments_of(x, eps);
            let first = i % groups * width;
            for (c, (y, x)) in y.chunks_exact_mut(p.space).zip(x.chunks_exact(p.space)).enumerate() {
                let factor = m.scale * weight[first + c];
                scaled(x, factor, bias[first + c] - m.mean * factor, y);
            }
            m
        })
        .collect();
    (y, moments)
}

/// Gradients of the input, the weight and the bias.
pub(crate) fn group_norm_back(
    x: &[f32],
    above: &[f32],
    p: Planes,
    weight: &[f32],
    groups: usize,
    moments: &[Moments],
) -> [Vec<f32>; 3] {
    let width = p.channels / groups.max(1);
    let block = (width * p.space).max(1);
    let mut dx = uninit(x.len());
    let parts: Vec<Vec<[f32; 2]>> =
        (dx.par_chunks_mut(block), x.par_chunks(block), above.par_chunks(block), moments)
            .into_par_iter()
            .enumerate()
            .map(|(i, (dx, x, above, m))| {
                let first = i % groups * width;
                let planes = || x.chunks_exact(p.space).zip(above.chunks_exact(p.space));
                let found: Vec<[f32; 2]> =
                    planes().map(|(x, a)| gradient_sums(x, a, m.mean, m.scale)).collect();
                let n = block as f32;
                let (mut one, mut two) = (0.0, 0.0);
                for (c, [db, dw]) in found.iter().enumerate() {
                    one += weight[first + c] * db / n;
                    two += weight[first + c] * dw / n;
                }
                // scale * (above * w - one - normal * two), with normal = (x - mean) * scale
                let b = -m.scale * m.scale * two;
                let shift = -m.scale * one - m.mean * b;
                for (c, ((x, a), dx)) in planes().zip(dx.chunks_exact_mut(p.space)).enumerate() {
                    combined(x, a, m.scale * weight[first + c], b, shift, dx);
                }
                found
            })
            .collect();
    let (mut dw, mut db) = (vec![0.0; p.channels], vec![0.0; p.channels]);
    for (i, part) in parts.iter().enumerate() {
        for (c, [b, w]) in part.iter().enumerate() {
            db[i % groups * width + c] += b;
            dw[i % groups * width + c] += w;
        }
    }
    [dx, dw, db]
}

/// Mean and deviation of every channel over batch and space.
pub(crate) fn batch_moments(x: &[f32], p: Planes, eps: f32) -> Vec<Moments> {
    let n = (p.batch * p.space).max(1) as f32;
    (0..p.channels)
        .into_par_iter()
        .map(|c| {
            let planes = || (0..p.batch).map(|b| &x[p.plane(b, c)]);
            let mean = planes().map(sum_of).sum::<f32>() / n;
            let square = planes().map(|x| squares(x, mean)).sum::<f32>() / n;
            Moments { mean, scale: 1.0 / (square + eps).sqrt() }
        })
        .collect()
}

simd! {
    fn sum_of<S>(x: &[f32]) -> f32 {
        sum(x)
    }
}

simd! {
    fn squares<S>(x: &[f32], mean: f32) -> f32 {
        sums([x], |[v]| [(v - mean) * (v - mean)])[0]
    }
}

/// BatchNorm by given moments.
pub(crate) fn batch_norm(
    x: &[f32],
    p: Planes,
    weight: &[f32],
    bias: &[f32],
    moments: &[Moments],
) -> Vec<f32> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(p.space.max(1)).zip(x.par_chunks(p.space.max(1))).enumerate().for_each(|(i, (y, x))| {
        let c = i % p.channels;
        let factor = moments[c].scale * weight[c];
        scaled(x, factor, bias[c] - moments[c].mean * factor, y);
    });
    y
}

/// Gradients of the input, the weight and the bias; `own` where the moments are those of the input.
pub(crate) fn batch_norm_back(
    x: &[f32],
    above: &[f32],
    p: Planes,
    weight: &[f32],
    moments: &[Moments],
    own: bool,
) -> [Vec<f32>; 3] {
    let mut dx = uninit(x.len());
    let out = Shared::new(&mut dx);
    let n = (p.batch * p.space).max(1) as f32;
    let found: Vec<[f32; 2]> = (0..p.channels)
        .into_par_iter()
        .map(|c| {
            let m = moments[c];
            let (mut db, mut dw) = (0.0, 0.0);
            for b in 0..p.batch {
                let [s, t] = gradient_sums(&x[p.plane(b, c)], &above[p.plane(b, c)], m.mean, m.scale);
                db += s;
                dw += t;
            }
            let a = m.scale * weight[c];
            let (factor, shift) = if own {
                let factor = -a * m.scale * dw / n;
                (factor, -a * db / n - m.mean * factor)
            } else {
                (0.0, 0.0)
            };
            for b in 0..p.batch {
                let r = p.plane(b, c);
                // SAFETY: planes lie within the tensor, and each channel's are written by one task.
                let dx = unsafe { out.part(r.start, r.len()) };
                combined(&x[r.clone()], &above[r], a, factor, shift, dx);
            }
            [db, dw]
        })
        .collect();
    [dx, found.iter().map(|f| f[1]).collect(), found.iter().map(|f| f[0]).collect()]
}
