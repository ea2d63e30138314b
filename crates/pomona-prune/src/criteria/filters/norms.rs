//! L1 and L2 norms of filters (Li et al., Pruning Filters for Efficient ConvNets, 2017), and of everything else that a
//! channel goes with.

use pomona_graph::{ChannelGroup, Graph};
use pomona_task::Weights;

use super::{Measure, for_stored_channels, weights_of};
use crate::error::Result;

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Sum of |w|.
    L1,
    /// Sum of squares: the square root is taken of the aggregate where tensors are added, of each tensor where they vote.
    L2Squared,
    /// Square root of the sum of squares.
    L2,
}

/// A norm of each channel in each weight of the group.
pub fn norms(graph: &Graph, group: &ChannelGroup, weights: &dyn Weights, norm: Norm) -> Result<Vec<Measure>> {
    let mut out = Vec::new();
    for member in weights_of(graph, group) {
        let mut values = vec![0.0_f64; group.len];
        for_stored_channels(graph, member, weights, |c, run| {
            values[c] += match norm {
                Norm::L1 => run.iter().map(|w| f64::from(w.abs())).sum::<f64>(),
                Norm::L2 | Norm::L2Squared => run.iter().map(|w| f64::from(*w).powi(2)).sum(),
            };
        })?;
        if norm == Norm::L2 {
            values.iter_mut().for_each(|v| *v = v.sqrt());
        }
        out.push(Measure { side: member.side, values });
    }
    Ok(out)
}
