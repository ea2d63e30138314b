//! Factors that are read through windows.

use std::ops::Range;

use super::framed::Framed;
use super::padded::Padded;
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

    /// Registers that do not reach over the end of a row. With one tap each value is read once: panels, side by side, are better.
    fn in_place(&self, first: usize, width: usize, starts: &mut [usize]) -> bool {
        let p = self.padded;
        let [rows, columns] = p.grid;
        if p.taps.len() == 1 {
            return false;
        }
        for (v, start) in starts.iter_mut().enumerate() {
            let lane = first + v * width;
            let (sample, y, x) = (lane / (rows * columns), lane / columns % rows, lane % columns);
            if x + width > columns {
                return false;
            }
            *start = (sample * self.planes + self.first) * p.plane + y * p.step + x;
        }
        true
    }

    fn values(&self) -> &[f32] {
        &self.padded.data
    }

    fn offsets(&self, depth: Range<usize>, out: &mut Vec<usize>) {
        let (taps, plane) = (&self.padded.taps, self.padded.plane);
        let (mut channel, mut t) = (depth.start / taps.len() * plane, depth.start % taps.len());
        for _ in depth {
            out.push(channel + taps[t]);
            t += 1;
            if t == taps.len() {
                (t, channel) = (0, channel + plane);
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

/// The windows' values with `(tap, channel)` as lanes and pixels as the depth, as the weight's gradient reads them.
pub(super) struct Taps<'a> {
    pub framed: &'a Framed,
    /// The first channel that counts, and how many do.
    pub first: usize,
    pub inputs: usize,
}

/// Lanes that are channels of one tap, and where the first of them lies for the first pixel.
#[derive(Clone, Copy, Default)]
struct Segment {
    lane: usize,
    count: usize,
    start: usize,
}

impl Taps<'_> {
    fn start(&self, lane: usize) -> usize {
        self.framed.taps[lane / self.inputs] + self.first + lane % self.inputs
    }
}

impl Operand for Taps<'_> {
    #[inline(always)]
    fn pack<S: Simd, const W: usize>(&self, first: usize, n: usize, depth: Range<usize>, out: &mut [f32]) {
        let mut segments = [Segment::default(); W];
        let (mut made, mut lane) = (0, 0);
        while lane < n {
            let count = (self.inputs - (first + lane) % self.inputs).min(n - lane);
            segments[made] = Segment { lane, count, start: self.start(first + lane) };
            made += 1;
            lane += count;
        }
        let mut rows = out;
        self.framed.runs(depth, |at, count, step| {
            let (out, rest) = std::mem::take(&mut rows).split_at_mut(count * W);
            rows = rest;
            for s in &segments[..made] {
                let mut from = at + s.start;
                for lanes in out.chunks_exact_mut(W) {
                    let (to, values) =
                        (&mut lanes[s.lane..][..s.count], &self.framed.data[from..][..s.count]);
                    if s.count == W {
                        copy_lanes::<W>(values, W, to);
                    } else {
                        to.copy_from_slice(values);
                    }
                    from += step;
                }
            }
        });
    }

    /// Registers that are channels of one tap.
    fn in_place(&self, first: usize, width: usize, starts: &mut [usize]) -> bool {
        for (v, start) in starts.iter_mut().enumerate() {
            let lane = first + v * width;
            if lane % self.inputs + width > self.inputs {
                return false;
            }
            *start = self.start(lane);
        }
        true
    }

    fn values(&self) -> &[f32] {
        &self.framed.data
    }

    fn offsets(&self, depth: Range<usize>, out: &mut Vec<usize>) {
        self.framed.runs(depth, |at, count, step| out.extend((0..count).map(|i| at + i * step)));
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
