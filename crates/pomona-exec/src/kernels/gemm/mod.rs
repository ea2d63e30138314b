//! Products of matrices: packed panels, tiles in registers, blocks that stay in the caches.
//!
//! Everything that is a sum of products goes through here: linear layers, attention, convolutions. A factor is an
//! [`Operand`], which knows how to write itself as panels; so a convolution's windows are never laid out as a whole.
//! Work is cut by the sizes alone and depth is summed in one order, so that results do not depend on threads.

mod micro;
mod operand;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

pub(crate) use micro::{tile, tile_of_rows};
pub(crate) use operand::{Matrix, Operand, copy_lanes, turn_rows};

use super::simd::Simd;
use super::tiles::{in_tile, tile_size};
use super::{Shared, uninit};

/// Depth of a block: a panel of the right factor takes two thirds of the first cache, 32 kB with 16 lanes; processors that have
/// 32 lanes in a panel have 48 kB.
const fn depth(lanes: usize) -> usize {
    if lanes > 16 { 256 } else { 320 }
}
/// Columns that a task has a multiple of.
const UNIT: usize = 32;
/// Columns of a task at most: their block takes a third of a 512 kB cache.
const COLUMNS: usize = 128;
/// Rows whose panels stay in the second-level cache meanwhile.
const ROWS: usize = 96;
/// Tasks that a product is cut into where its size allows: few enough to pay for themselves, many enough to share evenly.
const TASKS: usize = 16;
/// Elements of the parts of a sum over the depth, all together.
const PARTS: usize = 1 << 22;
/// Products below which threads cost more than they bring.
pub(crate) const SMALL: usize = 1 << 17;

/// What is added to the sums.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// Nothing.
    Zero,
    /// A number for each row.
    Row(&'a [f32]),
    /// A number for each column.
    Column(&'a [f32]),
    /// What is there.
    Add,
}

/// `c[i * row_stride + column(j)] = start + sum over k of a(i, k) * b(j, k)`.
///
/// No two elements may have the same place.
pub(crate) struct Product<'a, A, B, F> {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub a: &'a A,
    pub b: &'a B,
    pub row_stride: usize,
    pub column: F,
    pub start: Start<'a>,
}

/// Buffers that a thread uses again for its next product.
#[derive(Default)]
pub(crate) struct Scratch {
    a: Vec<f32>,
    b: Vec<f32>,
}

