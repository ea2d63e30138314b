//! Factors that are read through windows.

use std::ops::Range;

use super::padded::{Padded, View};
use crate::kernels::gemm::{Operand, copy_lanes, turn_rows};
use crate::kernels::simd::Simd;

/// Windows over padded planes: lanes are pixels of all samples, the depth is `(channel, tap)`.
pub(super) struct Windows<'a> {
    pub padded: &'a Padded<'a>,
    /// Planes of a sample, and the first one that counts.
    pub planes: usize,
    pub first: usize,
}

impl Operand for Windows<'_> {
    #[inline(always)]
    fn pack<S: Simd, const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        let p = self.padded;
        let [height, width] = p.grid;
        // Lanes whose pixels lie side by side: the first lane, and where its plane's first value lies.
        let mut runs = [(0, 0); W];
        let (mut made, mut lane) = (0, 0);
        let (mut sample, rest) = (first / (height * width), first % (height * width));
        let (mut y, mut x) = (rest / width, rest % width);
        while lane < n {
            runs[made] = (lane, (sample * self.planes + self.first) * p.plane + y * p.step + x);
            made += 1;
            lane += width - x;
            (x, y) = (0, y + 1);
            if y == height {
                (y, sample) = (0, sample + 1);
            }
        }
        let (data, taps): (&[f32], &[usize]) = (&p.data, &p.taps);
        let (runs, mut channel, mut t) =
            (&runs[..made], depth.start / taps.len() * p.plane, depth.start % taps.len());
        for k in 0..depth.len() {
            let tap = channel + taps[t];
            // Each run spills over the lanes of the next, which is written after it.
            for (lane, at) in runs {
                copy_lanes::<W>(&data[at + tap..], n - lane, &mut out[k * W + lane..]);
            }
            t += 1;
            if t == taps.len() {
                (t, channel) = (0, channel + p.plane);
            }
        }
    }
}

/// Values with channels as lanes and the pixels of all samples as the depth, from planes as they are.
pub(super) struct Planes<'a> {
    pub data: &'a [f32],
    /// Channels of a sample, and the first one that counts.
    pub channels: usize,
    pub first: usize,
    /// Pixels of a plane.
    pub plane: usize,
}

impl Operand for Planes<'_> {
    #[inline(always)]
    fn pack<S: Simd, const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        let mut at = depth.start;
        while at < depth.end {
            let (sample, pixel) = (at / self.plane, at % self.plane);
            let count = (self.plane - pixel).min(depth.end - at);
            let data = &self.data[(sample * self.channels + self.first + first) * self.plane + pixel..];
            turn_rows::<S, W>(data, self.plane, n, count, &mut out[(at - depth.start) * W..][..count * W]);
            at += count;
        }
    }
}

/// The windows' values with `(tap, channel)` as lanes and pixels as the depth, as the weight's gradient reads them, from
/// planes with the channels last.
pub(super) struct Taps<'a> {
    pub data: &'a [f32],
    /// Channels of a pixel, the first one that counts, and how many do.
    pub channels: usize,
    pub first: usize,
    pub inputs: usize,
    pub view: &'a View,
}

/// Lanes that are channels of one tap.
#[derive(Clone, Copy, Default)]
struct Segment {
    lane: usize,
    count: usize,
    tap: [isize; 2],
    channel: usize,
}

impl Taps<'_> {
    /// Pixels of a row from `x` on, `count` of them, for which the tap lies inside, and the plane's pixel for the first.
    #[inline(always)]
    fn inside(&self, y: usize, x: usize, count: usize, tap: [isize; 2]) -> (Range<usize>, usize) {
        let v = self.view;
        let y = (y * v.stride[0]) as isize + tap[0];
        if y < 0 || y >= v.size[0] as isize {
            return (0..0, 0);
        }
        let step = v.stride[1] as isize;
        let x = (x * v.stride[1]) as isize + tap[1];
        let start = if x < 0 { (-x + step - 1) / step } else { 0 };
        let end = ((v.size[1] as isize - x + step - 1) / step).min(count as isize);
        if start >= end {
            return (0..0, 0);
        }
        (start as usize..end as usize, (y * v.size[1] as isize + x + start * step) as usize)
    }
}

impl Operand for Taps<'_> {
    #[inline(always)]
    fn pack<S: Simd, const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        let v = self.view;
        let mut segments = [Segment::default(); W];
        let (mut made, mut lane) = (0, 0);
        while lane < n {
            let (tap, channel) = ((first + lane) / self.inputs, (first + lane) % self.inputs);
            let count = (self.inputs - channel).min(n - lane);
            segments[made] = Segment { lane, count, tap: v.taps[tap], channel };
            made += 1;
            lane += count;
        }
        let [height, width] = v.grid;
        let plane = v.size[0] * v.size[1];
        let mut at = depth.start;
        while at < depth.end {
            let (row, x) = (at / width, at % width);
            let (sample, y) = (row / height, row % height);
            let count = (width - x).min(depth.end - at);
            let out = &mut out[(at - depth.start) * W..][..count * W];
            for s in &segments[..made] {
                let (pixels, from) = self.inside(y, x, count, s.tap);
                for i in (0..pixels.start).chain(pixels.end..count) {
                    out[i * W + s.lane..][..s.count].fill(0.0);
                }
                let step = v.stride[1] * self.channels;
                let mut from = (sample * plane + from) * self.channels + self.first + s.channel;
                for i in pixels {
                    let to = &mut out[i * W + s.lane..][..s.count];
                    let values = &self.data[from..][..s.count];
                    if s.count == W {
                        copy_lanes::<W>(values, W, to);
                    } else {
                        to.copy_from_slice(values);
                    }
                    from += step;
                }
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
    pub taps: &'a [usize],
}

impl Operand for Filters<'_> {
    #[inline(always)]
    fn pack<S: Simd, const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        let taps = self.taps.len();
        let mut at = depth.start;
        while at < depth.end {
            let (o, t) = (at / taps, at % taps);
            let count = (taps - t).min(depth.end - at);
            let out = &mut out[(at - depth.start) * W..][..count * W];
            for l in 0..n {
                let plane = &self.weight[(o * self.inputs + first + l) * self.size..][..self.size];
                for (out, tap) in out.chunks_exact_mut(W).zip(&self.taps[t..]) {
                    out[l] = plane[*tap];
                }
            }
            at += count;
        }
    }
}
