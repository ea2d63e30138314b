//! Fused kernels on the CPU, forward and backward: a file a family. Each is compiled for AVX-512, AVX2 and what every
//! processor has, chosen at run time, and works on row-major slices with all threads of the pool. Sums are cut by sizes
//! alone and have one order, so that results depend neither on the number of threads nor on the run.

#![allow(
    clippy::needless_range_loop,
    reason = "lanes of a register are counted by a constant, over several arrays at once"
)]

mod adamw;
mod attention;
mod channel_norm;
mod conv;
mod cross_entropy;
#[cfg(test)]
mod definitions;
mod embedding;
mod gemm;
mod linear;
mod math;
mod narrow;
mod norm;
mod pointwise;
mod recurrent;
mod resample;
mod room;
mod rope;
mod simd;
mod softmax;
mod tape;
mod tiles;
mod turn;

pub use adamw::{AdamW, Moving};
pub(crate) use attention::{AttentionShape, Known, Mask, attention, attention_back};
pub(crate) use channel_norm::{
    After, Planes, batch_moments, batch_norm, batch_norm_back, group_norm, group_norm_back,
};
pub(crate) use conv::{Geometry, channel_sums, conv, conv_input, conv_weight};
pub use cross_entropy::{cross_entropy, log_sum_exp};
pub(crate) use embedding::{gather, scatter};
pub(crate) use linear::{linear, linear_back};
pub(crate) use narrow::linear_narrow;
pub use narrow::{Narrow, NarrowKind};
pub(crate) use norm::{Moments, norm, norm_back};
pub(crate) use pointwise::{Loops, activate, activate_back, has, multiply};
pub(crate) use recurrent::{Cell, Sequence, recurrent};
pub(crate) use resample::{resample, turned};
use room::Room;
pub(crate) use rope::{Turn, rotate};
pub use simd::{check_instructions, instructions};
pub(crate) use softmax::{softmax, softmax_back};
pub(crate) use tape::{Slice, record, record_sharing, seed, step};

/// Rows that a task takes: enough work to pay for its scheduling.
fn rows_per_task(width: usize) -> usize {
    (1 << 14) / width.max(1) + 1
}

/// A result that tasks write into at places of their own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    of: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the slice is borrowed as mutable for as long as this lives, and `at` leaves it to its caller to keep tasks apart.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), of: std::marker::PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The place of an element.
    ///
    /// # Safety
    /// `i` is at most the length.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, i: usize) -> *mut f32 {
        // SAFETY: within the slice or one past it, as the caller vouches.
        unsafe { self.start.add(i) }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// `first + n` is at most the length, and no other task has a part of it meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller keeps the parts of tasks apart")]
    pub(crate) unsafe fn part(&self, first: usize, n: usize) -> &'a mut [f32] {
        // SAFETY: as the caller vouches.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), n) }
    }
}

/// A buffer that a kernel is about to write in full. Zeroing it first would cost as much as many of the kernels.
#[allow(clippy::uninit_vec, reason = "every element is written before it is read")]
pub(crate) fn uninit(n: usize) -> Vec<f32> {
    let mut v = Vec::with_capacity(n);
    // SAFETY: the capacity is there, every bit pattern is a float, and kernels write each element before any is read.
    unsafe { v.set_len(n) };
    v
}

#[cfg(test)]
pub(crate) mod tests {
    /// Numbers in [-1, 1) that look random.
    pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
        let number = |i: u64| {
            let z = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ i).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n as u64).map(number).collect()
    }
}
