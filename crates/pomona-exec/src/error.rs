//! What can go wrong when a graph is run.

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// A node cannot be run on what it was given.
    #[error("node `{node}` ({op}): {message}")]
    Node {
        /// Path of the node.
        node: String,
        /// Name of its operator.
        op: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A value was fed with the wrong shape or kind, or not at all.
    #[error("value `{value}`: {message}")]
    Feed {
        /// Name of the value.
        value: String,
        /// What was expected and found.
        message: String,
    },
    /// A weight could not be had.
    #[error("tensor `{tensor}`: {message}")]
    Weight {
        /// Name of the tensor.
        tensor: String,
        /// Why.
        message: String,
    },
    /// Tensors do not fit together.
    #[error("{0}")]
    Tensor(String),
    /// No such device.
    #[error("{0}")]
    Device(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ExecError>;
