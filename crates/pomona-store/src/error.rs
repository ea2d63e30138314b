//! What can be wrong with a file.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The file breaks its format.
    #[error("{path}: {message}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        message: String,
    },
    /// A tensor breaks the format or cannot be used as asked.
    #[error("{path}: tensor `{tensor}`: {message}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What was expected and found.
        message: String,
    },
    /// No checkpoint, or one of a kind that is not read.
    #[error("{path}: {message}")]
    NotACheckpoint {
        /// The path.
        path: PathBuf,
        /// What is known instead.
        message: String,
    },
    /// The output exists, or is the source.
    #[error("{path}: {message}")]
    Output {
        /// The output.
        path: PathBuf,
        /// What would work.
        message: String,
    },
    /// The file system is too full.
    #[error(
        "{path}: {needed} bytes are needed and {free} are free on its file system: free space or choose another place; nothing was changed"
    )]
    NoSpace {
        /// The output.
        path: PathBuf,
        /// Bytes that the output takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The file system became full, or a quota was reached, while a file was written.
    #[error(
        "{path}: the disk is full ({source}) after {written} bytes of this file; what stood at the output before is unchanged: free space or choose another place"
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Bytes of it that were handed over before.
        written: u64,
        /// The system's reason.
        source: io::Error,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Attaches file and action to a system error.
pub(crate) fn io_error<'a>(
    path: &'a Path,
    action: &'static str,
) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { path: path.to_owned(), action, source }
}

/// Like [`io_error`] for a file being written: a full disk says so.
pub(crate) fn write_error<'a>(
    path: &'a Path,
    action: &'static str,
    written: u64,
) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::DiskFull { path: path.to_owned(), written, source }
        }
        _ => StoreError::Io { path: path.to_owned(), action, source },
    }
}

pub(crate) fn format_error(path: &Path, message: impl Into<String>) -> StoreError {
    StoreError::Format { path: path.to_owned(), message: message.into() }
}

pub(crate) fn tensor_error(path: &Path, tensor: &str, message: impl Into<String>) -> StoreError {
    StoreError::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), message: message.into() }
}
