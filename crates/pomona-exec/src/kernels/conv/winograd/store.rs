//! Tiles' sums as they go out.

use super::tiles::Span;
use super::transform::{IN, OUT, sums_of_block};
use crate::kernels::simd::Simd;
use crate::kernels::turn::turn_to;
use crate::kernels::{Room, Shared};

/// Where sums go: `[sample][channel][row][column]`.
pub(super) struct Sums<'a> {
    pub y: Shared<'a>,
    pub channels: usize,
    pub out: [usize; 2],
}

/// Sums of spans, of the channels `first .. first + n`, from products `[product][tile][lane]`.
///
/// # Safety
/// The processor has the set; `products` is good for the spans' tiles, `plane` for each product; no other task has the place of
/// these sums.
#[inline(always)]
pub(super) unsafe fn store<S: Simd, const NV: usize, const NR: usize>(
    spans: &[Span],
    (products, plane): (*const f32, usize),
    bias: &[f32],
    stage: &mut Room,
    y: &Sums<'_>,
    (first, n): (usize, usize),
) {
    let ([height, width], all) = (y.out, y.channels);
    let mut products = products;
    for span in spans {
        let from = [span.rows.start * OUT, span.columns.start * OUT];
        let rows = (span.rows.end * OUT).min(height) - from[0];
        let columns = (span.columns.end * OUT).min(width) - from[1];
        let stage = stage.hold(rows * columns * NR);
        for r in (0..rows).step_by(OUT) {
            for c in (0..columns).step_by(OUT) {
                for v in 0..NV {
                    // SAFETY: the caller vouches for the products; the sums that are kept lie within the stage.
                    unsafe {
                        let mut at = products.add(v * S::LANES);
                        let mut block = [[S::zero(); IN]; IN];
                        for i in 0..IN {
                            for j in 0..IN {
                                block[i][j] = S::load(at);
                                at = at.wrapping_add(plane);
                            }
                        }
                        let block = sums_of_block::<S>(block);
                        let bias = S::load(bias.as_ptr().add(v * S::LANES));
                        for (i, block) in block.iter().enumerate().take(rows - r) {
                            for (j, sum) in block.iter().enumerate().take(columns - c) {
                                let at = ((r + i) * columns + c + j) * NR + v * S::LANES;
                                S::store(stage.as_mut_ptr().add(at), S::add(*sum, bias));
                            }
                        }
                    }
                }
                products = products.wrapping_add(NR);
            }
        }
        let place = (span.sample * all + first) * height * width;
        // Whole rows lie one behind the other.
        let (lines, pixels) = if columns == width { (1, rows * width) } else { (rows, columns) };
        for line in 0..lines {
            let at = place + (from[0] + line) * width + from[1];
            let stage = &stage[line * pixels * NR..][..pixels * NR];
            assert!(at + (n - 1) * height * width + pixels <= y.y.len(), "sums within their planes");
            // SAFETY: asserted; the caller vouches for the set and that these pixels are the task's own.
            unsafe { turn_to::<S>(stage, NR, pixels, n, y.y.at(at), height * width) };
        }
    }
}
