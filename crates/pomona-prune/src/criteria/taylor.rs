//! Taylor importance (Shortened LLaMA): the sum of |w x dL/dw| over a part's weights, the gradient that of the mean loss
//! over the whole calibration batch.
//!
//! Block by block: a forward sweep keeps the activations between parts, a backward sweep recomputes one part at a time
//! with its weights and carries the gradient of the stream on. Memory is the boundary activations and one part's weights
//! and gradients.

use std::collections::BTreeMap;

use pomona_exec::{Feeds, Options, Tensor, gradients};
use pomona_graph::TensorId;

use crate::error::{PruneError, Result};
use crate::sweep::{Chain, links, rows_feeds, sample_feeds};

/// Taylor score of each candidate in the model without the removed parts.
pub fn taylor(
    chain: &Chain<'_>,
    removed: &[bool],
    candidates: &[usize],
    group: usize,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let links = links(chain.units)?;
    let samples = chain.objective.samples();
    let feeds = chain.objective.feeds(chain.graph, 0..samples, chain.device)?;
    let mut boundaries = vec![chain.run(&feeds, &[], links[0].from)?];
    chain.weights.release();
    let kept: Vec<usize> = (0..links.len()).filter(|j| !removed[*j]).collect();
    for &j in &kept {
        let stream = boundaries[boundaries.len() - 1].clone();
        boundaries.push(chain.run(&feeds, &[(links[j].from, stream)], links[j].to)?);
        chain.weights.release();
        advance(1)?;
    }
    let last = boundaries.pop().ok_or_else(|| PruneError::Unfit("nothing is left to score".to_owned()))?;
    let mut upstream = head_gradient(chain, &feeds, links[links.len() - 1].to, &last)?;
    chain.weights.release();
    let mut scores = vec![0.0; candidates.len()];
    for &j in kept.iter().rev() {
        let Some(incoming) = boundaries.pop() else { break };
        let at = candidates.iter().position(|c| *c == j);
        let tensors = if at.is_some() { chain.units[j].tensors.clone() } else { Vec::new() };
        let mut sums: BTreeMap<TensorId, Tensor> = BTreeMap::new();
        let mut parts = Vec::new();
        for rows in crate::criteria::perplexity::groups(0..samples, group) {
            let mut feeds = rows_feeds(chain.graph, &feeds, rows.clone())?;
            feeds.insert(links[j].from, incoming.slice(0, rows.clone())?);
            let above = [(links[j].to, upstream.slice(0, rows)?)];
            let found = gradients(
                chain.graph,
                chain.weights,
                &feeds,
                &above,
                &[links[j].from],
                &tensors,
                &Options::default(),
            )?;
            for (id, g) in found.weights {
                let sum = match sums.remove(&id) {
                    Some(s) => s.add(&g)?,
                    None => g,
                };
                sums.insert(id, sum);
            }
            parts.extend(found.values.into_values());
        }
        upstream = Tensor::concat(&parts, 0)?;
        if let Some(i) = at {
            for (id, gradient) in &sums {
                let (w, g) = (chain.weights.get(*id)?.to_f32()?, gradient.to_f32()?);
                let product: Vec<f32> = w.iter().zip(&g).map(|(w, g)| w * g).collect();
                scores[i] += super::magnitude::absolute_sum(&product);
            }
        }
        chain.weights.release();
        advance(2)?;
    }
    Ok(scores)
}

/// Gradient of the loss with respect to the stream at the end of the chain, a sample at a time.
fn head_gradient(
    chain: &Chain<'_>,
    feeds: &Feeds,
    last: pomona_graph::ValueId,
    activation: &Tensor,
) -> Result<Tensor> {
    let output = chain.output()?;
    let mut parts = Vec::new();
    for sample in 0..chain.objective.samples() {
        let mut feeds = sample_feeds(chain.graph, feeds, sample)?;
        let one = activation.slice(0, sample..sample + 1)?;
        let out = chain.run(&feeds, &[(last, one.clone())], output)?;
        let above = chain.objective.gradient(sample..sample + 1, out)?;
        feeds.insert(last, one);
        let found = gradients(
            chain.graph,
            chain.weights,
            &feeds,
            &[(output, above)],
            &[last],
            &[],
            &Options::default(),
        )?;
        parts.extend(found.values.into_values());
    }
    Ok(Tensor::concat(&parts, 0)?)
}
