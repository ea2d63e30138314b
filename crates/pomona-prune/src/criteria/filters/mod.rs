//! Criteria of filters: what each channel of a coupled group is worth. Lower scores go first.
//!
//! A criterion measures a channel in each weight that it goes with ([`Measure`]); [`aggregate`] makes one number of them.

mod aggregate;
mod attention;
mod bn_scale;
mod geometric_median;
mod norms;
mod redundancy;
mod taylor;

use std::str::FromStr;

use pomona_graph::{ChannelGroup, ChannelMember, Graph, Role, Side, Slot, TensorId};
use pomona_task::Weights;
use serde::{Deserialize, Serialize};

pub use aggregate::{Aggregate, aggregate};
pub use attention::{AttentionScores, Gamma, neurons};
pub use bn_scale::bn_scale;
pub use geometric_median::geometric_median;
pub use norms::{Norm, norms};
pub use redundancy::redundancy;
pub use taylor::{GradientSums, taylor};

use crate::error::Result;

/// A criterion by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilterCriterion {
    /// Sum of |weight| (Li et al., 2017).
    L1,
    /// Square root of the sum of squares.
    L2,
    /// Sum of the distances to the layer's other filters (FPGM, He et al., 2019).
    GeometricMedian,
    /// |scale| of the BatchNorm behind the filter (Network Slimming, Liu et al., 2017).
    BnScale,
    /// Sum of |weight x gradient| (Molchanov et al., 2019, first order).
    Taylor,
    /// A seeded random order: the control.
    Random,
    /// The most important by L1 go first: the opposite control.
    Reverse,
    /// How queries and keys point along the leading components of the logits (SNP); other groups have none.
    Attention,
    /// How unlike a row is to the layer's others (SNP), of all but queries and keys.
    Redundancy,
    /// Both of SNP: each group by its own.
    Snp,
    /// The most important by SNP go first: SNP's opposite control.
    SnpReverse,
}

impl FilterCriterion {
    /// Every criterion.
    pub const ALL: [FilterCriterion; 11] = [
        Self::L1,
        Self::L2,
        Self::GeometricMedian,
        Self::BnScale,
        Self::Taylor,
        Self::Random,
        Self::Reverse,
        Self::Attention,
        Self::Redundancy,
        Self::Snp,
        Self::SnpReverse,
    ];

    /// Name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::GeometricMedian => "geometric-median",
            Self::BnScale => "bn-scale",
            Self::Taylor => "taylor",
            Self::Random => "random",
            Self::Reverse => "reverse",
            Self::Attention => "attention",
            Self::Redundancy => "redundancy",
            Self::Snp => "snp",
            Self::SnpReverse => "snp-reverse",
        }
    }

    /// Whether it runs the model on data with a loss.
    pub fn needs_loss(self) -> bool {
        self == Self::Taylor
    }

    /// Whether it runs the model to see the logits of its attentions.
    pub fn needs_logits(self) -> bool {
        matches!(self, Self::Attention | Self::Snp | Self::SnpReverse)
    }

    /// Whether it reads weights.
    pub fn needs_weights(self) -> bool {
        self != Self::Random
    }
}

impl FromStr for FilterCriterion {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let s = if s == "magnitude" { "l1" } else { s };
        Self::ALL.into_iter().find(|c| c.name() == s).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|c| c.name()).collect();
            format!("`{s}` is no criterion of filters: one of {}", names.join(", "))
        })
    }
}

/// What a channel is worth in one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// How the tensor goes with the channel.
    pub side: Side,
    /// A number a channel; not negative.
    pub values: Vec<f64>,
}

/// The trained weights of a group: biases and statistics follow, they do not speak for a channel.
pub(crate) fn weights_of<'g>(
    graph: &'g Graph,
    group: &'g ChannelGroup,
) -> impl Iterator<Item = &'g ChannelMember> {
    let weight = |t: TensorId| {
        graph.nodes.iter().any(|n| n.weights.get(&Slot::Weight) == Some(&t))
            && graph.tensor(t).role == Role::Parameter
    };
    group.members.iter().filter(move |m| weight(m.tensor))
}

/// Calls `each(channel, run)` for every contiguous run of a tensor's values that belongs to a channel.
pub(crate) fn for_channels(
    shape: &[usize],
    member: &ChannelMember,
    values: &[f32],
    mut each: impl FnMut(usize, &[f32]),
) {
    let count = shape.get(member.axis).copied().unwrap_or(1).max(1);
    let inner: usize = shape.get(member.axis + 1..).unwrap_or_default().iter().product::<usize>().max(1);
    for slice in values.chunks(count * inner) {
        for (run, channel) in slice.chunks(inner).zip(&member.channel) {
            if let Some(c) = channel {
                each(*c as usize, run);
            }
        }
    }
}

/// How much of a tensor is widened at a time where it is passed over once.
const CHUNK_BYTES: usize = 8 << 20;

/// As [`for_channels`] over a member's whole tensor, widened part by part where the weights are streamed.
pub(crate) fn for_stored_channels(
    graph: &Graph,
    member: &ChannelMember,
    weights: &dyn Weights,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let shape = &graph.tensor(member.tensor).shape;
    let count = shape.first().copied().unwrap_or(1);
    let width: usize = shape.iter().skip(1).product::<usize>().max(1);
    let at_once = (CHUNK_BYTES / 4 / width).max(1);
    let mut part = member.clone();
    let mut start = 0;
    while start < count {
        let rows: Vec<usize> = (start..count.min(start + at_once)).collect();
        let Some(values) = weights.rows(member.tensor, &rows)? else {
            weights.get(member.tensor)?.with_f32(|v| for_channels(shape, member, v, &mut each))?;
            return Ok(());
        };
        if member.axis == 0 {
            part.channel = member.channel.get(start..start + rows.len()).unwrap_or_default().to_vec();
        }
        let mut shape = shape.clone();
        shape[0] = rows.len();
        values.with_f32(|v| for_channels(&shape, &part, v, &mut each))?;
        start += rows.len();
    }
    Ok(())
}

/// Widened values of a member's tensor.
pub(crate) fn values_of(weights: &dyn Weights, member: &ChannelMember) -> Result<Vec<f32>> {
    Ok(weights.get(member.tensor)?.to_f32()?)
}
