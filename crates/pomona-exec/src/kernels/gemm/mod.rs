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

pub(crate) use micro::tile;
pub(crate) use operand::{Matrix, Operand, copy_lanes};

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Level, Portable, Simd, level};
use super::tiles::tile_size;
use super::{Shared, uninit};

/// Depth of a block: a panel of the right factor (16 lanes) takes half of a 32 kB cache.
const DEPTH: usize = 256;
/// Columns of a task: their block takes half of a 512 kB cache.
const COLUMNS: usize = 256;
/// Rows whose panels stay in the second-level cache meanwhile.
const ROWS: usize = 144;
/// Tasks that a product is cut into where its size allows.
const TASKS: usize = 8;
/// Products below which threads cost more than they bring.
const SMALL: usize = 1 << 17;

/// Calls a method that is generic over a set and its tile, from a function that enables the set.
macro_rules! in_set {
    ($this:ident.$method:ident($($arg:ident),*)) => {
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn run(f: impl FnOnce()) {
                    f();
                }
                // SAFETY: `level` found the set on this processor.
                unsafe { run(#[inline(always)] || $this.$method::<Avx512, 12, 2, 32>($($arg),*)) }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                #[target_feature(enable = "avx2,fma")]
                fn run(f: impl FnOnce()) {
                    f();
                }
                // SAFETY: `level` found the set on this processor.
                unsafe { run(#[inline(always)] || $this.$method::<Avx2, 6, 2, 16>($($arg),*)) }
            }
            Level::Portable => $this.$method::<Portable, 4, 2, 8>($($arg),*),
        }
    };
}

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
        let mut a = uninit(self.rows.div_ceil(mr) * mr * self.depth);
        let panels = self.rows.div_ceil(mr);
        let mut rest = a.as_mut_slice();
        for k in blocks(self.depth) {
            let (block, next) = rest.split_at_mut(panels * mr * k.len());
            rest = next;
            // A few panels a task: a panel is some thousand copies.
            let chunks = block.par_chunks_mut(mr * k.len() * 8).enumerate();
            chunks.for_each(|(g, out)| self.pack_left(g * 8, &k, out));
        }
        let even = |n: usize, parts: usize, unit: usize| n.div_ceil(parts).next_multiple_of(unit);
        let columns = even(self.columns, self.columns.div_ceil(COLUMNS), nr);
        let blocks = self.columns.div_ceil(columns);
        // Few columns: rows are shared out as well, and each share packs the columns anew.
        let shares = TASKS.div_ceil(blocks).min(self.rows.div_ceil(4 * mr)).max(1);
        let rows = even(self.rows, shares, mr);
        let shares = self.rows.div_ceil(rows);
        let c = Shared::new(c);
        (0..blocks * shares).into_par_iter().for_each_init(Vec::new, |b, t| {
            let (r, j) = (t % shares * rows, t / shares * columns);
            let (r, j) = (r..(r + rows).min(self.rows), j..(j + columns).min(self.columns));
            self.task(&a, r, j, &c, b);
        });
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
        for k in blocks(self.depth) {
            let (block, next) = rest.split_at_mut(panels * mr * k.len());
            rest = next;
            self.pack_left(0, &k, block);
        }
        let c = Shared::new(c);
        for first in (0..self.columns).step_by(COLUMNS) {
            let columns = first..(first + COLUMNS).min(self.columns);
            self.task(a, 0..self.rows, columns, &c, b);
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

    /// Panels of the left factor's rows from a panel on: `[block of depth][panel][depth][MR]`.
    fn pack_left(&self, panel: usize, k: &Range<usize>, out: &mut [f32]) {
        in_set!(self.pack_left_in(panel, k, out))
    }

    #[inline(always)]
    fn pack_left_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        panel: usize,
        k: &Range<usize>,
        out: &mut [f32],
    ) {
        for (p, out) in out.chunks_exact_mut(MR * k.len()).enumerate() {
            let first = (panel + p) * MR;
            self.a.pack::<MR>(first, MR.min(self.rows - first), k.clone(), out);
        }
    }

    /// Rows `rows` (from a panel's first on) of columns `columns`.
    fn task(&self, a: &[f32], rows: Range<usize>, columns: Range<usize>, c: &Shared<'_>, b: &mut Vec<f32>) {
        in_set!(self.task_in(a, rows, columns, c, b))
    }

    #[inline(always)]
    fn task_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        a: &[f32],
        rows: Range<usize>,
        columns: Range<usize>,
        c: &Shared<'_>,
        b: &mut Vec<f32>,
    ) {
        let panels = columns.len().div_ceil(NR);
        let left = self.rows.div_ceil(MR) * MR;
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
        b.resize((panels * NR * DEPTH.min(self.depth)).max(b.len()), 0.0);
        for k in blocks(self.depth) {
            for ((first, n, ..), out) in places.iter().zip(b.chunks_exact_mut(NR * k.len())) {
                self.b.pack::<NR>(*first, *n, k.clone(), out);
            }
            let a = &a[left * k.start..][..left * k.len()];
            for block in rows.clone().step_by(ROWS) {
                let block = block..(block + ROWS).min(rows.end);
                for ((first, n, at, whole), b) in places.iter().zip(b.chunks_exact(NR * k.len())) {
                    for i in block.clone().step_by(MR) {
                        let m = MR.min(rows.end - i);
                        let a = &a[i * k.len()..][..MR * k.len()];
                        let start = if k.start > 0 { Start::Add } else { self.start };
                        let place = Place { row: i, rows: m, column: *first, columns: *n, at, whole: *whole };
                        // SAFETY: both panels hold `k.len()` groups; `task` checked that the place lies within `c`,
                        // and no other task has it; the set was found by `level`.
                        unsafe {
                            one_tile::<S, MR, NV, NR>((a, b, k.len()), &place, self.row_stride, start, c)
                        };
                    }
                }
            }
        }
    }
}

/// Blocks of the depth, as equal as can be.
fn blocks(depth: usize) -> impl Iterator<Item = Range<usize>> {
    let size = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1);
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
        let acc = tile::<S, MR, NV>(k, a.as_ptr(), b.as_ptr());
        if place.whole && place.rows == MR {
            for (i, row) in acc.iter().enumerate() {
                let c = c.at((place.row + i) * row_stride + place.at[0]);
                for (v, x) in row.iter().enumerate() {
                    let c = c.add(v * S::LANES);
                    let x = match start {
                        Start::Zero => *x,
                        Start::Row(r) => S::add(*x, S::splat(r[place.row + i])),
                        Start::Column(r) => {
                            S::add(*x, S::load(r[place.column + v * S::LANES..][..S::LANES].as_ptr()))
                        }
                        Start::Add => S::add(*x, S::load(c)),
                    };
                    S::store(c, x);
                }
            }
            return;
        }
        let mut row = [0.0_f32; NR];
        for (i, acc) in acc.iter().enumerate().take(place.rows) {
            for (v, x) in acc.iter().enumerate() {
                S::store(row.as_mut_ptr().add(v * S::LANES), *x);
            }
            for (j, x) in row.iter().enumerate().take(place.columns) {
                let c = c.at((place.row + i) * row_stride + place.at[j]);
                *c = match start {
                    Start::Zero => *x,
                    Start::Row(r) => x + r[place.row + i],
                    Start::Column(r) => x + r[place.column + j],
                    Start::Add => x + *c,
                };
            }
        }
    }
}
