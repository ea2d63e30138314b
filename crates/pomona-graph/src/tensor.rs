//! The table of tensors: what weights a graph has, without their data.

use serde::{Deserialize, Serialize};

/// Index into [`crate::Graph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TensorId(pub u32);

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Trained; counted as a parameter.
    Parameter,
    /// Kept with the model but not trained (running statistics): cut with its group, not counted.
    Buffer,
    /// Fixed numbers of the computation itself.
    Constant,
}

/// A tensor that nodes refer to. A tied weight is one tensor with several uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorDef {
    /// Name for life: the PyTorch state-dict name in the source (`model.layers.0.mlp.up_proj.weight`).
    pub name: String,
    /// Shape in PyTorch's layout; always concrete.
    pub shape: Vec<usize>,
    /// How the source stores it (`f32`, `bf16`, `q4_1`, ...): the store's short names.
    pub dtype: String,
    /// Parameter, buffer or constant.
    pub role: Role,
    /// Further names under which the source's state dict also lists it (tied weights).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

impl TensorDef {
    /// Number of elements; saturates (such a tensor fails validation).
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1_u64, |n, &d| n.saturating_mul(d as u64))
    }
}

/// Which of a node's weights a tensor is. The names are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The weight: `[out, in]` for Linear, `[out, in/groups, k...]` for Conv, `[in, out/groups, k...]` for ConvTranspose,
    /// `[count, width]` for Embedding, `[width]` for norms.
    Weight,
    /// The bias, `[out]`.
    Bias,
    /// BatchNorm's running mean, `[channels]`.
    RunningMean,
    /// BatchNorm's running variance, `[channels]`.
    RunningVar,
    /// Recurrent input weights, `[gates*hidden, in]`.
    WeightIh,
    /// Recurrent hidden weights, `[gates*hidden, hidden]`.
    WeightHh,
    /// Recurrent input bias, `[gates*hidden]`.
    BiasIh,
    /// Recurrent hidden bias, `[gates*hidden]`.
    BiasHh,
    /// The reverse direction's [`Slot::WeightIh`].
    WeightIhReverse,
    /// The reverse direction's [`Slot::WeightHh`].
    WeightHhReverse,
    /// The reverse direction's [`Slot::BiasIh`].
    BiasIhReverse,
    /// The reverse direction's [`Slot::BiasHh`].
    BiasHhReverse,
}
