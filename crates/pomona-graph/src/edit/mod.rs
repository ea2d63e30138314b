//! The five edits, to which every method lowers, and plans that list them.

mod annotate;
mod apply;
mod bypass;
mod diff;
mod drop_operand;
mod keep;
mod plan;
mod renumber;
mod replace;
#[cfg(test)]
mod tests;
mod work;

use serde::{Deserialize, Serialize};

pub use apply::apply;
pub use diff::{ChangedTensor, GraphDiff, RemovedModule, diff};
pub use plan::{Cost, PLAN_VERSION, Plan, Target};
pub use renumber::{renamed, renumber};
pub(crate) use work::Work;

use crate::annotation::Annotation;
use crate::graph::{Graph, ValueRef};
use crate::recipe::Recipe;

/// A change of a graph. Paths are those of the model that the graph came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "snake_case")]
pub enum Edit {
    /// Every use of `to` reads `from` instead (equal shapes); nodes whose results nobody uses go.
    ///
    /// In an opaque model, which has no nodes, both are block paths: `prefix.N` stands for what block N gives, `@prefix`
    /// for what enters the first block. The tensors of all blocks after `from`, up to and including `to`, go.
    Bypass {
        /// The value that takes over.
        from: ValueRef,
        /// The value that goes.
        to: ValueRef,
    },
    /// A Concat or Add loses an input; the consumers of a Concat lose the matching slices of their weights.
    DropOperand {
        /// Path of the Concat or Add.
        node: String,
        /// Which input.
        index: usize,
    },
    /// Only these indices of a coupled axis group remain.
    Keep {
        /// The group: `<tensor name>:<axis>` of any of its members.
        group: String,
        /// Sorted, each once; for a group by head, the same number in each head.
        indices: Vec<u32>,
    },
    /// A module is replaced by another graph with the same ports.
    Replace {
        /// Path of the module.
        module: String,
        /// What stands there afterwards: its inputs and outputs are named as the region's.
        template: Box<Graph>,
        /// How the template's tensors are made from the graph's.
        recipe: Recipe,
    },
    /// A node gets an annotation.
    Annotate {
        /// Path of the node.
        node: String,
        /// The annotation.
        annotation: Annotation,
    },
}

impl Edit {
    /// The edit's name in JSON and messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Edit::Bypass { .. } => "bypass",
            Edit::DropOperand { .. } => "drop_operand",
            Edit::Keep { .. } => "keep",
            Edit::Replace { .. } => "replace",
            Edit::Annotate { .. } => "annotate",
        }
    }
}
