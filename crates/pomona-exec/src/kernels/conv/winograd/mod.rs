//! Dense convolutions of 3 x 3 taps by a quarter of their products (Winograd's minimal filtering, F(4 x 4, 3 x 3)).
//!
//! Tiles of four by four outputs take six by six transformed values times as many transformed taps; the sums over channels are
//! products of matrices, one for each of the 36. Lanes are channels throughout: values are turned as they come in and sums as they
//! go out, and between them every step is whole registers whatever the planes' sizes.

mod filters;
mod frame;
mod gradient;
mod load;
mod store;
mod tiles;
mod transform;
mod values;
mod worth;

use std::ops::Range;

use rayon::prelude::*;

pub(super) use filters::Filters;
use frame::{Frame, Pixels};
pub(super) use gradient::gradient;
use load::load;
use store::{Sums, store};
use tiles::Tiles;
use transform::{IN, OUT, PRODUCTS};
use values::Values;
pub(super) use worth::{fits, fits_input, fits_weight};

use crate::kernels::gemm::{add_tile, for_rows, put_tile, tile_of_registers};
use crate::kernels::simd::Simd;
use crate::kernels::tiles::{in_tile, tile_size};
use crate::kernels::{Room, Shared};

/// Floats of transformed filters up to which all are kept, for tasks of tiles; more of them are made by tasks of filters.
const KEPT: usize = 36 * 128 * 128;
/// Floats of a task's transformed values: a third of a second-level cache.
const VALUES: usize = 96 << 10;
/// Tiles of a task at least and at most.
const FEW: usize = 12;
const SOME: usize = 48;
/// Floats of the transformed values that tasks of filters share, and their tiles at most.
const SHARED: usize = 4 << 20;
const MANY: usize = 1 << 10;
/// Input channels whose filters a task of filters transforms at a time: they stay in the second-level cache.
const INPUTS: usize = 64;

/// A convolution by tiles.
pub(super) struct Winograd<'a> {
    tiles: Tiles,
    size: [usize; 2],
    before: [usize; 2],
    filters: Filters<'a>,
    /// A number for each output channel and the lanes behind the last.
    bias: Room,
}

/// Buffers that a task uses again.
#[derive(Default)]
struct Rooms {
    frame: Frame,
    values: Room,
    taps: Room,
    filters: Room,
    products: Room,
    stage: Room,
}

impl<'a> Winograd<'a> {
    /// From `[batch, inputs, size]` to `[batch, outputs, out]`, with `before` zeros around the values.
    pub(super) fn new(
        batch: usize,
        [size, out]: [[usize; 2]; 2],
        before: [usize; 2],
        filters: Filters<'a>,
        bias: Option<&[f32]>,
    ) -> Self {
        let (_, nr) = tile_size();
        let mut numbers = Room::zeros(filters.outputs.next_multiple_of(nr));
        if let Some(bias) = bias {
            numbers[..bias.len()].copy_from_slice(bias);
        }
        Self { tiles: Tiles { batch, out }, size, before, filters, bias: numbers }
    }

    pub(super) fn run(&self, x: &[f32], y: &mut [f32]) {
        let (mr, nr) = tile_size();
        let panels = self.filters.outputs.div_ceil(nr);
        let inputs = self.filters.inputs;
        let y = Sums { y: Shared::new(y), channels: self.filters.outputs, out: self.tiles.out };
        let (size, before) = (self.size, self.before);
        let planes = Pixels { x, all: inputs, first: 0, channels: inputs, size, before, more: IN - OUT };
        if PRODUCTS * inputs * panels * nr <= KEPT {
            let size = PRODUCTS * inputs * nr;
            let mut filters = Room::new(panels * size);
            filters.par_chunks_mut(size).enumerate().for_each_init(Room::default, |room, (p, out)| {
                in_tile!(self.panel_in(p, 0..inputs, room, out));
            });
            // Whole groups of tiles.
            let most = (VALUES / Values::floats(mr, inputs) * mr).clamp(FEW, SOME);
            let pieces = self.tiles.pieces(0..self.tiles.len(), most);
            pieces.into_par_iter().for_each_init(Rooms::default, |rooms, piece| {
                in_tile!(self.piece_in(piece, &planes, &filters, rooms, &y));
            });
            return;
        }
        let most = (SHARED / (PRODUCTS * inputs)).clamp(SOME, MANY).min(self.tiles.len());
        let mut room = Room::new(Values::floats(most, inputs));
        for block in self.tiles.pieces(0..self.tiles.len(), most) {
            let values = Values::new(&mut room, block.len(), inputs);
            self.tiles.pieces(block.clone(), FEW).into_par_iter().for_each_init(
                Frame::default,
                |frame, piece| {
                    in_tile!(self.values_in(piece, &block, &planes, frame, values));
                },
            );
            (0..panels).into_par_iter().for_each_init(Rooms::default, |rooms, p| {
                in_tile!(self.filters_in(p, block.clone(), values, rooms, &y));
            });
        }
    }

    /// A panel's output channels: the first, and how many there are.
    fn channels<const NR: usize>(&self, panel: usize) -> (usize, usize) {
        (panel * NR, NR.min(self.filters.outputs - panel * NR))
    }

