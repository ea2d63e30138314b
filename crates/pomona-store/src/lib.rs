//! Checkpoint files of neural networks: safetensors (single and sharded) and GGUF.
//!
//! Reading maps files into memory and parses headers; sizes and offsets are checked before use. Writing streams one
//! tensor or row chunk at a time into a hidden sibling that is renamed when it is complete. Nothing here knows what a
//! layer is.

mod checkpoint;
mod decode;
mod encoding;
mod error;
pub mod gguf;
mod output;
pub mod safetensors;

pub use checkpoint::{Checkpoint, Format, TensorInfo};
pub use decode::{can_decode, decode, encode};
pub use encoding::Encoding;
pub use error::{Result, StoreError};
pub use gguf::{GgufValue, GgufWriter};
pub use output::{FileWriter, OutputDir, OutputOptions, TensorSink, TensorSpec, write_atomic};
pub use safetensors::SafetensorsWriter;
