//! Products of matrices: packed panels, tiles in registers, blocks that stay in the caches.
//!
//! Everything that is a sum of products goes through here: linear layers, attention, convolutions. A factor is an
//! [`Operand`], which knows how to write itself as panels, or where they can be read as they lie; so a wide product's windows are
//! never laid out as a whole. The depth is cut by the sizes alone and summed in one order, so that results do not depend on threads.

mod micro;
mod operand;
mod task;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

pub(crate) use micro::{
    add_tile, for_rows, put_tile, some_rows, tile, tile_of_columns, tile_of_registers, tile_of_rows,
};
pub(crate) use operand::{Matrix, Operand, copy_lanes, turn_rows};
use task::{Left, Right};

use super::simd::Simd;
use super::tiles::{in_wide_tile, wide_tile_size};
use super::{Room, Shared, uninit};

/// Depth of a block. Of narrower registers a panel of the right factor takes two thirds of the first cache, 32 kB with 16 lanes. With
/// the widest ones panels of both factors stream in from the second cache in time, and what counts is how often a tile of the
/// result is read and written again.
const fn depth(lanes: usize) -> usize {
    if lanes > 16 { 576 } else { 320 }
}
/// Columns that a task has a multiple of, if they are whole tiles.
const UNIT: usize = 32;
/// Columns of a task at most, whole tiles of any set, or what of `UNIT` is next: their block takes two fifths of a 512 kB cache, with
/// the widest registers a sixth of 2 MB.
const COLUMNS: usize = 144;
/// Tasks that a product is cut into where its size allows: few enough to pay for themselves, many enough to share evenly.
const TASKS: usize = 16;
/// Rows of which half are enough for a task.
const HALVED: usize = 192;
/// Rows from which on, and columns up to which, tasks are made of rows: some tasks of five panels or more, and a block of all columns that
/// a second-level cache holds (most of it, with the widest registers) or the third is asked for now and then.
const TALL: usize = 288;
const WIDE: usize = 1024;
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
    a: Room,
    b: Room,
}

impl<A: Operand, B: Operand, F: Fn(usize) -> usize + Sync> Product<'_, A, B, F> {
    /// On all threads.
    pub(crate) fn run(&self, c: &mut [f32]) {
        if self.rows * self.columns * self.depth < SMALL {
            return self.run_here(c, &mut Scratch::default());
        }
        let (mr, nr) = wide_tile_size();
        if self.rows >= TALL && self.rows >= self.columns && self.columns <= WIDE {
            return self.run_tall(mr, nr, c);
        }
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
            // Few tasks are not shared evenly: half the rows each, where packing their columns twice does not count.
            let shares = if blocks < 2 * TASKS && self.rows >= HALVED { 2 } else { 1 };
            let rows = even(self.rows, shares, mr);
            let c = Shared::new(c);
            (0..blocks * shares).into_par_iter().for_each_init(Room::default, |b, t| {
                let rows = t % shares * rows..((t % shares + 1) * rows).min(self.rows);
                let factors = (Left::Packed(&a), Right::Pack(b));
                self.task(factors, rows, own(t / shares), blocks_of(self.depth), self.start, &c);
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
            let factors = (Left::Packed(&a), Right::Packed(&b));
            self.task(factors, rows, own(t / shares), blocks_of(self.depth), self.start, &c);
        });
    }

    /// Tasks of some rows and all columns, each of which packs its rows: a task of few columns would read all rows from memory.
    fn run_tall(&self, mr: usize, nr: usize, c: &mut [f32]) {
        let b = self.pack_right(nr);
        let rows = share_of(self.rows, mr, rayon::current_num_threads());
        let c = Shared::new(c);
        (0..self.rows.div_ceil(rows)).into_par_iter().for_each_init(Room::default, |a, t| {
            let rows = t * rows..((t + 1) * rows).min(self.rows);
            let factors = (Left::Pack(a), Right::Packed(&b));
            self.task(factors, rows, 0..self.columns, blocks_of(self.depth), self.start, &c);
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
        (0..parts * blocks).into_par_iter().for_each_init(Room::default, |b, t| {
            let p = t / blocks;
            let depth = deep[p * each..((p + 1) * each).min(deep.len())].iter().cloned();
            // SAFETY: each part has its own `size` elements, and its tasks write columns of their own.
            let c = Shared::new(unsafe { shared.part(p * size, size) });
            let factors = (Left::Packed(a), Right::Pack(b));
            part.task(factors, 0..self.rows, own(t % blocks), depth, Start::Zero, &c);
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
    fn pack_left(&self, mr: usize) -> Room {
        let panels = self.rows.div_ceil(mr);
        let mut a = Room::new(panels * mr * self.depth);
        let mut rest = &mut *a;
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
    fn pack_right(&self, nr: usize) -> Room {
        let panels = self.columns.div_ceil(nr);
        let mut b = Room::new(panels * nr * self.depth);
        let mut rest = &mut *b;
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
        let (mr, _) = wide_tile_size();
        let panels = self.rows.div_ceil(mr);
        let Scratch { a, b } = scratch;
        let size = panels * mr * self.depth;
        let mut rest = a.hold(size);
        for k in blocks_of(self.depth) {
            let (block, next) = rest.split_at_mut(panels * mr * k.len());
            rest = next;
            self.pack_left_panels(0, &k, block);
        }
        let c = Shared::new(c);
        for first in (0..self.columns).step_by(COLUMNS) {
            let columns = first..(first + COLUMNS).min(self.columns);
            let factors = (Left::Packed(a), Right::Pack(b));
            self.task(factors, 0..self.rows, columns, blocks_of(self.depth), self.start, &c);
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
        in_wide_tile!(self.pack_left_in(panel, k, out))
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
        in_wide_tile!(self.pack_right_in(panel, k, out))
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

/// Rows of a task: five to twelve panels of eight, so that `threads` are done at about the same time.
fn share_of(rows: usize, mr: usize, threads: usize) -> usize {
    /// What reading the right factor costs a task, in rows.
    const READING: usize = 4;
    let cost = |share: usize| {
        let (whole, rest) = (rows / share, rows % share);
        let last = whole / threads * share + if whole % threads > 0 { share } else { rest };
        last * (share + READING) * 1024 / share
    };
    (36_usize..=96)
        .rev()
        .filter(|share| share.is_multiple_of(mr))
        .min_by_key(|share| cost(*share))
        .unwrap_or(mr)
}

/// Blocks of the depth, as equal as can be.
fn blocks_of(depth: usize) -> impl Iterator<Item = Range<usize>> {
    let (_, lanes) = wide_tile_size();
    let size = depth.div_ceil(depth.div_ceil(self::depth(lanes)).max(1)).max(1);
    (0..depth).step_by(size).map(move |k| k..(k + size).min(depth))
}
