//! Running statistics of BatchNorms: not learnt, but moved towards what each batch was like.

use std::collections::BTreeMap;

use pomona_exec::{ChannelMoments, Tensor, WeightProvider};
use pomona_graph::{BatchStatistics, Graph, Op, Slot, TensorId};

use crate::error::{Result, TrainError};

/// A BatchNorm whose statistics move.
#[derive(Clone, Debug)]
struct Norm {
    path: String,
    /// Weight of the new batch.
    momentum: f64,
    mean: TensorId,
    variance: TensorId,
}

/// A mean or a variance.
#[derive(Clone, Debug)]
pub(crate) struct Statistic {
    /// Name of the graph's tensor.
    pub name: String,
    /// What it is now.
    pub value: Tensor,
    /// Its exponential moving average, where the weights have one: weights and statistics that go together.
    pub average: Option<Vec<f32>>,
}

/// The statistics of all BatchNorms of a graph.
#[derive(Clone, Debug, Default)]
pub struct Running {
    norms: Vec<Norm>,
    pub(crate) values: BTreeMap<TensorId, Statistic>,
}

impl Running {
    /// Those of the graph's BatchNorms that normalise by running statistics when they are not trained; `averaged` where the
    /// weights are.
    ///
    /// # Errors
    /// Where a weight cannot be had.
    pub fn of(graph: &Graph, weights: &dyn WeightProvider, averaged: bool) -> Result<Running> {
        let mut out = Running::default();
        for (_, node) in graph.iter() {
            let Op::BatchNorm { momentum, statistics: BatchStatistics::Running, .. } = node.op else {
                continue;
            };
            let slots = (node.weights.get(&Slot::RunningMean), node.weights.get(&Slot::RunningVar));
            let (Some(&mean), Some(&variance)) = slots else { continue };
            for id in [mean, variance] {
                let value = weights.get(id)?;
                let average = averaged.then(|| value.to_f32()).transpose()?;
                out.values.insert(id, Statistic { name: graph.tensor(id).name.clone(), value, average });
            }
            out.norms.push(Norm { path: node.path.clone(), momentum, mean, variance });
        }
        Ok(out)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.norms.is_empty()
    }

    /// Names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.values().map(|s| s.name.as_str())
    }

    /// A value that moves.
    pub(crate) fn get(&self, id: TensorId) -> Option<&Tensor> {
        self.values.get(&id).map(|s| &s.value)
    }

    /// `new = (1 - momentum) old + momentum seen`, as PyTorch: the variance without bias, so with one less in its divisor.
    ///
    /// # Errors
    /// Where a batch had one number a channel, which has no variance.
    pub fn follow(&mut self, seen: &BTreeMap<String, ChannelMoments>) -> Result<()> {
        for norm in &self.norms {
            let Some(found) = seen.get(&norm.path) else { continue };
            if found.count < 2 {
                return Err(TrainError::Unfit(format!(
                    "`{}` sees {} number a channel in a batch, of which there is no variance: train with a larger --batch, or with \
                     --freeze-statistics",
                    norm.path, found.count
                )));
            }
            let unbiased = found.count as f64 / (found.count - 1) as f64;
            for (id, new, scale) in
                [(norm.mean, &found.mean, 1.0), (norm.variance, &found.variance, unbiased)]
            {
                let Some(old) = self.values.get_mut(&id) else { continue };
                old.value.update(|old| {
                    for (o, n) in old.iter_mut().zip(new) {
                        *o = ((1.0 - norm.momentum) * f64::from(*o) + norm.momentum * scale * f64::from(*n))
                            as f32;
                    }
                })?;
            }
        }
        Ok(())
    }
}
