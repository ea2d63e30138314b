//! What can go wrong in a training.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Data or a loss could not be had.
    #[error(transparent)]
    Task(#[from] pomona_task::TaskError),
    /// The model could not be read or written.
    #[error(transparent)]
    Model(#[from] pomona_models::ModelError),
    /// The graph could not be run.
    #[error(transparent)]
    Exec(#[from] pomona_exec::ExecError),
    /// The graph does not fit.
    #[error(transparent)]
    Graph(#[from] pomona_graph::GraphError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Store(#[from] pomona_store::StoreError),
    /// A file of the run could not be read or written.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would work.
        message: String,
    },
    /// Settings that do not go together, or not with the model.
    #[error("{0}")]
    Unfit(String),
    /// Data that could not be had on the way.
    #[error(
        "{of}; the state after step {step} is kept in {path}: with the file put back as it was --resume goes on"
    )]
    DataLost {
        /// The last step that was done.
        step: u64,
        /// The checkpoint.
        path: PathBuf,
        /// What went wrong.
        of: Box<TrainError>,
    },
    /// A loss or a gradient that is no number.
    #[error(
        "step {step}: {what} is not finite; the batch was {batch}; {kept}: try a smaller rate, a longer warm-up or clipping"
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// The loss term, or the gradient.
        what: String,
        /// Which samples.
        batch: String,
        /// Where the last good state is.
        kept: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, TrainError>;

/// An error about a file of the run.
pub(crate) fn file_error(path: impl Into<PathBuf>, message: impl Into<String>) -> TrainError {
    TrainError::File { path: path.into(), message: message.into() }
}
