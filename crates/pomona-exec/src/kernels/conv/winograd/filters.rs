//! Filters transformed: panels of output channels, as the products read them.

use std::ops::Range;

use super::transform::{IN, TAPS, taps_of_block};
use crate::kernels::Room;
use crate::kernels::gemm::turn_rows;
use crate::kernels::simd::Simd;

/// Filters of three rows of three, as they lie in memory.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Filters<'a> {
    /// `[outputs, inputs, 3, 3]`; turned it is `[inputs, outputs, 3, 3]`, each filter read from its end.
    pub weight: &'a [f32],
    pub inputs: usize,
    pub outputs: usize,
    /// As a gradient goes back through a convolution.
    pub turned: bool,
}

impl Filters<'_> {
    /// Writes `[product][input of `inputs`][lane]` for the output channels `first .. first + n` as lanes.
    ///
    /// # Safety
    /// The processor has the set; `to` is good for all of these, `NR = NV * LANES` lanes each.
    #[inline(always)]
    pub(super) unsafe fn panel<S: Simd, const NV: usize, const NR: usize>(
        &self,
        (first, n): (usize, usize),
        inputs: Range<usize>,
        room: &mut Room,
        to: *mut f32,
    ) {
        /// Inputs whose taps are laid out at a time.
        const SOME: usize = 8;
        let room = room.hold(SOME * TAPS * NR);
        if n < NR {
            // Lanes that no channel writes.
            room.fill(0.0);
        }
        let all = inputs.len();
        for some in inputs.clone().step_by(SOME) {
            let own = some..(some + SOME).min(inputs.end);
            if self.turned {
                for (c, out) in own.clone().zip(room.chunks_exact_mut(TAPS * NR)) {
                    let from = &self.weight[(c * self.outputs + first) * TAPS..];
                    turn_rows::<S, NR>(from, TAPS, n, TAPS, out);
                }
            } else {
                let from = &self.weight[(first * self.inputs + own.start) * TAPS..];
                turn_rows::<S, NR>(from, self.inputs * TAPS, n, own.len() * TAPS, room);
            }
            for (c, taps) in own.zip(room.chunks_exact(TAPS * NR)) {
                for v in 0..NV {
                    // SAFETY: the caller vouches for the set and for `to`; a panel has `NR` lanes for each tap.
                    unsafe {
                        let mut block = [[S::zero(); 3]; 3];
                        for (y, row) in block.iter_mut().enumerate() {
                            for (x, tap) in row.iter_mut().enumerate() {
                                let t = if self.turned { TAPS - 1 - (y * 3 + x) } else { y * 3 + x };
                                *tap = S::load(taps.as_ptr().add(t * NR + v * S::LANES));
                            }
                        }
                        let block = taps_of_block::<S>(block);
                        for i in 0..IN {
                            for j in 0..IN {
                                let at = ((i * IN + j) * all + c - inputs.start) * NR + v * S::LANES;
                                S::store(to.add(at), block[i][j]);
                            }
                        }
                    }
                }
            }
        }
    }
}
