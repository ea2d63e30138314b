//! What can go wrong when parts are scored or a plan is made.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A forward or backward pass failed.
    #[error(transparent)]
    Task(#[from] pomona_task::TaskError),
    /// The executor failed.
    #[error(transparent)]
    Exec(#[from] pomona_exec::ExecError),
    /// The graph or an edit does not fit.
    #[error(transparent)]
    Graph(#[from] pomona_graph::GraphError),
    /// A cost could not be computed.
    #[error(transparent)]
    Cost(#[from] pomona_cost::CostError),
    /// A score file cannot be written.
    #[error(transparent)]
    Store(#[from] pomona_store::StoreError),
    /// A score file is damaged or belongs to something else.
    #[error("{path}: {message}")]
    Scores {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would work.
        message: String,
    },
    /// What was asked for cannot be done with this model.
    #[error("{0}")]
    Unfit(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, PruneError>;
