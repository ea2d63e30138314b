//! Retraining: what a graph's weights become under a sum of losses.
//!
//! [`train`] runs steps: batches from a [`Source`] in an order that follows from seed and step alone, losses put together
//! from [`Term`]s over the outputs and taps of a student and a teacher, gradients from `pomona-exec`, an update rule. Its
//! state goes to disk as a whole ([`checkpoint`]), so that a run that was stopped ends with the same bits as one that was
//! not. Adapters are annotations of the graph ([`adapter`]).

pub mod adapter;
pub mod checkpoint;
mod clip;
pub mod data;
mod error;
pub mod log;
pub mod loss;
mod memory;
mod optimiser;
mod parameters;
mod pattern;
mod rows;
mod run;
mod running;
mod schedule;
mod shared;
mod step;
mod sums;

pub use data::{Batch, Order, Source, Target};
pub use error::{Result, TrainError};
pub use loss::{Kind, Losses, Normalise, Term};
pub use memory::{Need, need};
pub use optimiser::Rule;
pub use parameters::{Parameter, Parameters};
pub use pattern::Pattern;
pub use run::{Course, Ended, Finished, Limit, Run, train};
pub use running::Running;
pub use schedule::{Decay, Schedule, Warmup};
pub use shared::shared_prefix;
pub use step::{Network, StepReport};
