//! Outputs that are either complete or not there.

mod directory;
mod file;

pub use directory::{OutputDir, OutputOptions};
pub use file::FileWriter;

use std::io::Write;
use std::path::Path;

use crate::error::{Result, io_error};

/// Order in which a checkpoint's tensors are written: each is begun, filled by bytes or copies, and ended.
pub trait TensorSink {
    /// Starts the tensor at this position of the writer's list. False: an interrupted run wrote it already; go on.
    fn begin(&mut self, index: usize) -> Result<bool>;
    /// Appends bytes of the tensor.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Appends `len` bytes at `offset` of another file, without reading them where the system can.
    fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()>;
    /// Checks that the tensor got the bytes that its shape takes.
    fn end(&mut self) -> Result<()>;
    /// Completes headers and flushes to disk.
    fn finish(&mut self) -> Result<()>;
}

/// Writes a small file so that a reader sees the old content or the new: temporary sibling, fsync, rename.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let attempt = || {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    attempt().map_err(|e| {
        // What was there before is untouched; the failed sibling is of no use.
        let _ = std::fs::remove_file(&temporary);
        io_error(path, "cannot be written; what was there is unchanged")(e)
    })
}
