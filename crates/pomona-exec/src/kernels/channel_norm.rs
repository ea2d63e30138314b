//! GroupNorm, InstanceNorm and BatchNorm: normalisation over planes of `[batch, channels, space]`, and an activation behind it
//! where there is one. Elements are taken by pieces that stay in the first-level cache from one loop to the next.

use rayon::prelude::*;

use super::math::{sum, sums};
use super::norm::Moments;
use super::pointwise::Loops;
use super::simd::simd;
use super::{Shared, uninit};

/// Elements of a piece.
const PIECE: usize = 2048;

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

/// What follows the normalisation: a weight and a bias a channel, and an activation.
#[derive(Clone, Copy)]
pub(crate) struct After<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub then: Option<Loops>,
}

impl After<'_> {
    /// What a channel's elements are multiplied by, and what is added.
    fn line(&self, m: &Moments, c: usize) -> (f32, f32) {
        let factor = m.scale * self.weight[c];
        (factor, self.bias[c] - m.mean * factor)
    }

    /// A plane's values.
    fn values(&self, x: &[f32], line: (f32, f32), y: &mut [f32]) {
        for (x, y) in x.chunks(PIECE).zip(y.chunks_mut(PIECE)) {
            scaled(x, line.0, line.1, y);
            if let Some(f) = &self.then {
                f.within(y);
            }
        }
    }

    /// Sums of the gradient behind the activation and of its products with the normalised plane. Where there is an
    /// activation, that gradient is left in `dx`.
    fn sums(&self, x: &[f32], above: &[f32], m: &Moments, line: (f32, f32), dx: &mut [f32]) -> [f32; 2] {
        let Some(f) = &self.then else { return gradient_sums(x, above, m.mean, m.scale) };
        let mut z = [0.0; PIECE];
        let mut out = [0.0; 2];
        for ((x, above), dx) in x.chunks(PIECE).zip(above.chunks(PIECE)).zip(dx.chunks_mut(PIECE)) {
            let z = &mut z[..x.len()];
            scaled(x, line.0, line.1, z);
            f.back(z, above, dx);
            let [s, t] = gradient_sums(x, dx, m.mean, m.scale);
            out[0] += s;
            out[1] += t;
        }
        out
    }

    /// The plane's gradient `g * a + x * b + c`, where `g` is what [`Self::sums`] summed.
    fn combine(&self, x: &[f32], above: &[f32], abc: [f32; 3], dx: &mut [f32]) {
        if self.then.is_some() {
            combined_within(x, abc, dx);
        } else {
            combined(x, above, abc, dx);
        }
    }
}

/// A mean over some elements, and the sum of their squared distances from it.
#[derive(Clone, Copy, Default)]
struct Spread {
    count: f32,
    mean: f32,
    square: f32,
}

impl Spread {
    /// Of these elements and others together.
    fn with(self, other: Spread) -> Spread {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let gap = other.mean - self.mean;
        let share = other.count / count;
        let square = self.square + other.square + gap * gap * self.count * share;
        Spread { count, mean: self.mean + gap * share, square }
    }

    fn moments(self, eps: f32) -> Moments {
        Moments { mean: self.mean, scale: 1.0 / (self.square / self.count.max(1.0) + eps).sqrt() }
    }
}

simd! {
    /// Of a slice, read from memory once: each piece's own mean and squares, put together.
    fn spread<S>(x: &[f32]) -> Spread {
        let mut all = Spread::default();
        for piece in x.chunks(PIECE) {
            let count = piece.len() as f32;
            let mean = sum(piece) / count;
            let [square] = sums([piece], |[v]| [(v - mean) * (v - mean)]);
            all = all.with(Spread { count, mean, square });
        }
        all
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
    fn combined<S>(x: &[f32], above: &[f32], abc: [f32; 3], dx: &mut [f32]) {
        let [a, b, c] = abc;
        for ((dx, x), above) in dx.iter_mut().zip(x).zip(above) {
            *dx = S::mul_add(*above, a, S::mul_add(*x, b, c));
        }
    }
}

simd! {
    /// As above, of what is in `dx`.
    fn combined_within<S>(x: &[f32], abc: [f32; 3], dx: &mut [f32]) {
        let [a, b, c] = abc;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = S::mul_add(*dx, a, S::mul_add(*x, b, c));
        }
    }
}

