//! Factors that are read through windows.

use std::ops::Range;

use crate::kernels::gemm::{Operand, copy_lanes};

/// Windows over planes: the value for pixel `(n, y, x)` of a grid and `(channel, tap)` is that of the plane at
/// `(y, x) * stride + tap`, zero outside it.
pub(super) struct Windows<'a> {
    pub data: &'a [f32],
    /// Planes of a sample, and the first one that counts.
    pub planes: usize,
    pub first: usize,
    pub size: [usize; 2],
    pub grid: [usize; 2],
    pub stride: [usize; 2],
    pub taps: Vec<[isize; 2]>,
}

/// Pixels side by side in a row of the grid.
#[derive(Clone, Copy, Default)]
struct Run {
    lane: usize,
    count: usize,
    sample: usize,
    y: usize,
    x: usize,
}

impl Windows<'_> {
    /// The pixels `first .. first + n` as runs.
    #[inline(always)]
    fn runs<const W: usize>(&self, first: usize, n: usize) -> ([Run; W], usize) {
        let [height, width] = self.grid;
        let mut runs = [Run::default(); W];
        let (mut made, mut lane) = (0, 0);
        let (mut sample, rest) = (first / (height * width), first % (height * width));
        let (mut y, mut x) = (rest / width, rest % width);
        while lane < n {
            let count = (width - x).min(n - lane);
            runs[made] = Run { lane, count, sample, y, x };
            made += 1;
            lane += count;
            x = 0;
            y += 1;
            if y == height {
                (y, sample) = (0, sample + 1);
            }
        }
        (runs, made)
    }

    /// Where a run's first value lies in a plane, and the part of the run that is inside it.
    #[inline(always)]
    fn inside(&self, run: &Run, tap: [isize; 2]) -> Option<(usize, Range<usize>)> {
        let y = (run.y * self.stride[0]) as isize + tap[0];
        if y < 0 || y >= self.size[0] as isize {
            return None;
        }
        let step = self.stride[1] as isize;
        let x = (run.x * self.stride[1]) as isize + tap[1];
        // The first and last lane with 0 <= x + lane * step < width.
        let start = if x < 0 { (-x + step - 1) / step } else { 0 };
        let end = ((self.size[1] as isize - x + step - 1) / step).min(run.count as isize);
        if start >= end {
            return None;
        }
        let at = y * self.size[1] as isize + x + start * step;
        Some((at as usize, start as usize..end as usize))
    }

    #[inline(always)]
    fn plane(&self, sample: usize, channel: usize) -> &[f32] {
        let size = self.size[0] * self.size[1];
        &self.data[(sample * self.planes + self.first + channel) * size..][..size]
    }
}

impl Operand for Windows<'_> {
    #[inline(always)]
    fn pack<const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        let (runs, made) = self.runs::<W>(first, n);
        let taps = self.taps.len();
        if n < W || made > 1 {
            out.fill(0.0);
        }
        for run in &runs[..made] {
            for (t, tap) in self.taps.iter().enumerate() {
                // Depths of this tap within the block.
                let channels = (depth.start + taps - 1 - t) / taps..(depth.end + taps - 1 - t) / taps;
                let place = |c: usize| (c * taps + t - depth.start) * W + run.lane;
                match self.inside(run, *tap) {
                    None if made > 1 || n < W => {}
                    None => channels.for_each(|c| out[place(c)..][..W].fill(0.0)),
                    Some((at, lanes)) if self.stride[1] == 1 => {
                        let whole = lanes.len() == W;
                        for c in channels {
                            let from = &self.plane(run.sample, c)[at..at + lanes.len()];
                            let to = &mut out[place(c)..][..run.count];
                            if whole {
                                copy_lanes::<W>(from, W, to);
                                continue;
                            }
                            to[..lanes.start].fill(0.0);
                            to[lanes.clone()].copy_from_slice(from);
                            to[lanes.end..].fill(0.0);
                        }
                    }
                    Some((at, lanes)) => {
                        for c in channels {
                            let from = self.plane(run.sample, c)[at..].iter().step_by(self.stride[1]);
                            let to = &mut out[place(c)..][..run.count];
                            to[..lanes.start].fill(0.0);
                            to[lanes.clone()].iter_mut().zip(from).for_each(|(t, f)| *t = *f);
                            to[lanes.end..].fill(0.0);
                        }
                    }
                }
            }
        }
    }
}

/// The same windows with `(channel, tap)` as lanes and pixels as the depth, as the weight's gradient reads them.
pub(super) struct Turned<'a>(pub Windows<'a>);

impl Operand for Turned<'_> {
    #[inline(always)]
    fn pack<const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        let w = &self.0;
        let taps = w.taps.len();
        out.fill(0.0);
        // Pixels are taken 64 at a time as runs, whatever the number of lanes.
        let mut from = depth.start;
        while from < depth.end {
            let count = (depth.end - from).min(64);
            let (runs, made) = w.runs::<64>(from, count);
            for l in 0..n {
                let (c, t) = ((first + l) / taps, (first + l) % taps);
                for run in &runs[..made] {
                    let Some((at, pixels)) = w.inside(run, w.taps[t]) else { continue };
                    let values = &w.plane(run.sample, c)[at..];
                    let to = &mut out[(from - depth.start + run.lane + pixels.start) * W..];
                    let to = to.chunks_exact_mut(W).take(pixels.len());
                    if w.stride[1] == 1 {
                        to.zip(values).for_each(|(t, v)| t[l] = *v);
                    } else {
                        to.zip(values.iter().step_by(w.stride[1])).for_each(|(t, v)| t[l] = *v);
                    }
                }
            }
            from += count;
        }
    }
}

/// Planes with channels as lanes and pixels of all samples as the depth.
pub(super) struct Channels<'a> {
    pub data: &'a [f32],
    pub planes: usize,
    pub first: usize,
    pub size: usize,
}

impl Operand for Channels<'_> {
    #[inline(always)]
    fn pack<const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        if n < W {
            out.fill(0.0);
        }
        let mut at = depth.start;
        while at < depth.end {
            let (sample, pixel) = (at / self.size, at % self.size);
            let count = (self.size - pixel).min(depth.end - at);
            for l in 0..n {
                let start = (sample * self.planes + self.first + first + l) * self.size + pixel;
                let to = out[(at - depth.start) * W..].chunks_exact_mut(W);
                to.zip(&self.data[start..start + count]).for_each(|(t, v)| t[l] = *v);
            }
            at += count;
        }
    }
}

/// Filters with input channels as lanes and `(output channel, tap)` as the depth.
pub(super) struct Filters<'a> {
    pub weight: &'a [f32],
    pub inputs: usize,
    /// Elements of a filter's plane, and those that count.
    pub size: usize,
    pub taps: Vec<usize>,
}

impl Operand for Filters<'_> {
    #[inline(always)]
    fn pack<const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        if n < W {
            out.fill(0.0);
        }
        let (mut o, mut t) = (depth.start / self.taps.len(), depth.start % self.taps.len());
        for out in out.chunks_exact_mut(W) {
            let start = (o * self.inputs + first) * self.size + self.taps[t];
            let values = self.weight[start..].iter().step_by(self.size);
            out[..n].iter_mut().zip(values).for_each(|(t, v)| *t = *v);
            t += 1;
            if t == self.taps.len() {
                (o, t) = (o + 1, 0);
            }
        }
    }
}
