//! One score of a channel from its measures in several tensors.

use std::str::FromStr;

use pomona_graph::Side;
use serde::{Deserialize, Serialize};

use super::Measure;

/// How the measures of a channel become its score. The papers prune single layers; what counts of a coupled group is a
/// choice of this program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// Each tensor's measures divided by their mean, then averaged: every layer of a group has one vote.
    #[default]
    Normalised,
    /// The sum as it is: large tensors weigh more. Ranks as Torch-Pruning's group importance does.
    Sum,
    /// Only the filters that make the channel: the papers' single-layer criteria.
    Makers,
}

impl FromStr for Aggregate {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "normalised" => Ok(Self::Normalised),
            "sum" => Ok(Self::Sum),
            "makers" => Ok(Self::Makers),
            _ => Err(format!("`{s}`: normalised, sum or makers was expected")),
        }
    }
}

/// The scores of `channels` channels.
pub fn aggregate(how: Aggregate, measures: &[Measure], channels: usize) -> Vec<f64> {
    let makers = measures.iter().any(|m| m.side == Side::Makes);
    // A group without a maker in the graph is scored by what it has.
    let used = measures.iter().filter(|m| how != Aggregate::Makers || !makers || m.side == Side::Makes);
    let mut sums = vec![0.0; channels];
    let mut votes = 0.0_f64;
    for m in used {
        let mean = m.values.iter().sum::<f64>() / channels.max(1) as f64;
        // All zeros tell nothing apart.
        let scale = if how == Aggregate::Normalised && mean > 0.0 { 1.0 / mean } else { 1.0 };
        sums.iter_mut().zip(&m.values).for_each(|(s, v)| *s += v * scale);
        votes += 1.0;
    }
    let votes = if how == Aggregate::Normalised { votes.max(1.0) } else { 1.0 };
    sums.iter().map(|s| s / votes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_ranks_as_it_says() {
        let m = |side, values: [f64; 2]| Measure { side, values: values.to_vec() };
        let all = [m(Side::Makes, [100.0, 300.0]), m(Side::Reads, [9.0, 1.0]), m(Side::Norm, [0.0, 0.0])];
        assert_eq!(aggregate(Aggregate::Sum, &all, 2), [109.0, 301.0]);
        assert_eq!(aggregate(Aggregate::Makers, &all, 2), [100.0, 300.0]);
        let votes = aggregate(Aggregate::Normalised, &all, 2);
        assert!((votes[0] - (0.5 + 1.8) / 3.0).abs() < 1e-12, "{votes:?}");
        assert!((votes[1] - (1.5 + 0.2) / 3.0).abs() < 1e-12, "{votes:?}");
        assert_eq!(aggregate(Aggregate::Makers, &all[1..2], 2), [9.0, 1.0]);
    }
}
