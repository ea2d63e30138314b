//! What can go wrong between a file and a graph.

use std::path::{Path, PathBuf};

use pomona_graph::GraphError;
use pomona_store::StoreError;

/// An error of this crate. Messages name the file, tensor or key, what was expected and found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A checkpoint file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A graph, plan or recipe is inconsistent.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The path holds nothing that is read.
    #[error("{path}: {message}")]
    NotAModel {
        /// What was asked for.
        path: PathBuf,
        /// What is there and what would work.
        message: String,
    },
    /// A config or manifest value is missing, of the wrong type, or not supported.
    #[error("{path}: `{key}` {message}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, dotted where nested.
        key: String,
        /// What was expected and found.
        message: String,
    },
    /// A file of the model is damaged.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        message: String,
    },
    /// The weights do not fit the config.
    #[error("{path}: tensor `{tensor}` {message}")]
    Tensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What was expected and found.
        message: String,
    },
    /// The asked operation needs weights that a bare config does not have.
    #[error("{path}: has shapes only, no weights: {action} needs a checkpoint (make one with `pomona init`)")]
    NoWeights {
        /// The model.
        path: PathBuf,
        /// What was asked for.
        action: String,
    },
    /// The format cannot hold the model.
    #[error("{format} cannot hold this model: {}; {instead}", reasons.join("; "))]
    Unrepresentable {
        /// Name of the format.
        format: String,
        /// Why, one sentence each.
        reasons: Vec<String>,
        /// What would work.
        instead: String,
    },
    /// Something about the tokenizer.
    #[error("tokenizer: {0}")]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// An output does not hold what was written into it.
    #[error("{path}: {message}")]
    Verify {
        /// The output.
        path: PathBuf,
        /// What differs.
        message: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ModelError>;

pub(crate) fn not_a_model(path: &Path, message: impl Into<String>) -> ModelError {
    ModelError::NotAModel { path: path.to_owned(), message: message.into() }
}

pub(crate) fn file_error(path: &Path, message: impl Into<String>) -> ModelError {
    ModelError::File { path: path.to_owned(), message: message.into() }
}

pub(crate) fn tensor_error(path: &Path, tensor: &str, message: impl Into<String>) -> ModelError {
    ModelError::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), message: message.into() }
}

/// Reads a text file of a bounded size, so that a wrong file cannot fill the memory.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    let io = |e: std::io::Error| file_error(path, format!("cannot be read: {e}"));
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > limit {
        return Err(file_error(path, format!("has {size} bytes; at most {limit} were expected")));
    }
    std::fs::read_to_string(path).map_err(io)
}
