//! Scales of BatchNorm (Liu et al., Learning Efficient Convolutional Networks through Network Slimming, 2017).

use pomona_graph::{ChannelGroup, Graph, Op, Slot};
use pomona_task::Weights;

use super::{Measure, for_channels, values_of};
use crate::error::Result;

/// |scale| of each channel in each BatchNorm of the group; nothing where it has none.
pub fn bn_scale(graph: &Graph, group: &ChannelGroup, weights: &dyn Weights) -> Result<Vec<Measure>> {
    let mut out = Vec::new();
    let norms = graph.nodes.iter().filter(|n| matches!(n.op, Op::BatchNorm { .. }));
    let scales: Vec<_> = norms.filter_map(|n| n.weights.get(&Slot::Weight)).collect();
    for member in group.members.iter().filter(|m| scales.contains(&&m.tensor)) {
        let mut values = vec![0.0_f64; group.len];
        let data = values_of(weights, member)?;
        for_channels(&graph.tensor(member.tensor).shape, member, &data, |c, run| {
            values[c] += run.iter().map(|w| f64::from(w.abs())).sum::<f64>();
        });
        out.push(Measure { side: member.side, values });
    }
    Ok(out)
}
