//! What can go wrong when a model is run for a task.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The model could not be opened or its weights could not be read.
    #[error(transparent)]
    Model(#[from] pomona_models::ModelError),
    /// The graph could not be run.
    #[error(transparent)]
    Exec(#[from] pomona_exec::ExecError),
    /// The graph does not fit the task.
    #[error(transparent)]
    Graph(#[from] pomona_graph::GraphError),
    /// A data file could not be read.
    #[error("{path}: {message}")]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would work.
        message: String,
    },
    /// The model lacks what the task needs.
    #[error("{0}")]
    Unfit(String),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, TaskError>;
