//! What a model is scored on: inputs in samples, and a loss of its output.

use std::ops::Range;

use pomona_exec::{Device, Feeds, Tensor, WeightProvider};
use pomona_graph::Graph;

use crate::error::Result;

/// Loss of one sample: a sum over its predictions and their number, so that any grouping has the same mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleLoss {
    /// Sum over predictions, in nats for likelihoods.
    pub sum: f64,
    /// Number of predictions.
    pub count: usize,
}

impl SampleLoss {
    /// Mean over all predictions of several samples.
    pub fn mean<'a>(losses: impl IntoIterator<Item = &'a SampleLoss>) -> f64 {
        let (sum, count) = losses.into_iter().fold((0.0, 0), |(s, n), l| (s + l.sum, n + l.count));
        sum / count.max(1) as f64
    }
}

/// Elements of an output that are in memory at a time, where a sample alone has no more.
const OUTPUTS: usize = 1 << 25;

/// Rows (samples, tokens) of an output, `elements` each, that are made at once: all of them read the same weights, and few pay for
/// reading, but outputs can be far larger than all else.
pub fn rows_at_once(elements: usize) -> usize {
    (OUTPUTS / elements.max(1)).clamp(1, OUTPUTS)
}

/// Calibration data with its loss. Criteria and training know a model only through its graph and this.
pub trait Objective: Sync {
    /// Number of samples.
    fn samples(&self) -> usize;

    /// A value for every input and state port of the graph, for these samples along the batch axis.
    fn feeds(&self, graph: &Graph, samples: Range<usize>, device: &Device) -> Result<Feeds>;

    /// Name of the output port that the loss reads.
    fn output(&self) -> &str;

    /// The loss of each of these samples, given the output for them.
    fn losses(&self, samples: Range<usize>, output: &Tensor) -> Result<Vec<SampleLoss>>;

    /// Gradient of the mean loss over *all* samples with respect to the output for these.
    fn gradient(&self, samples: Range<usize>, output: Tensor) -> Result<Tensor>;

    /// Identity of the data: equal for equal samples.
    fn fingerprint(&self) -> String;

    /// Where the data came from, for people.
    fn source(&self) -> String;
}

/// Weights that can be let go of: a model larger than memory is run a block at a time.
pub trait Weights: WeightProvider + Sync {
    /// Frees what [`WeightProvider::get`] has widened, where the provider keeps less than everything.
    fn release(&self);

    /// Whether [`Weights::release`] frees nothing: there is no use in running a graph in parts then.
    fn kept(&self) -> bool {
        false
    }
}
