//! Annotations: precision, quantisation and adapters. They never change the topology.

use serde::{Deserialize, Serialize};

/// Something that the executor simulates and an exporter writes, attached to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Annotation {
    /// Weights and arithmetic of the node in this floating-point type (`f16`, `bf16`, `f32`).
    Precision {
        /// The type.
        dtype: String,
    },
    /// Values rounded to integers: `q = clamp(round(x / scale) + zero_point)`.
    Quantisation {
        /// What is rounded.
        target: QuantTarget,
        /// Bits of an integer.
        bits: u8,
        /// Signed or unsigned integers.
        signed: bool,
        /// Axis with a scale an index; none for one scale.
        axis: Option<usize>,
        /// Elements along the last axis that share a scale.
        block: Option<usize>,
        /// Scales, outermost axis first.
        scales: Vec<f32>,
        /// Zero points beside the scales; empty for symmetric.
        zero_points: Vec<i32>,
    },
    /// A low-rank addition `scale * B @ A` to a Linear's weight.
    Adapter {
        /// Inner width.
        rank: usize,
        /// `scale = alpha / rank`.
        alpha: f64,
        /// Dropout on the adapter's input in training.
        dropout: f64,
    },
}

/// What a quantisation annotation rounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuantTarget {
    /// The weight slot.
    Weight,
    /// The n-th input.
    Input(usize),
    /// The n-th output.
    Output(usize),
}
