//! A task's part of a product: tile after tile of some rows and columns.

use std::ops::Range;

use super::micro::{for_rows, some_rows_in_place, some_rows_while};
use super::{Operand, Product, Start, pack_panels};
use crate::kernels::simd::Simd;
use crate::kernels::tiles::in_wide_tile;
use crate::kernels::{Room, Shared};

/// Rows whose panels stay in the second-level cache while the task's columns pass by.
const ROWS: usize = 96;
/// Rows for which the right factor's windows are read where they lie: more of them make up for packing.
const IN_PLACE: usize = 192;

/// Where a task's panels of the left factor come from.
pub(super) enum Left<'a> {
    /// All of them, packed before.
    Packed(&'a [f32]),
    /// The task packs its own into this room.
    Pack(&'a mut Room),
}

/// Where a task's panels of the right factor come from.
pub(super) enum Right<'a> {
    /// All of them, packed before.
    Packed(&'a [f32]),
    /// The task packs its own into this room, or reads them in place.
    Pack(&'a mut Room),
}

/// Columns of a tile's width, or the last ones.
struct Panel<const NR: usize, const NV: usize> {
    first: usize,
    columns: usize,
    /// Where each column's element of the first row lies.
    at: [usize; NR],
    /// Whether a register's columns are all there, side by side.
    whole: [bool; NV],
    /// Where the registers of the right factor lie, if they are read in place.
    starts: Option<[usize; NV]>,
}

/// Where a tile of the right factor is read.
enum Source<'a, const NV: usize> {
    Packed(&'a [f32], usize),
    InPlace([*const f32; NV], &'a [usize]),
}

impl<A: Operand, B: Operand, F: Fn(usize) -> usize + Sync> Product<'_, A, B, F> {
    /// Rows `rows` (from a panel's first on) of columns `columns` (likewise), over some blocks of the depth.
    pub(super) fn task(
        &self,
        factors: (Left<'_>, Right<'_>),
        rows: Range<usize>,
        columns: Range<usize>,
        depth: impl Iterator<Item = Range<usize>>,
        start: Start<'_>,
        c: &Shared<'_>,
    ) {
        in_wide_tile!(self.task_in(factors, rows, columns, depth, start, c))
    }

    #[inline(always)]
    fn task_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        (mut a, mut b): (Left<'_>, Right<'_>),
        rows: Range<usize>,
        columns: Range<usize>,
        depth: impl Iterator<Item = Range<usize>>,
        mut start: Start<'_>,
        c: &Shared<'_>,
    ) {
        let [left, right] = [self.rows.div_ceil(MR) * MR, self.columns.div_ceil(NR) * NR];
        let in_place = matches!(b, Right::Pack(_)) && rows.len() <= IN_PLACE;
        let panels: Vec<Panel<NR, NV>> = columns
            .clone()
            .step_by(NR)
            .map(|first| self.panel::<S, NR, NV>(first, NR.min(columns.end - first), in_place))
            .collect();
        let furthest = panels.iter().flat_map(|p| &p.at[..p.columns]).max().copied().unwrap_or(0);
        assert!(
            furthest + (rows.end - 1) * self.row_stride < c.len(),
            "a product's column lies outside its result"
        );
        let in_place = panels.iter().any(|p| p.starts.is_some());
        let furthest = panels.iter().flat_map(|p| p.starts.iter().flatten()).max().copied().unwrap_or(0);
        let mut offsets = Vec::new();
        for k in depth {
            let size = NR * k.len();
            let packed: &[f32] = match &mut b {
                Right::Packed(b) => &b[right * k.start + columns.start * k.len()..][..panels.len() * size],
                Right::Pack(room) => {
                    for (p, out) in panels.iter().zip(room.hold(panels.len() * size).chunks_exact_mut(size)) {
                        if p.starts.is_none() {
                            pack_panels::<S, B, NR>(self.b, p.first..p.first + p.columns, &k, out);
                        }
                    }
                    room
                }
            };
            if in_place {
                offsets.clear();
                self.b.offsets(k.clone(), &mut offsets);
                assert_eq!(offsets.len(), k.len(), "an offset for each product");
                let end = furthest + offsets.iter().max().copied().unwrap_or(0) + S::LANES;
                assert!(end <= self.b.values().len(), "a window leads out of its planes");
            }
            // The panel of row `first` is the first of these.
            let (a, first): (&[f32], usize) = match &mut a {
                Left::Packed(a) => (&a[left * k.start..][..left * k.len()], 0),
                Left::Pack(room) => {
                    let size = rows.len().div_ceil(MR) * MR * k.len();
                    pack_panels::<S, A, MR>(self.a, rows.clone(), &k, room.hold(size));
                    (room, rows.start)
                }
            };
            for block in rows.clone().step_by(ROWS) {
                let block = block..(block + ROWS).min(rows.end);
                for (panel, packed) in panels.iter().zip(packed.chunks_exact(size)) {
                    for i in block.clone().step_by(MR) {
                        let m = MR.min(rows.end - i);
                        let a = &a[(i - first) * k.len()..][..MR * k.len()];
                        // SAFETY: `a` and the packed panel hold `k.len()` groups, and the registers in place lie within
                        // the values, as asserted; so do the tile's elements within `c`, and no other task has them; the
                        // set was found by `level`.
                        unsafe {
                            let b = match panel.starts {
                                None => Source::Packed(packed, k.len()),
                                Some(starts) => {
                                    let values = self.b.values().as_ptr();
                                    Source::InPlace(starts.map(|s| values.add(s)), &offsets)
                                }
                            };
                            let c = |row: usize, j: usize| c.at((i + row) * self.row_stride + panel.at[j]);
                            for_rows!(m, MR, tile_of::<S, _, MR, NV, NR>(a, b, (i, m), panel, start, c));
                        }
                    }
                }
            }
            start = Start::Add;
        }
    }

    #[inline(always)]
    fn panel<S: Simd, const NR: usize, const NV: usize>(
        &self,
        first: usize,
        columns: usize,
        in_place: bool,
    ) -> Panel<NR, NV> {
        let mut at = [0_usize; NR];
        for (j, at) in at[..columns].iter_mut().enumerate() {
            *at = (self.column)(first + j);
        }
        let mut whole = [false; NV];
        for (whole, at) in whole.iter_mut().zip(at[..columns].chunks_exact(S::LANES)) {
            *whole = at.iter().enumerate().all(|(j, a)| *a == at[0] + j);
        }
        let mut starts = [0; NV];
        let starts =
            (in_place && columns == NR && self.b.in_place(first, S::LANES, &mut starts)).then_some(starts);
        Panel { first, columns, at, whole, starts }
    }
}

/// A tile of the result, of which `rows` (the first one's number, and how many) and the panel's columns are wanted: at most `R`
/// rows, whose left factor is packed in groups of `MR`.
///
/// # Safety
/// The processor has the set `S`; both factors can be read for as many products as `b` says; `c` gives the places of
/// elements that are this task's own.
#[inline(always)]
unsafe fn tile_of<S: Simd, const R: usize, const MR: usize, const NV: usize, const NR: usize>(
    a: &[f32],
    b: Source<'_, NV>,
    rows: (usize, usize),
    panel: &Panel<NR, NV>,
    start: Start<'_>,
    c: impl Fn(usize, usize) -> *mut f32,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        // Of the last columns as many registers as they fill.
        match panel.columns.div_ceil(S::LANES) {
            1 if NV > 1 => registers_of::<S, R, MR, NV, NR, 1>(a, b, rows, panel, start, c),
            2 if NV > 2 => registers_of::<S, R, MR, NV, NR, 2>(a, b, rows, panel, start, c),
            _ => registers_of::<S, R, MR, NV, NR, NV>(a, b, rows, panel, start, c),
        }
    }
}

