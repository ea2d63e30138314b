//! Distance to the geometric median (FPGM; He et al., Filter Pruning via Geometric Median, 2019): a filter that lies near
//! all others can be replaced by them. The sum of the distances to the others stands for the distance to the median, as in
//! the paper.

use pomona_graph::{ChannelGroup, Graph, Side};
use pomona_task::Weights;
use rayon::prelude::*;

use super::{Measure, for_channels, values_of, weights_of};
use crate::error::Result;

/// Sum of the Euclidean distances to the other channels, in each weight that makes or reads them.
pub fn geometric_median(graph: &Graph, group: &ChannelGroup, weights: &dyn Weights) -> Result<Vec<Measure>> {
    let mut out = Vec::new();
    for member in weights_of(graph, group).filter(|m| m.side != Side::Norm) {
        let mut filters = vec![Vec::new(); group.len];
        let data = values_of(weights, member)?;
        for_channels(&graph.tensor(member.tensor).shape, member, &data, |c, run| {
            filters[c].extend_from_slice(run);
        });
        let to_others = |a: &Vec<f32>| filters.iter().map(|b| distance(a, b)).sum::<f64>();
        out.push(Measure { side: member.side, values: filters.par_iter().map(to_others).collect() });
    }
    Ok(out)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let short =
        |(a, b): (&[f32], &[f32])| f64::from(a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>());
    a.chunks(64).zip(b.chunks(64)).map(short).sum::<f64>().sqrt()
}
