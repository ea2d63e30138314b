//! Graphs of neural networks: operators at their module paths over a table of tensors, with symbolic shapes.
//!
//! A graph holds shapes, not data. Changes are lists of edits in a plan; from a graph and a plan come the new graph and
//! a weight recipe, which is data that `pomona-models` executes over a checkpoint.

mod annotation;
mod axis;
mod bind;
mod build;
mod dim;
mod dim_parse;
mod edit;
mod error;
mod glob;
mod graph;
mod op;
mod recipe;
mod region;
mod rope;
mod shape;
mod tensor;
pub mod toys;
mod validate;

pub use annotation::{Annotation, QuantTarget};
pub use axis::{
    AttentionColumns, AxisGroup, ChannelGroup, ChannelKind, ChannelMember, CoupledGroup, CoupledMember,
    Granularity, HeadGroup, Side, attention_columns, axis_groups, channel_groups, coupled_groups,
    head_groups, keep_edits, no_heads,
};
pub use build::GraphBuilder;
pub use dim::{Bindings, Dim, DimFactor, Shape, show_shape};
pub use dim_parse::parse as parse_dim;
pub use edit::{
    ChangedTensor, Cost, Edit, GraphDiff, PLAN_VERSION, Plan, RemovedModule, Target, apply, diff, renamed,
    renumber,
};
pub use error::{GraphError, Result};
pub use glob::glob;
pub use graph::{Graph, Node, NodeId, Port, StatePort, Value, ValueId, ValueRef};
pub use op::*;
pub use recipe::{
    Distribution, Expr, Recipe, RecipeOutput, SourceTensor, Sources, Term, compose, is_plain_dtype,
};
pub use region::{
    NamedBlock, Region, RegionKind, SideOutput, blocks, named_blocks, region_at, regions, span, sublayers,
    why_not,
};
pub use rope::rope_frequencies;
pub use shape::infer;
pub use tensor::{Role, Slot, TensorDef, TensorId};