/// As [`tile_of`], of which `W` registers of each row are wanted.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn registers_of<
    S: Simd,
    const R: usize,
    const MR: usize,
    const NV: usize,
    const NR: usize,
    const W: usize,
>(
    a: &[f32],
    b: Source<'_, NV>,
    (first, rows): (usize, usize),
    panel: &Panel<NR, NV>,
    start: Start<'_>,
    c: impl Fn(usize, usize) -> *mut f32,
) {
    // SAFETY: as the caller vouches; asking for memory reads nothing.
    unsafe {
        let side_by_side = panel.whole[..W].iter().all(|w| *w);
        let ask = |i| {
            if side_by_side && i < rows {
                for v in 0..W {
                    S::expect(c(i, v * S::LANES));
                }
                S::expect(c(i, W * S::LANES - 1));
            }
        };
        let acc = match b {
            Source::Packed(b, k) => some_rows_while::<S, R, MR, NV, W>(k, a.as_ptr(), b.as_ptr(), ask),
            Source::InPlace(b, offsets) => {
                (0..rows).for_each(ask);
                some_rows_in_place::<S, R, MR, NV, W>(offsets, a.as_ptr(), b)
            }
        };
        if side_by_side && rows == R {
            for v in 0..W {
                whole_register::<S, R, W>(&acc, v, start, [first, panel.first + v * S::LANES], |i| {
                    c(i, v * S::LANES)
                });
            }
            return;
        }
        // Out of the registers at once, by constant places: whatever is then done with the tile, the sums stay in them.
        let mut sums = [[0.0_f32; NR]; R];
        for i in 0..R {
            for v in 0..W {
                S::store(sums[i].as_mut_ptr().add(v * S::LANES), acc[i][v]);
            }
        }
        for (i, sums) in sums.iter().enumerate().take(rows) {
            for (v, sums) in sums[..panel.columns].chunks(S::LANES).enumerate() {
                let place = |j: usize| c(i, v * S::LANES + j);
                let column = panel.first + v * S::LANES;
                if panel.whole[v] {
                    let sum = [[S::load(sums.as_ptr())]];
                    whole_register::<S, 1, 1>(&sum, 0, start, [first + i, column], |_| place(0));
                    continue;
                }
                for (j, s) in sums.iter().enumerate() {
                    let c = place(j);
                    *c = match start {
                        Start::Zero => *s,
                        Start::Row(r) => s + r[first + i],
                        Start::Column(r) => s + r[column + j],
                        Start::Add => s + *c,
                    };
                }
            }
        }
    }
}

/// Writes a register of each row, whose columns lie side by side.
///
/// # Safety
/// The processor has the set; `c` gives the place of each row's first element, the others lie behind it.
#[inline(always)]
unsafe fn whole_register<S: Simd, const R: usize, const W: usize>(
    acc: &[[S::V; W]; R],
    v: usize,
    start: Start<'_>,
    [row, column]: [usize; 2],
    c: impl Fn(usize) -> *mut f32,
) {
    // SAFETY: as the caller vouches; what is added to rows and columns has one for each, as slices say.
    unsafe {
        match start {
            Start::Zero => {
                for i in 0..R {
                    S::store(c(i), acc[i][v]);
                }
            }
            Start::Row(r) => {
                let r = &r[row..row + R];
                for i in 0..R {
                    S::store(c(i), S::add(acc[i][v], S::splat(r[i])));
                }
            }
            Start::Column(r) => {
                let before = S::load(r[column..column + S::LANES].as_ptr());
                for i in 0..R {
                    S::store(c(i), S::add(acc[i][v], before));
                }
            }
            Start::Add => {
                for i in 0..R {
                    S::store(c(i), S::add(acc[i][v], S::load(c(i))));
                }
            }
        }
    }
}
