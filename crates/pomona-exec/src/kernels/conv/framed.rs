//! Planes with the channels last and zeros around them as far as windows reach.

use std::ops::Range;

use rayon::prelude::*;

use super::padded::View;
use crate::kernels::Room;
use crate::kernels::turn::turn;

/// For pixel `(y, x)` of a sample's grid and a tap, the channels of what the window reads lie from
/// `tap + sample * plane + y * steps[0] + x * steps[1]` on.
pub(super) struct Framed {
    pub data: Room,
    /// Where a tap's values for the first pixel lie.
    pub taps: Vec<usize>,
    grid: [usize; 2],
    /// Elements of a sample, and from a pixel to the one below and beside it.
    plane: usize,
    steps: [usize; 2],
}

impl Framed {
    /// Of `x` `[batch, channels, size]`; a plane of nothing has its borders still.
    pub(super) fn new(x: &[f32], batch: usize, channels: usize, v: &View) -> Self {
        let [rows, width] = [0, 1].map(|d| v.reach(d));
        let plane = rows * width * channels;
        let size = v.size[0] * v.size[1] * channels;
        let mut data = Room::new(batch * plane);
        let layout = Layout { size: v.size, before: v.before(), first: 0, width, channels };
        data.par_chunks_mut(plane.max(1)).enumerate().for_each(|(i, out)| {
            let x = x.get(i * size..(i + 1) * size).unwrap_or_default();
            // A few rows a task: enough pixels to turn in blocks.
            let some = 64_usize.div_ceil(v.size[1].max(1));
            let tasks = out.par_chunks_mut(some * width * channels).enumerate();
            tasks.for_each_init(Vec::new, |turned, (t, out)| layout.lay(x, t * some, turned, out));
        });
        let taps = v.places().map(|[y, x]| (y * width + x) * channels).collect();
        let steps = [v.stride[0] * width * channels, v.stride[1] * channels];
        Self { data, taps, grid: v.grid, plane, steps }
    }

    /// Pixels of all samples, in runs along a row: where the first lies, how many there are, and how far apart.
    #[inline(always)]
    pub(super) fn runs(&self, pixels: Range<usize>, mut run: impl FnMut(usize, usize, usize)) {
        let [height, width] = self.grid;
        let mut at = pixels.start;
        while at < pixels.end {
            let (row, x) = (at / width, at % width);
            let (sample, y) = (row / height, row % height);
            let count = (width - x).min(pixels.end - at);
            run(sample * self.plane + y * self.steps[0] + x * self.steps[1], count, self.steps[1]);
            at += count;
        }
    }
}

/// How a sample's planes are laid out, or some columns of them.
pub(super) struct Layout {
    pub size: [usize; 2],
    pub before: [usize; 2],
    /// Columns of the frame: the first one, counted from the zeros before the plane, and how many there are.
    pub first: usize,
    pub width: usize,
    pub channels: usize,
}

impl Layout {
    /// Rows of one sample's frame, from the `first` on.
    pub(super) fn lay(&self, x: &[f32], first: usize, turned: &mut Vec<f32>, out: &mut [f32]) {
        /// Columns below which rows are turned together: blocks of eight would not be whole.
        const NARROW: usize = 16;
        let ([height, width], channels) = (self.size, self.channels);
        let rows = out.len() / (self.width * channels).max(1);
        // Those of the plane among them.
        let from = first.saturating_sub(self.before[0]).min(height);
        let to = (first + rows).saturating_sub(self.before[0]).min(height);
        // The frame's columns that lie within the plane, and the first one's place there.
        let start = self.before[1].saturating_sub(self.first).min(self.width);
        let end = (self.before[1] + width).saturating_sub(self.first).clamp(start, self.width);
        let column = (self.first + start).saturating_sub(self.before[1]);
        let pixels = if width < NARROW { (to - from) * width } else { 0 };
        if pixels > 0 {
            turned.resize(pixels * channels, 0.0);
            turn(&x[from * width..], height * width, channels, pixels, turned, channels);
        }
        for (y, out) in out.chunks_exact_mut((self.width * channels).max(1)).enumerate() {
            let y = (first + y).wrapping_sub(self.before[0]);
            if !(from..to).contains(&y) || start == end {
                out.fill(0.0);
                continue;
            }
            out[..start * channels].fill(0.0);
            out[end * channels..].fill(0.0);
            let inside = &mut out[start * channels..end * channels];
            if pixels > 0 {
                let own = &turned[((y - from) * width + column) * channels..];
                inside.copy_from_slice(&own[..inside.len()]);
            } else {
                turn(&x[y * width + column..], height * width, channels, end - start, inside, channels);
            }
        }
    }
}
