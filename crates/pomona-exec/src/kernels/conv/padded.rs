//! Planes laid out so that what windows read lies side by side.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::kernels::simd::simd;
use crate::kernels::uninit;

/// Which values windows read: for pixel `(y, x)` of a grid and a tap the plane's at `(y, x) * stride + tap`, zero outside it.
pub(super) struct View {
    pub size: [usize; 2],
    pub grid: [usize; 2],
    pub stride: [usize; 2],
    pub taps: Vec<[isize; 2]>,
}

impl View {
    /// Zeros that windows read before the first row and column.
    pub(super) fn before(&self) -> [usize; 2] {
        [0, 1].map(|d| self.taps.iter().map(|t| (-t[d]).max(0) as usize).max().unwrap_or(0))
    }

    /// Where each tap's value for the first pixel lies once these zeros are there.
    pub(super) fn places(&self) -> impl Iterator<Item = [usize; 2]> {
        let before = self.before();
        self.taps.iter().map(move |t| place(*t, before))
    }

    /// Rows, or columns, from the first to the last that any window reads.
    pub(super) fn reach(&self, d: usize) -> usize {
        let last = self.places().map(|p| p[d]).max().unwrap_or(0);
        last + self.grid[d].saturating_sub(1) * self.stride[d] + 1
    }
}

/// A tap's place behind so many zeros.
fn place(tap: [isize; 2], before: [usize; 2]) -> [usize; 2] {
    [0, 1].map(|d| (tap[d] + before[d] as isize) as usize)
}

/// Planes with zeros around them as far as windows reach, their columns sorted by the remainder of the stride: for pixel
/// `(y, x)` and a tap the value is that at `tap + y * step + x`, without a question.
pub(super) struct Padded<'a> {
    /// Planes one behind the other, and a register's floats more where it was laid out.
    pub data: Cow<'a, [f32]>,
    /// Elements of a plane.
    pub plane: usize,
    /// Where a tap's value for the first pixel lies.
    pub taps: Vec<usize>,
    /// Elements from a pixel to the one below it.
    pub step: usize,
    pub grid: [usize; 2],
}

/// How planes are laid out.
pub(super) struct Layout {
    size: [usize; 2],
    stride: usize,
    before: [usize; 2],
    /// Remainders of columns by the stride that any tap reads.
    remainders: Vec<usize>,
    rows: usize,
    width: usize,
}

/// Floats that may be read behind the last plane.
pub(super) const BEHIND: usize = 64;

impl Layout {
    pub(super) fn new(v: &View) -> Self {
        let columns = || v.places().map(|p| p[1]);
        let mut remainders: Vec<usize> = columns().map(|x| x % v.stride[1]).collect();
        remainders.sort_unstable();
        remainders.dedup();
        let width = columns().map(|x| x / v.stride[1]).max().unwrap_or(0) + v.grid[1];
        Self { size: v.size, stride: v.stride[1], before: v.before(), remainders, rows: v.reach(0), width }
    }

    /// Elements of a plane.
    pub(super) fn plane(&self) -> usize {
        self.remainders.len() * self.rows * self.width
    }

    /// Elements of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Where a tap's value for the first pixel lies.
    pub(super) fn tap(&self, tap: [isize; 2]) -> usize {
        let [y, x] = place(tap, self.before);
        let part = self.remainders.iter().position(|r| *r == x % self.stride).unwrap_or(0);
        (part * self.rows + y) * self.width + x / self.stride
    }

    /// Lays out a plane.
    pub(super) fn lay(&self, from: &[f32], to: &mut [f32]) {
        let [height, width] = self.size;
        let (remainders, rows) = (self.remainders.iter(), self.rows);
        for (part, remainder) in to.chunks_exact_mut((rows * self.width).max(1)).zip(remainders) {
            // Columns `i * stride + remainder - before` of the plane, those within it.
            let column = |i: usize| i * self.stride + remainder;
            let start = self.before[1].saturating_sub(*remainder).div_ceil(self.stride).min(self.width);
            let end = (width + self.before[1]).saturating_sub(*remainder).div_ceil(self.stride);
            let end = end.min(self.width).max(start);
            for (y, to) in part.chunks_exact_mut(self.width.max(1)).enumerate() {
                let y = y.wrapping_sub(self.before[0]);
                if y >= height || start == end {
                    to.fill(0.0);
                    continue;
                }
                to[..start].fill(0.0);
                to[end..].fill(0.0);
                let from = &from[y * width..][..width][column(start) - self.before[1]..];
                let to = &mut to[start..end];
                match self.stride {
                    1 => to.copy_from_slice(&from[..end - start]),
                    2 => every_second(from, to),
                    n => to.iter_mut().zip(from.iter().step_by(n)).for_each(|(t, f)| *t = *f),
                }
            }
        }
    }
}

simd! {
    /// The first of every two numbers, the last one perhaps alone.
    fn every_second<S>(from: &[f32], to: &mut [f32]) {
        let (pairs, rest) = from.as_chunks::<2>();
        for (to, pair) in to.iter_mut().zip(pairs) {
            *to = pair[0];
        }
        if let (Some(to), Some(last)) = (to.get_mut(pairs.len()), rest.first()) {
            *to = *last;
        }
    }
}

simd! {
    /// Two rows of numbers in turns, the first one's last perhaps alone.
    pub(super) fn in_turns<S>(even: &[f32], odd: &[f32], to: &mut [f32]) {
        let (pairs, rest) = to.as_chunks_mut::<2>();
        for (to, (even, odd)) in pairs.iter_mut().zip(even.iter().zip(odd)) {
            *to = [*even, *odd];
        }
        if let (Some(to), Some(last)) = (rest.first_mut(), even.get(odd.len())) {
            *to = *last;
        }
    }
}

impl<'a> Padded<'a> {
    /// Of `planes` planes. Those that windows nowhere leave are read where they are.
    pub(super) fn new(x: &'a [f32], planes: usize, v: &View) -> Self {
        let layout = Layout::new(v);
        let [height, width] = v.size;
        let inside = layout.before == [0, 0] && layout.rows <= height && layout.width <= width;
        if v.stride[1] == 1 && inside {
            let taps: Vec<usize> = v.taps.iter().map(|t| t[0] as usize * width + t[1] as usize).collect();
            // Whole planes are one long row.
            let whole = v.grid == v.size && v.stride[0] == 1;
            let grid = if whole { [1, height * width] } else { v.grid };
            let step = v.stride[0] * width;
            return Self { data: Cow::Borrowed(x), plane: height * width, taps, step, grid };
        }
        let plane = layout.plane();
        let mut data = uninit(planes * plane + BEHIND);
        data[planes * plane..].fill(0.0);
        let size = (height * width).max(1);
        let laid =
            data[..planes * plane].par_chunks_mut(plane.max(1)).with_min_len((1 << 13) / plane.max(1) + 1);
        laid.enumerate().for_each(|(i, to)| {
            layout.lay(x.get(i * size..(i + 1) * size).unwrap_or_default(), to);
        });
        let taps = v.taps.iter().map(|t| layout.tap(*t)).collect();
        Self { data: Cow::Owned(data), plane, taps, step: v.stride[0] * layout.width, grid: v.grid }
    }
}
