//! What can be wrong with a graph, an edit or a plan.

/// An error of this crate. Messages name the node or tensor and both sides of a mismatch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A dimension expression is malformed or does not come out as needed.
    #[error("{0}")]
    Dimension(String),
    /// A size is needed where a symbol still stands.
    #[error(
        "{what} is `{dim}`, which has no concrete size yet: give its symbols a size (`--input name=value`)"
    )]
    Unbound {
        /// What was being measured.
        what: String,
        /// The symbolic dimension.
        dim: String,
    },
    /// A node's inputs, weights or attributes do not fit together.
    #[error("node `{node}` ({op}): {message}")]
    Node {
        /// Path of the node.
        node: String,
        /// Name of its operator.
        op: String,
        /// What is wrong, with both shapes.
        message: String,
    },
    /// The graph itself is inconsistent.
    #[error("graph `{graph}`: {message}")]
    Graph {
        /// Component name.
        graph: String,
        /// What is wrong.
        message: String,
    },
    /// An edit cannot be applied.
    #[error("edit {index} ({kind}): {message}")]
    Edit {
        /// Position in the plan, from 0.
        index: usize,
        /// Kind of the edit.
        kind: &'static str,
        /// What is wrong and what would work.
        message: String,
    },
    /// A plan does not fit the model or this version.
    #[error("plan: {0}")]
    Plan(String),
    /// A weight recipe is inconsistent.
    #[error("recipe for `{output}`: {message}")]
    Recipe {
        /// Tensor that the recipe makes.
        output: String,
        /// What is wrong.
        message: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, GraphError>;