    #[inline(always)]
    fn panel_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        panel: usize,
        inputs: Range<usize>,
        room: &mut Room,
        out: &mut [f32],
    ) {
        assert_eq!(out.len(), PRODUCTS * inputs.len() * NR, "a panel of transformed filters");
        let channels = self.channels::<NR>(panel);
        // SAFETY: the set was found by `level`; the length is asserted.
        unsafe { self.filters.panel::<S, NV, NR>(channels, inputs, room, out.as_mut_ptr()) };
    }

    /// All output channels of some tiles.
    #[inline(always)]
    fn piece_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        piece: Range<usize>,
        planes: &Pixels<'_>,
        filters: &[f32],
        rooms: &mut Rooms,
        y: &Sums<'_>,
    ) {
        let (spans, tiles, inputs) = (self.tiles.spans(piece.clone()), piece.len(), self.filters.inputs);
        let out = tiles.next_multiple_of(MR) * NR;
        let values = Values::new(rooms.values.hold(Values::floats(tiles, inputs)), tiles, inputs);
        let products = rooms.products.hold(PRODUCTS * out).as_mut_ptr();
        // SAFETY: the buffers have been made for so many tiles; no other task has the piece's sums.
        unsafe {
            load::<S, MR>(planes, &spans, &mut rooms.frame, (&values, 0));
            values.end::<S, MR>(tiles, inputs);
            for (panel, filters) in filters.chunks_exact(PRODUCTS * inputs * NR).enumerate() {
                multiply::<S, MR, NV, NR>((values, 0), filters, inputs, tiles, (products, out), false);
                let (first, n) = self.channels::<NR>(panel);
                let bias = &self.bias[first..first + NR];
                store::<S, NV, NR>(&spans, (products, out), bias, &mut rooms.stage, y, (first, n));
            }
        }
    }

    /// The transformed values of some tiles of a block.
    #[inline(always)]
    fn values_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        piece: Range<usize>,
        block: &Range<usize>,
        planes: &Pixels<'_>,
        frame: &mut Frame,
        values: Values,
    ) {
        let inputs = self.filters.inputs;
        // SAFETY: the values have been made for the block; each tile has its own place.
        unsafe {
            let to = (&values, piece.start - block.start);
            load::<S, MR>(planes, &self.tiles.spans(piece.clone()), frame, to);
            if piece.end == block.end {
                values.end::<S, MR>(block.len(), inputs);
            }
        }
    }

    /// A panel of output channels of a block's tiles.
    #[inline(always)]
    fn filters_in<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
        &self,
        panel: usize,
        block: Range<usize>,
        values: Values,
        rooms: &mut Rooms,
        y: &Sums<'_>,
    ) {
        let rows = block.len().next_multiple_of(MR);
        let products = rooms.products.hold(PRODUCTS * rows * NR).as_mut_ptr();
        // Many tiles' sums are not read and written again for the filters' sake.
        let some = if block.len() > SOME { self.filters.inputs } else { INPUTS };
        for first in (0..self.filters.inputs).step_by(some) {
            let inputs = first..(first + some).min(self.filters.inputs);
            let filters = rooms.filters.hold(PRODUCTS * inputs.len() * NR);
            self.panel_in::<S, MR, NV, NR>(panel, inputs.clone(), &mut rooms.taps, filters);
            // SAFETY: the buffers have been made for so many tiles.
            unsafe {
                let to = (products, rows * NR);
                multiply::<S, MR, NV, NR>((values, first), filters, inputs.len(), block.len(), to, first > 0);
            }
        }
        let (first, n) = self.channels::<NR>(panel);
        let (spans, bias) = (self.tiles.spans(block), &self.bias[first..first + NR]);
        // SAFETY: as above; no other task has these channels' sums.
        unsafe { store::<S, NV, NR>(&spans, (products, rows * NR), bias, &mut rooms.stage, y, (first, n)) };
    }
}

/// `out[product][tile][lane]`, plus what is there if `add`, from the channels from `first` on and a panel of filters
/// `[product][depth][lane]`.
///
/// # Safety
/// The processor has the set; all three have room for the tiles, rounded up to whole groups, and for the depth.
#[inline(always)]
unsafe fn multiply<S: Simd, const MR: usize, const NV: usize, const NR: usize>(
    (values, first): (Values, usize),
    filters: &[f32],
    depth: usize,
    tiles: usize,
    (out, plane): (*mut f32, usize),
    add: bool,
) {
    for e in 0..PRODUCTS {
        for i in (0..tiles).step_by(MR) {
            // SAFETY: as the caller vouches.
            unsafe {
                let a = values.at::<S, MR>(i, first).add(e * values.plane);
                let (b, c) = (filters.as_ptr().add(e * depth * NR), out.add(e * plane + i * NR));
                let rows = MR.min(tiles - i);
                for_rows!(rows, MR, rows_of::<S, _, MR, NV, NR>(depth, a, b, c, add));
            }
        }
    }
}

/// # Safety
/// As [`multiply`], for `R` tiles.
#[inline(always)]
unsafe fn rows_of<S: Simd, const R: usize, const MR: usize, const NV: usize, const NR: usize>(
    depth: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    add: bool,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let acc = tile_of_registers::<S, R, MR, NV>(depth, a, b);
        if add {
            add_tile::<S, R, NV>(acc, c, NR);
        } else {
            put_tile::<S, R, NV>(acc, c, NR);
        }
    }
}
