//! Checkpoint files of neural networks: safetensors (single and sharded), GGUF (single and
//! split), ONNX and PyTorch's (`.pth`, `.pt`, `.bin`; zip and legacy).
//!
//! **Reading.** [`Checkpoint::open`] maps files into memory read-only and parses headers; data is read when it is used, so
//! that a checkpoint larger than memory opens at once. [`Checkpoint::bytes`] gives a tensor as it stands in the file,
//! [`Checkpoint::decode_rows`] as f32. Every size and offset is checked against the file before it is used: data that
//! overlaps, leaves holes, or does not fit its shape is refused with the tensor's name, what was expected and what was
//! found. Nothing is allocated on a header's word alone, and nothing in a file is executed.
//!
//! **Writing.** A writer ([`SafetensorsWriter`], [`GgufWriter`]) is given the list of tensors first, lays out its files,
//! and then takes each tensor as bytes or as a range of another file, through [`TensorSink`]. Ranges go from file to file
//! inside the system (`copy_file_range`), neighbours in one call. Memory is one megabyte, whatever the tensors.
//!
//! **Outputs.** All files of an output go into an [`OutputDir`], a hidden sibling that gets its name when everything is on
//! the disk. A run that fails or is killed leaves the old output or none; one that is killed is continued by the next run
//! with the same key, also in the middle of a file.
//!
//! Shapes are row-major with the slowest axis first, in both formats. Nothing here knows what a layer is.
//!
//! ```
//! use pomona_store::{Checkpoint, Encoding, OutputDir, OutputOptions, SafetensorsWriter, TensorSink, TensorSpec};
//!
//! # fn main() -> pomona_store::Result<()> {
//! # let temporary = std::env::temp_dir().join(format!("pomona-store-{}", std::process::id()));
//! let mut out = OutputDir::create(&temporary, &OutputOptions { needed: 24, ..Default::default() })?;
//! let specs = vec![TensorSpec { name: "w".into(), encoding: Encoding::F32, shape: vec![2, 3] }];
//! let mut sink = SafetensorsWriter::new(&mut out, "model", specs, u64::MAX, &Default::default())?;
//! if sink.begin(0)? {
//!     sink.write(&[0; 24])?;
//!     sink.end()?;
//! }
//! sink.finish()?;
//! let path = out.commit()?;
//!
//! let model = Checkpoint::open(&path)?;
//! assert_eq!(model.decode_rows(model.info("w")?, 1..2)?, [0.0; 3]);
//! # std::fs::remove_dir_all(path).ok();
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod decode;
mod encoding;
mod error;
pub mod gguf;
pub mod onnx;
mod output;
pub mod safetensors;
mod torch;

pub use checkpoint::{Checkpoint, Format, TensorInfo};
pub use decode::{can_decode, decode, encode};
pub use encoding::Encoding;
pub use error::{Result, StoreError};
pub use gguf::{GgufValue, GgufWriter};
pub use onnx::OnnxWriter;
pub use output::{FileWriter, OutputDir, OutputOptions, TensorSink, TensorSpec, write_atomic};
pub use safetensors::SafetensorsWriter;