impl<A: Operand, B: Operand, F: Fn(usize) -> usize + Sync> Product<'_, A, B, F> {
    /// On all threads.
    pub(crate) fn run(&self, c: &mut [f32]) {
        if self.rows * self.columns * self.depth < SMALL {
            return self.run_here(c, &mut Scratch::default());
        }
        let (mr, nr) = tile_size();
        let a = self.pack_left(mr);
        let even = |n: usize, parts: usize, unit: usize| n.div_ceil(parts).next_multiple_of(unit);
        let columns = even(self.columns, self.columns.div_ceil(COLUMNS).max(TASKS), nr.max(UNIT));
        let blocks = self.columns.div_ceil(columns);
        let own = |j: usize| j * columns..((j + 1) * columns).min(self.columns);
        // Few columns: a long sum is cut along its depth, a short one into shares of rows.
        let deep: Vec<Range<usize>> = blocks_of(self.depth).collect();
        let parts = TASKS.div_ceil(blocks).min(deep.len() / 2);
        if parts > 1
            && self.depth > 4 * self.rows.max(self.columns)
            && parts * self.rows * self.columns <= PARTS
        {
            return self.run_deep(&a, &deep, parts, (blocks, own), c);
        }
        if blocks >= TASKS / 2 {
            let c = Shared::new(c);
            (0..blocks).into_par_iter().for_each_init(Vec::new, |b, j| {
                self.task(&a, Right::Pack(b), 0..self.rows, own(j), blocks_of(self.depth), self.start, &c);
            });
            return;
        }
        let b = self.pack_right(nr);
        let rows = even(self.rows, TASKS.div_ceil(blocks), mr);
        let shares = self.rows.div_ceil(rows);
        let c = Shared::new(c);
        (0..blocks * shares).into_par_iter().for_each(|t| {
            let first = t % shares * rows;
            let rows = first..(first + rows).min(self.rows);
            self.task(&a, Right::Packed(&b), rows, own(t / shares), blocks_of(self.depth), self.start, &c);
        });
    }

    /// Sums over parts of the depth beside each other, and then their sum, in the order of the parts.
    fn run_deep(
        &self,
        a: &[f32],
        deep: &[Range<usize>],
        parts: usize,
        (blocks, own): (usize, impl Fn(usize) -> Range<usize> + Sync),
        c: &mut [f32],
    ) {
        let size = self.rows * self.columns;
        let mut sums = uninit(parts * size);
        let each = deep.len().div_ceil(parts);
        let parts = deep.len().div_ceil(each);
        let part = Product {
            rows: self.rows,
            columns: self.columns,
            depth: self.depth,
            a: self.a,
            b: self.b,
            row_stride: self.columns,
            column: |j| j,
            start: Start::Zero,
        };
        let shared = Shared::new(&mut sums);
        (0..parts * blocks).into_par_iter().for_each_init(Vec::new, |b, t| {
            let p = t / blocks;
            let depth = deep[p * each..((p + 1) * each).min(deep.len())].iter().cloned();
            // SAFETY: each part has its own `size` elements, and its tasks write columns of their own.
            let c = Shared::new(unsafe { shared.part(p * size, size) });
            part.task(a, Right::Pack(b), 0..self.rows, own(t % blocks), depth, Start::Zero, &c);
        });
        let c = Shared::new(c);
        let furthest =
            (0..self.columns).map(&self.column).max().unwrap_or(0) + (self.rows - 1) * self.row_stride;
        assert!(furthest < c.len(), "a product's column lies outside its result");
        (0..self.rows).into_par_iter().with_min_len(8).for_each(|i| {
            for j in 0..self.columns {
                let sum = (0..parts).fold(0.0, |s, p| s + sums[p * size + i * self.columns + j]);
                // SAFETY: within the result, as asserted; each row is one task's, and no two elements share a place.
                unsafe {
                    let c = c.at(i * self.row_stride + (self.column)(j));
                    *c = match self.start {
                        Start::Zero => sum,
                        Start::Row(r) => sum + r[i],
                        Start::Column(r) => sum + r[j],
                        Start::Add => sum + *c,
                    };
                }
            }
        });
    }

    /// The left factor: `[block of depth][panel][depth][MR]`.
    fn pack_left(&self, mr: usize) -> Vec<f32> {
        let panels = self.rows.div_ceil(mr);
        let mut a = uninit(panels * mr * self.depth);
        let mut rest = a.as_mut_slice();
        let mut tasks = Vec::new();
        for k in blocks_of(self.depth) {
            let (block, next) = rest.split_at_mut(panels * mr * k.len());
            rest = next;
            // A few panels a task: a panel is some thousand copies.
            tasks.extend(
                block.chunks_mut(mr * k.len() * 8).enumerate().map(|(g, out)| (g * 8, k.clone(), out)),
            );
        }
        tasks.into_par_iter().for_each(|(panel, k, out)| self.pack_left_panels(panel, &k, out));
        a
    }

    /// The right factor: `[block of depth][panel][depth][NR]`.
    fn pack_right(&self, nr: usize) -> Vec<f32> {
        let panels = self.columns.div_ceil(nr);
        let mut b = uninit(panels * nr * self.depth);
        let mut rest = b.as_mut_slice();
        let mut tasks = Vec::new();
        for k in blocks_of(self.depth) {
            let (block, next) = rest.split_at_mut(panels * nr * k.len());
            rest = next;
            tasks.extend(
                block.chunks_mut(nr * k.len() * 2).enumerate().map(|(g, out)| (g * 2, k.clone(), out)),
            );
        }
        tasks.into_par_iter().for_each(|(panel, k, out)| self.pack_right_panels(panel, &k, out));
        b
    }

    /// On this thread.
    pub(crate) fn run_here(&self, c: &mut [f32], scratch: &mut Scratch) {
        if self.is_empty(c) {
            return;
        }
        let (mr, _) = tile_size();
        let panels = self.rows.div_ceil(mr);
        let Scratch { a, b } = scratch;
        let size = panels * mr * self.depth;
        if a.len() < size {
            *a = uninit(size);
        }
        let mut rest = &mut a[..size];
        for k in blocks_of(self.depth) {
            let (block, next) = rest.split_at_mut(panels * mr * k.len());
            rest = next;
            self.pack_left_panels(0, &k, block);
        }
        let c = Shared::new(c);
        for first in (0..self.columns).step_by(COLUMNS) {
            let columns = first..(first + COLUMNS).min(self.columns);
            self.task(a, Right::Pack(b), 0..self.rows, columns, blocks_of(self.depth), self.start, &c);
        }
    }

    /// Whether there is anything to sum; if not, the start is the result.
    fn is_empty(&self, c: &mut [f32]) -> bool {
        if self.depth > 0 && self.rows > 0 && self.columns > 0 {
            return false;
        }
        for i in 0..self.rows {
            for j in 0..self.columns {
                let at = i * self.row_stride + (self.column)(j);
                match self.start {
                    Start::Zero => c[at] = 0.0,
                    Start::Row(v) => c[at] = v[i],
                    Start::Column(v) => c[at] = v[j],
                    Start::Add => {}
                }
            }
        }
        true
    }

    /// Panels of the left factor from a panel on.
    fn pack_left_panels(&self, panel: usize, k: &Range<usize>, out: &mut [f32]) {
        in_tile!(self.pack_left_in(panel, k, out))
    }

    #[inline(always)]
    fn pack_left_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        panel: usize,
        k: &Range<usize>,
        out: &mut [f32],
    ) {
        pack_panels::<S, A, MR>(self.a, panel * MR..self.rows, k, out);
    }

    /// Panels of the right factor from a panel on.
    fn pack_right_panels(&self, panel: usize, k: &Range<usize>, out: &mut [f32]) {
        in_tile!(self.pack_right_in(panel, k, out))
    }

    #[inline(always)]
    fn pack_right_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        panel: usize,
        k: &Range<usize>,
        out: &mut [f32],
    ) {
        pack_panels::<S, B, NR>(self.b, panel * NR..self.columns, k, out);
    }

    /// Rows `rows` (from a panel's first on) of columns `columns` (likewise), over some blocks of the depth.
    #[allow(clippy::too_many_arguments, reason = "a part of a product is given by its ranges")]
    fn task(
        &self,
        a: &[f32],
        b: Right<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        depth: impl Iterator<Item = Range<usize>>,
        start: Start<'_>,
        c: &Shared<'_>,
    ) {
        in_tile!(self.task_in(a, b, rows, columns, depth, start, c))
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "as above")]
    fn task_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        a: &[f32],
        mut b: Right<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
        depth: impl Iterator<Item = Range<usize>>,
        mut start: Start<'_>,
        c: &Shared<'_>,
    ) {
        let panels = columns.len().div_ceil(NR);
        let [left, right] = [self.rows.div_ceil(MR) * MR, self.columns.div_ceil(NR) * NR];
        let mut places = Vec::with_capacity(panels);
        for p in 0..panels {
            let first = columns.start + p * NR;
            let n = NR.min(columns.end - first);
            let mut at = [0_usize; NR];
            for (j, at) in at[..n].iter_mut().enumerate() {
                *at = (self.column)(first + j);
            }
            let furthest = at[..n].iter().copied().max().unwrap_or(0) + (rows.end - 1) * self.row_stride;
            assert!(furthest < c.len(), "a product's column lies outside its result");
            let whole = n == NR && at.iter().enumerate().all(|(j, a)| *a == at[0] + j);
            places.push((first, n, at, whole));
        }
        for k in depth {
            let size = NR * k.len();
            let b: &[f32] = match &mut b {
                Right::Packed(b) => &b[right * k.start + columns.start * k.len()..][..panels * size],
                Right::Pack(room) => {
                    if room.len() < panels * size {
                        **room = uninit(panels * size);
                    }
                    let room = &mut room[..panels * size];
                    pack_panels::<S, B, NR>(self.b, columns.clone(), &k, room);
                    room
                }
            };
            let a = &a[left * k.start..][..left * k.len()];
            for block in rows.clone().step_by(ROWS) {
                let block = block..(block + ROWS).min(rows.end);
                for ((first, n, at, whole), b) in places.iter().zip(b.chunks_exact(size)) {
                    for i in block.clone().step_by(MR) {
                        let m = MR.min(rows.end - i);
                        let a = &a[i * k.len()..][..MR * k.len()];
                        let place = Place { row: i, rows: m, column: *first, columns: *n, at, whole: *whole };
                        // SAFETY: both panels hold `k.len()` groups; the place lies within `c` as checked above,
                        // and no other task has it; the set was found by `level`.
                        unsafe {
                            one_tile::<S, MR, NV, NR>((a, b, k.len()), &place, self.row_stride, start, c)
                        };
                    }
                }
            }
            start = Start::Add;
        }
    }
}

