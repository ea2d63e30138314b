//! First-order Taylor importance (Molchanov et al., Importance Estimation for Neural Network Pruning, 2019): the sum of
//! |weight x gradient| over a channel's weights, the gradient that of the mean loss over the calibration samples.
//!
//! The paper squares the sum over a filter of one batch and averages over batches; the sum of absolute products is the form
//! that depth pruning uses here too.

use std::collections::BTreeMap;
use std::time::Instant;

use pomona_exec::{Device, Options, Tensor, gradients};
use pomona_graph::{ChannelGroup, Graph, TensorId};
use pomona_task::{Objective, Weights};

use super::{Measure, for_channels, values_of, weights_of};
use crate::error::{PruneError, Result};
use crate::work::WorkFiles;

/// Gradients of all weights of all groups, summed over samples; an interrupted run goes on from what it kept.
pub struct GradientSums {
    sums: BTreeMap<TensorId, Tensor>,
}

const STATE: &str = "gradients";

impl GradientSums {
    /// Runs all samples backward, `at_once` together.
    pub fn new(
        graph: &Graph,
        groups: &[ChannelGroup],
        weights: &dyn Weights,
        objective: &dyn Objective,
        (device, at_once): (&Device, usize),
        work: Option<&WorkFiles>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<GradientSums> {
        let mut tensors: Vec<TensorId> =
            groups.iter().flat_map(|g| weights_of(graph, g)).map(|m| m.tensor).collect();
        tensors.sort_unstable();
        tensors.dedup();
        let output = graph.output(objective.output()).ok_or_else(|| {
            PruneError::Unfit(format!("the model has no output `{}`: the loss reads it", objective.output()))
        })?;
        let kept = work.and_then(|w| w.load::<usize>(STATE, device));
        let kept = kept.filter(|(_, found)| found.len() == tensors.len());
        let (mut done, mut sums) = match kept {
            Some((done, found)) => (done, tensors.iter().copied().zip(found).collect()),
            None => (0, BTreeMap::new()),
        };
        progress(done)?;
        while done < objective.samples() {
            let rows = done..(done + at_once.max(1)).min(objective.samples());
            let feeds = objective.feeds(graph, rows.clone(), device)?;
            let options = Options::default();
            let out = pomona_exec::evaluate(graph, weights, &feeds, &[output], &options)?;
            let out = out.into_iter().next().ok_or_else(|| PruneError::Unfit("no output".to_owned()))?;
            let above = objective.gradient(rows.clone(), out)?;
            let found =
                gradients(graph, weights, &feeds, &[(output, above)], &[], &tensors, &options)?.weights;
            for (id, gradient) in found {
                let sum = match sums.remove(&id) {
                    Some(s) => Tensor::add(&s, &gradient)?,
                    None => gradient,
                };
                sums.insert(id, sum);
            }
            done = rows.end;
            progress(done)?;
            if let Some(work) = work.filter(|w| w.due()) {
                let began = Instant::now();
                work.save(STATE, &done, &sums.values().collect::<Vec<_>>())?;
                work.saved(began);
            }
        }
        Ok(GradientSums { sums })
    }
}

/// Sum of |weight x gradient| of each channel in each weight of the group.
pub fn taylor(
    graph: &Graph,
    group: &ChannelGroup,
    weights: &dyn Weights,
    gradients: &GradientSums,
) -> Result<Vec<Measure>> {
    let mut out = Vec::new();
    for member in weights_of(graph, group) {
        // A weight that the loss does not reach has no gradient, and no part in the score.
        let Some(gradient) = gradients.sums.get(&member.tensor) else { continue };
        let gradient = gradient.to_f32()?;
        let product: Vec<f32> =
            values_of(weights, member)?.iter().zip(&gradient).map(|(w, g)| w * g).collect();
        let mut values = vec![0.0_f64; group.len];
        for_channels(&graph.tensor(member.tensor).shape, member, &product, |c, run| {
            values[c] += run.iter().map(|w| f64::from(w.abs())).sum::<f64>();
        });
        out.push(Measure { side: member.side, values });
    }
    Ok(out)
}
