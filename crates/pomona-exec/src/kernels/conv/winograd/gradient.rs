//! The weight's gradient by tiles: that of transformed filters is a product over tiles, one for each of the 36.

use std::ops::Range;

use rayon::prelude::*;

use super::frame::{Frame, Pixels};
use super::load::{load, load_back};
use super::tiles::Tiles;
use super::transform::{IN, OUT, PRODUCTS, TAPS, taps_back_of_block};
use super::values::Values;
use super::{FEW, SHARED};
use crate::kernels::conv::Geometry;
use crate::kernels::gemm::{add_tile, for_rows, put_tile, tile_of_columns};
use crate::kernels::simd::Simd;
use crate::kernels::tiles::{in_tile, tile_size};
use crate::kernels::turn::turn_to;
use crate::kernels::{Room, Shared};

/// Floats of gradients of transformed filters that a task sums by itself: half of a second-level cache. Of larger ones tasks have
/// some of the products each.
const OWN: usize = 36 * 64 * 80;
/// Floats of them that are held at a time: some output channels' after others'.
const HELD: usize = 8 << 20;
/// Parts of the tiles, in whole rows of them about as many, whose sums are tasks; their order is the order of the sum.
const PARTS: usize = 8;
/// Floats of a task's transformed values.
const VALUES: usize = 160 << 10;

/// A gradient that is summed over tiles.
struct Gradient<'a> {
    x: Pixels<'a>,
    above: Pixels<'a>,
    tiles: Tiles,
}

/// Buffers that a task uses again.
#[derive(Default)]
struct Rooms {
    frame: Frame,
    values: Room,
    above: Room,
}

/// Transformed values and gradients of the same tiles, one behind the other.
#[derive(Clone, Copy)]
struct Factors {
    values: Values,
    above: Values,
}

/// The gradient of a weight `[outputs, inputs, 3, 3]` from the input and the gradient from above.
pub(in super::super) fn gradient(x: &[f32], above: &[f32], g: &Geometry, dw: &mut [f32]) {
    let (mr, nr) = tile_size();
    let some = HELD / (PRODUCTS * g.inputs.next_multiple_of(nr)) / mr * mr;
    for (part, dw) in dw.chunks_mut(some.max(mr) * g.inputs * TAPS).enumerate() {
        let (first, channels) = (part * some.max(mr), dw.len() / (g.inputs * TAPS));
        let x = Pixels {
            x,
            all: g.inputs,
            first: 0,
            channels: g.inputs,
            size: g.size,
            before: g.before,
            more: IN - OUT,
        };
        let above =
            Pixels { x: above, all: g.outputs, first, channels, size: g.out, before: [0, 0], more: 0 };
        Gradient { x, above, tiles: Tiles { batch: g.batch, out: g.out } }.run(dw);
    }
}