/// Where a task's panels of the right factor come from.
enum Right<'a> {
    /// All of them, packed before.
    Packed(&'a [f32]),
    /// The task packs its own into this room.
    Pack(&'a mut Vec<f32>),
}

/// Panels of `W` lanes each, one behind the other.
#[inline(always)]
fn pack_panels<S: Simd, O: Operand, const W: usize>(
    o: &O,
    lanes: Range<usize>,
    k: &Range<usize>,
    out: &mut [f32],
) {
    for (first, out) in lanes.clone().step_by(W).zip(out.chunks_exact_mut((W * k.len()).max(1))) {
        let n = W.min(lanes.end - first);
        if n < W {
            out.fill(0.0);
        }
        o.pack::<S, W>(first, n, k.clone(), out);
    }
}

/// Blocks of the depth, as equal as can be.
fn blocks_of(depth: usize) -> impl Iterator<Item = Range<usize>> {
    let (_, lanes) = tile_size();
    let size = depth.div_ceil(depth.div_ceil(self::depth(lanes)).max(1)).max(1);
    (0..depth).step_by(size).map(move |k| k..(k + size).min(depth))
}

/// Where a tile of the result lies.
struct Place<'a, const NR: usize> {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    at: &'a [usize; NR],
    /// All columns, side by side.
    whole: bool,
}

