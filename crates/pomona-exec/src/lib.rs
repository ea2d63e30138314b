//! Runs a graph on Burn, forward and backward.
//!
//! The executor knows operators, not model families. [`Tensor`] has a dynamic rank and is the only place where Burn's
//! types appear. On the CPU every operator that costs time runs through a kernel of `kernels`, forward and backward; Burn's
//! tape strings the backward steps together, and its operators run on other devices.

mod allocator;
mod annotation;
mod burn_types;
mod checkpoints;
mod device;
mod error;
mod evaluate;
mod gradients;
mod kernels;
mod ops;
mod state;
mod symbols;
mod tensor;
mod threads;
mod weights;

pub use allocator::{Memory, keep_freed_memory, peak_memory};
pub use checkpoints::block_ends;
pub use device::{Device, devices};
pub use error::{ExecError, Result};
pub use evaluate::{BatchMoments, ChannelMoments, Feeds, Mode, Options, evaluate, needed};
pub use gradients::{Gradients, Wrt, gradients, gradients_of_loss};
pub use kernels::{
    AdamW, Moving, Narrow, NarrowKind, check_instructions, cross_entropy, instructions, log_sum_exp,
};
pub use state::{start_states, step};
pub use symbols::elements;
pub use tensor::{Kind, Tensor};
pub use threads::{among_workers, side_by_side};
pub use weights::{Lazy, Loaded, WeightProvider};
