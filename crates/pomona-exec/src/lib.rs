//! Runs a graph on Burn, forward and backward.
//!
//! The executor knows operators, not model families. [`Tensor`] has a dynamic rank and is the only place where Burn's
//! types appear. Inference on the CPU takes fused loops over slices where those are faster; gradients come from Burn's
//! autodiff.

mod allocator;
mod annotation;
mod burn_types;
mod device;
mod error;
mod evaluate;
mod gradients;
mod host;
mod ops;
mod state;
mod symbols;
mod tensor;
mod weights;

pub use allocator::keep_freed_memory;
pub use device::{Device, devices};
pub use error::{ExecError, Result};
pub use evaluate::{Feeds, Mode, Options, evaluate, needed};
pub use gradients::{Gradients, gradients};
pub use state::{start_states, step};
pub use tensor::{Kind, Tensor};
pub use weights::{Lazy, Loaded, WeightProvider};