/// GroupNorm; InstanceNorm with as many groups as channels.
pub(crate) fn group_norm(
    x: &[f32],
    p: Planes,
    after: After<'_>,
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
            let m = spread(x).moments(eps);
            let first = i % groups * width;
            for (c, (y, x)) in y.chunks_exact_mut(p.space).zip(x.chunks_exact(p.space)).enumerate() {
                after.values(x, after.line(&m, first + c), y);
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
    after: After<'_>,
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
                let found: Vec<[f32; 2]> = planes()
                    .zip(dx.chunks_exact_mut(p.space))
                    .enumerate()
                    .map(|(c, ((x, a), dx))| after.sums(x, a, m, after.line(m, first + c), dx))
                    .collect();
                let n = block as f32;
                let (mut one, mut two) = (0.0, 0.0);
                for (c, [db, dw]) in found.iter().enumerate() {
                    one += after.weight[first + c] * db / n;
                    two += after.weight[first + c] * dw / n;
                }
                // scale * (above * w - one - normal * two), with normal = (x - mean) * scale
                let b = -m.scale * m.scale * two;
                let shift = -m.scale * one - m.mean * b;
                for (c, ((x, a), dx)) in planes().zip(dx.chunks_exact_mut(p.space)).enumerate() {
                    after.combine(x, a, [m.scale * after.weight[first + c], b, shift], dx);
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
    let planes = |c| (0..p.batch).map(move |b| &x[p.plane(b, c)]);
    let of = |c| planes(c).fold(Spread::default(), |all, x| all.with(spread(x))).moments(eps);
    (0..p.channels).into_par_iter().map(of).collect()
}

/// BatchNorm by given moments.
pub(crate) fn batch_norm(x: &[f32], p: Planes, after: After<'_>, moments: &[Moments]) -> Vec<f32> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(p.space.max(1)).zip(x.par_chunks(p.space.max(1))).enumerate().for_each(|(i, (y, x))| {
        let c = i % p.channels;
        after.values(x, after.line(&moments[c], c), y);
    });
    y
}

/// Gradients of the input, the weight and the bias; `own` where the moments are those of the input.
pub(crate) fn batch_norm_back(
    x: &[f32],
    above: &[f32],
    p: Planes,
    after: After<'_>,
    moments: &[Moments],
    own: bool,
) -> [Vec<f32>; 3] {
    let mut dx = uninit(x.len());
    let out = Shared::new(&mut dx);
    let n = (p.batch * p.space).max(1) as f32;
    let found: Vec<[f32; 2]> = (0..p.channels)
        .into_par_iter()
        .map(|c| {
            let (m, line) = (moments[c], after.line(&moments[c], c));
            let (mut db, mut dw) = (0.0, 0.0);
            // SAFETY: planes lie within the tensor, and each channel's are written by one task.
            let of = |b: usize| (p.plane(b, c), unsafe { out.part(p.plane(b, c).start, p.space) });
            for b in 0..p.batch {
                let (r, dx) = of(b);
                let [s, t] = after.sums(&x[r.clone()], &above[r], &m, line, dx);
                db += s;
                dw += t;
            }
            let a = m.scale * after.weight[c];
            let (factor, shift) = if own {
                let factor = -a * m.scale * dw / n;
                (factor, -a * db / n - m.mean * factor)
            } else {
                (0.0, 0.0)
            };
            for b in 0..p.batch {
                let (r, dx) = of(b);
                after.combine(&x[r.clone()], &above[r], [a, factor, shift], dx);
            }
            [db, dw]
        })
        .collect();
    [dx, found.iter().map(|f| f[1]).collect(), found.iter().map(|f| f[0]).collect()]
}
