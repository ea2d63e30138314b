//! Outputs that are either complete or not there.

mod atomic;
mod directory;
mod file;
mod flusher;
mod guard;
mod journal;
mod publish;
mod sink;
mod stream;

pub use atomic::write_atomic;
pub use directory::{OutputDir, OutputOptions};
pub use file::FileWriter;
pub use sink::{TensorSink, TensorSpec};
pub(crate) use stream::{PlannedFile, Stream};