/// One tile of the result.
///
/// # Safety
/// The processor has the set `S`; `a` and `b` hold `k` groups; the place lies within `c` and is this task's own.
#[inline(always)]
unsafe fn one_tile<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
    (a, b, k): (&[f32], &[f32], usize),
    place: &Place<'_, NR>,
    row_stride: usize,
    start: Start<'_>,
    c: &Shared<'_>,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        if place.whole {
            for i in 0..place.rows {
                let c = c.at((place.row + i) * row_stride + place.at[0]);
                S::expect(c);
                S::expect(c.add(NR - 1));
            }
        }
        // Out of the registers at once, by constant places: whatever is then done with the tile, the sums stay in them.
        let mut sums = [[0.0_f32; NR]; MR];
        let acc = tile::<S, MR, NV>(k, a.as_ptr(), b.as_ptr());
        for i in 0..MR {
            for v in 0..NV {
                S::store(sums[i].as_mut_ptr().add(v * S::LANES), acc[i][v]);
            }
        }
        for (i, sums) in sums.iter_mut().enumerate().take(place.rows) {
            let row = place.row + i;
            match start {
                Start::Zero | Start::Add => {}
                Start::Row(r) => sums.iter_mut().for_each(|s| *s += r[row]),
                Start::Column(r) => {
                    sums.iter_mut().zip(&r[place.column..][..place.columns]).for_each(|(s, r)| *s += r);
                }
            }
            let add = matches!(start, Start::Add);
            if place.whole {
                let c = c.at(row * row_stride + place.at[0]);
                for v in 0..NV {
                    let (c, s) = (c.add(v * S::LANES), S::load(sums.as_ptr().add(v * S::LANES)));
                    S::store(c, if add { S::add(s, S::load(c)) } else { s });
                }
                continue;
            }
            for (s, at) in sums.iter().zip(place.at).take(place.columns) {
                let c = c.at(row * row_stride + at);
                *c = if add { s + *c } else { *s };
            }
        }
    }
}
