//! safetensors, single files and sharded directories.

pub(crate) mod read;
mod write;

pub use write::{SafetensorsWriter, TensorSpec};
