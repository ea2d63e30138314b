//! safetensors, single files and sharded directories.

mod header;
mod index;
mod layout;
pub(crate) mod read;
mod write;

pub(crate) use index::read_index;
pub use write::SafetensorsWriter;
