//! The interface through which tensors are written.

use std::path::Path;

use crate::checkpoint::TensorInfo;
use crate::encoding::Encoding;
use crate::error::Result;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// How elements are stored.
    pub encoding: Encoding,
    /// Shape, slowest axis first.
    pub shape: Vec<usize>,
}

impl From<&TensorInfo> for TensorSpec {
    fn from(info: &TensorInfo) -> Self {
        Self { name: info.name.clone(), encoding: info.encoding, shape: info.shape.clone() }
    }
}

/// Order in which a checkpoint's tensors are written: each is begun, filled by bytes or copies, and ended; all of them,
/// in the order of the writer's list.
pub trait TensorSink {
    /// Starts the tensor at this position of the writer's list. False: an interrupted run wrote it already; go on with
    /// the next one, without `end`.
    ///
    /// # Errors
    /// Where another tensor is due, or the file cannot be made.
    fn begin(&mut self, index: usize) -> Result<bool>;

    /// Appends bytes of the tensor.
    ///
    /// # Errors
    /// Where no tensor is begun, it would get more bytes than its shape takes, or the file cannot be written.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Appends `len` bytes at `offset` of another file, without reading them where the system can.
    ///
    /// # Errors
    /// As [`TensorSink::write`], and where the source ends before.
    fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()>;

    /// Checks that the tensor got the bytes that its shape takes.
    ///
    /// # Errors
    /// Where it got fewer.
    fn end(&mut self) -> Result<()>;

    /// Completes headers and flushes to disk.
    ///
    /// # Errors
    /// Where tensors of the list are missing, or the disk refuses.
    fn finish(&mut self) -> Result<()>;

    /// Appends all bytes of a tensor of another file, as they stand there.
    ///
    /// # Errors
    /// As [`TensorSink::copy`].
    fn copy_from(&mut self, info: &TensorInfo) -> Result<()> {
        self.copy(&info.file, info.offset, info.len)
    }
}
