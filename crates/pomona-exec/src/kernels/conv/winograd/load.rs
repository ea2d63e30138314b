//! Tiles' values, transformed as they come in.

use super::frame::{Frame, Pixels};
use super::tiles::Span;
use super::transform::{self, IN, OUT};
use super::values::Values;
use crate::kernels::simd::Simd;

/// Transformed values of spans, the first tile's as number `first` of the values.
///
/// # Safety
/// The processor has the set; the values have room for the spans' tiles, and no other task has these.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, const MR: usize>(
    planes: &Pixels<'_>,
    spans: &[Span],
    frame: &mut Frame,
    (values, first): (&Values, usize),
) {
    let (mut first, plane, channels) = (first, values.plane, planes.channels);
    for span in spans {
        let (frame, width) = frame.lay(planes, span);
        let row = width * channels;
        for r in 0..span.rows.len() {
            for c in (0..channels).step_by(S::LANES) {
                // SAFETY: a frame has six rows for the last of the tiles and a register more; the caller vouches for the rest.
                unsafe {
                    let mut from = frame.as_ptr().add(r * OUT * row + c);
                    let mut tile = first + r * span.columns.len();
                    // Columns of a tile, of which the next one has the last two.
                    let mut columns = [[S::zero(); IN]; IN];
                    for x in 0..IN - OUT {
                        columns[x] = column::<S>(from, row);
                        from = from.wrapping_add(channels);
                    }
                    for _ in 0..span.columns.len() {
                        for x in IN - OUT..IN {
                            columns[x] = column::<S>(from, row);
                            from = from.wrapping_add(channels);
                        }
                        let mut out = values.at::<S, MR>(tile, c);
                        for i in 0..IN {
                            let mut line = [S::zero(); IN];
                            for x in 0..IN {
                                line[x] = columns[x][i];
                            }
                            let line = transform::values::<S>(line);
                            for j in 0..IN {
                                S::store(out, line[j]);
                                out = out.wrapping_add(plane);
                            }
                        }
                        tile = tile.wrapping_add(1);
                        for x in 0..IN - OUT {
                            columns[x] = columns[x + OUT];
                        }
                    }
                }
            }
        }
        first += span.len();
    }
}

/// Transformed gradients of sums, as [`load`] has values; each tile is a group of its own.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn load_back<S: Simd>(
    planes: &Pixels<'_>,
    spans: &[Span],
    frame: &mut Frame,
    (values, first): (&Values, usize),
) {
    let (mut tile, channels) = (first, planes.channels);
    for span in spans {
        let (frame, width) = frame.lay(planes, span);
        for r in 0..span.rows.len() {
            for x in 0..span.columns.len() {
                for c in (0..channels).step_by(S::LANES) {
                    // SAFETY: a frame has four rows and columns for each tile and a register more; the caller vouches for the rest.
                    unsafe {
                        let from = frame.as_ptr().add((r * OUT * width + x * OUT) * channels + c);
                        let mut block = [[S::zero(); OUT]; OUT];
                        for i in 0..OUT {
                            for j in 0..OUT {
                                block[i][j] = S::load(from.add((i * width + j) * channels));
                            }
                        }
                        let block = transform::sums_back_of_block::<S>(block);
                        let mut out = values.at::<S, 1>(tile, c);
                        for i in 0..IN {
                            for j in 0..IN {
                                S::store(out, block[i][j]);
                                out = out.wrapping_add(values.plane);
                            }
                        }
                    }
                }
                tile += 1;
            }
        }
    }
}

/// A column of six rows, transformed.
///
/// # Safety
/// The processor has the set; a register can be read at each of the rows.
#[inline(always)]
unsafe fn column<S: Simd>(from: *const f32, row: usize) -> [S::V; IN] {
    // SAFETY: as the caller vouches.
    unsafe {
        let mut d = [S::zero(); IN];
        for y in 0..IN {
            d[y] = S::load(from.wrapping_add(y * row));
        }
        transform::values::<S>(d)
    }
}
