//! Toy networks for tests and examples: the shapes of real models at a few thousand parameters.
//!
//! A toy is a graph alone: its weights are whatever the caller puts into the table's tensors.

mod llama;
mod unet;

pub use llama::llama;
pub use unet::{UnetSizes, unet};
