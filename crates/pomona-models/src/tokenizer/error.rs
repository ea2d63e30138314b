//! What can go wrong with a tokenizer.

use std::path::{Path, PathBuf};

/// Errors of reading, running and writing tokenizers. Each names the file or metadata key it is about.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A tokenizer file is malformed or beyond the limits.
    #[error("{origin}: {message}")]
    File {
        /// The file, or `GGUF metadata`.
        origin: String,
        /// What was expected and found.
        message: String,
    },
    /// A GGUF metadata entry is missing or wrong.
    #[error("GGUF metadata `{key}` {message}")]
    Metadata {
        /// The key.
        key: String,
        /// What was expected and found.
        message: String,
    },
    /// A kind of tokenizer that the wanted format or this program does not have.
    #[error("{origin}: {kind} is not supported: {message}")]
    Unsupported {
        /// The file, or `GGUF metadata`.
        origin: String,
        /// The kind, as the file calls it.
        kind: String,
        /// What would work.
        message: String,
    },
    /// The tokenizer failed on a text or on ids.
    #[error("{origin}: {message}")]
    Run {
        /// The tokenizer's file, or `GGUF metadata`.
        origin: String,
        /// The reason.
        message: String,
    },
    /// A chat template is missing, malformed, refused the messages, or ran out of its allowance.
    #[error("chat template: {message}")]
    Chat {
        /// The reason, with the template's line where there is one.
        message: String,
    },
}

/// Result of tokenizer functions.
pub type Result<T> = std::result::Result<T, TokenizerError>;

pub(super) fn io_error(path: &Path, source: std::io::Error) -> TokenizerError {
    TokenizerError::Io { path: path.to_owned(), source }
}

pub(super) fn file_error(origin: impl Into<String>, message: impl Into<String>) -> TokenizerError {
    TokenizerError::File { origin: origin.into(), message: message.into() }
}

pub(super) fn key_error(key: impl Into<String>, message: impl Into<String>) -> TokenizerError {
    TokenizerError::Metadata { key: key.into(), message: message.into() }
}

pub(super) fn unsupported(
    origin: impl Into<String>,
    kind: impl Into<String>,
    message: impl Into<String>,
) -> TokenizerError {
    TokenizerError::Unsupported { origin: origin.into(), kind: kind.into(), message: message.into() }
}
