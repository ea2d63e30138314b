//! Removable regions, found by structure: what lies between a value and a later one of the same shape and can go as a
//! whole.

mod between;
mod blocks;
mod flow;
mod level;
mod module;
mod named;
mod residual;

pub use between::span;
pub(crate) use blocks::numbered;
pub use blocks::{blocks, region_at, regions, sublayers, why_not};
pub(crate) use flow::Flow;
pub(crate) use module::is_under;
pub(crate) use named::block_numbers;
pub use named::{NamedBlock, named_blocks};

use serde::{Deserialize, Serialize};

use crate::edit::Edit;
use crate::graph::{NodeId, ValueRef};

/// What kind of part a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionKind {
    /// One of several blocks of a list, `prefix.N`.
    Block,
    /// A residual branch with its join: attention or feed-forward with their norm, the body of a residual convolution block.
    Sublayer,
    /// Everything between a downsampling and the upsampling that undoes it.
    Level,
    /// Another module with several operators.
    Module,
    /// A single operator.
    Operator,
    /// A span between two given values.
    Span,
}

/// A part of a graph that can be removed: every use of `to` then reads `from`.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Module path; for a sublayer without a module of its own the path of its join, for levels and spans `from..to`.
    pub path: String,
    /// What it is.
    pub kind: RegionKind,
    /// The main stream where it enters.
    pub from: ValueRef,
    /// The main stream where it leaves.
    pub to: ValueRef,
    /// Nodes that go with it, in graph order. Empty in an opaque model.
    pub nodes: Vec<NodeId>,
    /// What else it reads: time embedding, text, mask, positions.
    pub side_inputs: Vec<ValueRef>,
    /// What else is read of it: skips, each with the join that then loses an operand.
    pub side_outputs: Vec<SideOutput>,
    /// Names of the state ports that go with it.
    pub states: Vec<String>,
    /// Parameters that only it uses.
    pub parameters: u64,
}

/// A value of a region that a Concat or Add outside reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideOutput {
    /// The value inside.
    pub value: ValueRef,
    /// Path of the Concat or Add.
    pub reader: String,
    /// Which of its inputs.
    pub operand: usize,
}

impl Region {
    /// The edits that remove it.
    pub fn edits(&self) -> Vec<Edit> {
        let mut drops: Vec<&SideOutput> = self.side_outputs.iter().collect();
        // The last operand first, so that the numbers of the others stay right.
        drops.sort_by(|a, b| a.reader.cmp(&b.reader).then(b.operand.cmp(&a.operand)));
        let drop = |s: &SideOutput| Edit::DropOperand { node: s.reader.clone(), index: s.operand };
        let mut edits: Vec<Edit> = drops.into_iter().map(drop).collect();
        edits.push(Edit::Bypass { from: self.from.clone(), to: self.to.clone() });
        edits
    }
}