impl Gradient<'_> {
    /// Rows of a product's sums, with those that fill the last tile, and floats of each.
    fn sums(&self) -> [usize; 2] {
        let (mr, nr) = tile_size();
        [self.above.channels.next_multiple_of(mr), self.x.channels.next_multiple_of(nr)]
    }

    /// Floats of a tile's transformed values and gradients for a product.
    fn row(&self) -> usize {
        Values::row(self.x.channels) + Values::row(self.above.channels)
    }

    fn run(&self, dw: &mut [f32]) {
        let [rows, width] = self.sums();
        let size = PRODUCTS * rows * width;
        let all = 0..self.tiles.len();
        if size <= OWN {
            let parts = self.tiles.pieces(all.clone(), all.len().div_ceil(PARTS).max(FEW));
            let mut sums = Room::new(parts.len() * size);
            let tasks = sums.par_chunks_mut(size).zip(&parts);
            tasks.for_each_init(Rooms::default, |rooms, (sums, part)| {
                let sums = Shared::new(sums);
                let most = (VALUES / (PRODUCTS * self.row())).max(FEW);
                for piece in self.tiles.pieces(part.clone(), most) {
                    let factors = self.factors(&piece, rooms);
                    in_tile!(self.load_in(&piece, piece.start, factors, &mut rooms.frame));
                    in_tile!(self.multiply_in(
                        0..PRODUCTS,
                        piece.len(),
                        factors,
                        &sums,
                        piece.start > part.start
                    ));
                }
            });
            return self.finish(&sums, parts.len(), dw);
        }
        let most = (SHARED / (PRODUCTS * self.row())).max(FEW).min(all.len());
        let mut sums = Room::new(size);
        let mut rooms = Rooms::default();
        for block in self.tiles.pieces(all, most) {
            let factors = self.factors(&block, &mut rooms);
            self.tiles.pieces(block.clone(), FEW).into_par_iter().for_each_init(
                Frame::default,
                |frame, piece| {
                    in_tile!(self.load_in(&piece, block.start, factors, frame));
                },
            );
            let sums = Shared::new(&mut sums);
            (0..PRODUCTS).into_par_iter().for_each(|e| {
                in_tile!(self.multiply_in(e..e + 1, block.len(), factors, &sums, block.start > 0));
            });
        }
        self.finish(&sums, 1, dw);
    }

    /// Room for the transformed values of some tiles.
    fn factors(&self, tiles: &Range<usize>, rooms: &mut Rooms) -> Factors {
        Factors {
            values: Values::rows(&mut rooms.values, tiles.len(), self.x.channels),
            above: Values::rows(&mut rooms.above, tiles.len(), self.above.channels),
        }
    }

    #[inline(always)]
    fn load_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        piece: &Range<usize>,
        first: usize,
        to: Factors,
        frame: &mut Frame,
    ) {
        let spans = self.tiles.spans(piece.clone());
        // SAFETY: the set was found by `level`; the factors have been made for these tiles, each of which is one task's.
        unsafe {
            load::<S, 1>(&self.x, &spans, frame, (&to.values, piece.start - first));
            load_back::<S>(&self.above, &spans, frame, (&to.above, piece.start - first));
        }
    }

    /// Some products' sums over the tiles, plus what is there if `add`.
    #[inline(always)]
    fn multiply_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        products: Range<usize>,
        tiles: usize,
        factors: Factors,
        sums: &Shared<'_>,
        add: bool,
    ) {
        let [rows, width] = self.sums();
        assert!(products.end * rows * width <= sums.len(), "room for the sums");
        let strides = [factors.above.group, factors.values.group];
        for e in products {
            for c in (0..self.x.channels).step_by(NR) {
                for k in (0..self.above.channels).step_by(MR) {
                    // SAFETY: the factors have been made for so many tiles; the sums have room, as asserted, for whole tiles, and
                    // no other task has this product's.
                    unsafe {
                        let a = factors.above.at::<S, 1>(0, k).add(e * factors.above.plane);
                        let b = factors.values.at::<S, 1>(0, c).add(e * factors.values.plane);
                        let to = sums.at((e * rows + k) * width + c);
                        let some = MR.min(self.above.channels - k);
                        for_rows!(some, MR, sums_of::<S, _, NV>(tiles, (a, b), strides, (to, width), add));
                    }
                }
            }
        }
    }

    /// The taps' gradients from those of transformed filters, in parts that are added up.
    fn finish(&self, sums: &[f32], parts: usize, dw: &mut [f32]) {
        let filters = dw.par_chunks_mut((self.x.channels * TAPS).max(1));
        filters.enumerate().for_each(|(k, dw)| in_tile!(self.taps_in(sums, parts, k, dw)));
    }

    #[inline(always)]
    fn taps_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        sums: &[f32],
        parts: usize,
        k: usize,
        dw: &mut [f32],
    ) {
        /// Lanes of the widest register.
        const MOST: usize = 16;
        let [rows, width] = self.sums();
        assert!(sums.len() >= parts * PRODUCTS * rows * width && dw.len() >= self.x.channels * TAPS, "room");
        for c in (0..self.x.channels).step_by(S::LANES) {
            let mut taps = [0.0; TAPS * MOST];
            // SAFETY: the set was found by `level`; a row of sums has whole registers.
            unsafe {
                let mut block = [[S::zero(); IN]; IN];
                for i in 0..IN {
                    for j in 0..IN {
                        for part in 0..parts {
                            let at = ((part * PRODUCTS + i * IN + j) * rows + k) * width + c;
                            block[i][j] = S::add(block[i][j], S::load(sums.as_ptr().add(at)));
                        }
                    }
                }
                let block = taps_back_of_block::<S>(block);
                for y in 0..3 {
                    for x in 0..3 {
                        S::store(taps.as_mut_ptr().add((y * 3 + x) * MOST), block[y][x]);
                    }
                }
                let n = S::LANES.min(self.x.channels - c);
                turn_to::<S>(&taps, MOST, TAPS, n, dw[c * TAPS..].as_mut_ptr(), TAPS);
            }
        }
    }
}

/// # Safety
/// The processor has the set; the factors have groups for so many tiles, the result `R` rows of `NV` registers.
#[inline(always)]
unsafe fn sums_of<S: Simd, const R: usize, const NV: usize>(
    tiles: usize,
    factors: (*const f32, *const f32),
    strides: [usize; 2],
    (to, width): (*mut f32, usize),
    add: bool,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let acc = tile_of_columns::<S, R, NV>(tiles, factors, strides);
        if add {
            add_tile::<S, R, NV>(acc, to, width);
        } else {
            put_tile::<S, R, NV>(acc, to, width);
        }
    }
}
