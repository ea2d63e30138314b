//! Taylor importance (Shortened LLaMA): the sum of |w x dL/dw| over a part's weights, the gradient that of the mean loss
//! over the whole calibration batch.
//!
//! Block by block: a forward sweep keeps the activations between parts, a backward sweep recomputes one part at a time
//! with its weights and carries the gradient of the stream on. Memory is the boundary activations and one part's weights
//! and gradients. The sum over samples stands inside the absolute value, so an interrupted run cannot go on by samples;
//! it keeps the boundaries and the gradient of the stream, and goes on with the next part.

use std::collections::BTreeMap;
use std::time::Instant;

use pomona_exec::{Feeds, Options, Tensor, gradients};
use pomona_graph::TensorId;
use serde::{Deserialize, Serialize};

use crate::criteria::perplexity::groups;
use crate::error::{PruneError, Result};
use crate::streams::{gathered, sample_feeds};
use crate::sweep::{Chain, Link, links};

/// Name of the backward sweep's state.
const BACKWARD: &str = "backward";

/// Taylor score of each candidate in the model without the removed parts.
pub fn taylor(
    chain: &Chain<'_>,
    removed: &[bool],
    candidates: &[usize],
    group: usize,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let links = links(chain.units)?;
    let feeds = chain.objective.feeds(chain.graph, 0..chain.objective.samples(), chain.device)?;
    let kept: Vec<usize> = (0..links.len()).filter(|j| !removed[*j]).collect();
    let mut run = Run { chain, removed, feeds, boundaries: Vec::new(), on_disk: 0 };
    let (mut at, mut upstream) = run.resumed(candidates, kept.len());
    // Parts whose gradients are done need no boundary; the head needs the last one.
    let head = upstream.len() < chain.objective.samples();
    run.forward(&links, &kept, if head { kept.len() + 1 } else { at.left }, advance)?;
    if head {
        let last = run.boundaries.pop();
        let last = last.ok_or_else(|| PruneError::Unfit("nothing is left to score".to_owned()))?;
        for sample in upstream.len()..chain.objective.samples() {
            upstream.push(run.head_gradient(links[links.len() - 1].to, &last, sample)?);
            run.keep(&at, &upstream)?;
            advance(0)?;
        }
        chain.weights.release();
    }
    advance(2 * (kept.len() - at.left))?;
    let mut stream = Tensor::concat(&upstream, 0)?;
    while at.left > 0 {
        let j = kept[at.left - 1];
        let Some(incoming) = run.boundaries.pop() else { break };
        let candidate = candidates.iter().position(|c| *c == j);
        let tensors = if candidate.is_some() { chain.units[j].tensors.as_slice() } else { &[] };
        let (below, sums) = run.backward(links[j], &incoming, &stream, tensors, group)?;
        stream = below;
        if let Some(i) = candidate {
            for (id, gradient) in &sums {
                let (w, g) = (chain.weights.get(*id)?.to_f32()?, gradient.to_f32()?);
                let product: Vec<f32> = w.iter().zip(&g).map(|(w, g)| w * g).collect();
                at.scores[i] += super::magnitude::absolute_sum(&product);
            }
        }
        chain.weights.release();
        at.left -= 1;
        run.keep(&at, &per_sample(&stream)?)?;
        advance(2)?;
    }
    Ok(at.scores)
}

/// How far the backward sweep is.
#[derive(Serialize, Deserialize)]
struct At {
    removed: Vec<bool>,
    candidates: Vec<usize>,
    /// Parts whose gradients are still to come.
    left: usize,
    scores: Vec<f64>,
}

struct Run<'r> {
    chain: &'r Chain<'r>,
    removed: &'r [bool],
    feeds: Feeds,
    /// Activations in front of each part that is left, and behind the last.
    boundaries: Vec<Tensor>,
    /// How many of them are kept for an interrupted run.
    on_disk: usize,
}

impl Run<'_> {
    /// Where an interrupted run was, with the gradient of the stream there, a tensor a sample.
    fn resumed(&self, candidates: &[usize], parts: usize) -> (At, Vec<Tensor>) {
        let found = self.chain.work.and_then(|w| w.load::<At>(BACKWARD, self.chain.device));
        let same = |at: &At| at.removed == self.removed && at.candidates == candidates && at.left <= parts;
        if let Some((at, upstream)) = found.filter(|(at, _)| same(at)) {
            return (at, upstream);
        }
        let scores = vec![0.0; candidates.len()];
        let at = At { removed: self.removed.to_vec(), candidates: candidates.to_vec(), left: parts, scores };
        (at, Vec::new())
    }

    /// The first `wanted` boundaries, from the interrupted run as far as it kept them.
    fn forward(
        &mut self,
        links: &[Link],
        kept: &[usize],
        wanted: usize,
        advance: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let chain = self.chain;
        let load = |i: usize| {
            let (of, mut found) = chain.work?.load::<Vec<bool>>(&boundary(i), chain.device)?;
            if of == self.removed { found.pop() } else { None }
        };
        self.boundaries = (0..wanted).map_while(load).collect();
        self.on_disk = self.boundaries.len();
        if self.boundaries.is_empty() && wanted > 0 {
            self.boundaries.push(chain.run(&self.feeds, &[], links[0].from)?);
            chain.weights.release();
        }
        advance(self.boundaries.len().saturating_sub(1))?;
        while self.boundaries.len() < wanted {
            let i = self.boundaries.len();
            let Link { from, to } = links[kept[i - 1]];
            let stream = self.boundaries[i - 1].clone();
            self.boundaries.push(chain.run(&self.feeds, &[(from, stream)], to)?);
            chain.weights.release();
            if let Some(work) = chain.work.filter(|w| w.due()) {
                let began = Instant::now();
                self.keep_boundaries()?;
                work.saved(began);
            }
            advance(1)?;
        }
        Ok(())
    }

    fn keep_boundaries(&mut self) -> Result<()> {
        let Some(work) = self.chain.work else { return Ok(()) };
        for (i, tensor) in self.boundaries.iter().enumerate().skip(self.on_disk) {
            work.save(&boundary(i), &self.removed, &[tensor])?;
        }
        self.on_disk = self.on_disk.max(self.boundaries.len());
        Ok(())
    }

    fn keep(&mut self, at: &At, upstream: &[Tensor]) -> Result<()> {
        let Some(work) = self.chain.work.filter(|w| w.due()) else { return Ok(()) };
        let began = Instant::now();
        self.keep_boundaries()?;
        work.save(BACKWARD, at, &upstream.iter().collect::<Vec<_>>())?;
        // What the kept gradient lies in front of is no longer needed.
        if at.left < at.removed.iter().filter(|r| !**r).count() {
            (at.left..self.on_disk).for_each(|i| work.remove(&boundary(i)));
            self.on_disk = self.on_disk.min(at.left);
        }
        work.saved(began);
        Ok(())
    }

    /// Gradient of the loss with respect to one sample's stream at the end of the chain: the output can be far larger
    /// than the stream, so samples go one by one.
    fn head_gradient(
        &self,
        last: pomona_graph::ValueId,
        activation: &Tensor,
        sample: usize,
    ) -> Result<Tensor> {
        let chain = self.chain;
        let output = chain.output()?;
        let mut feeds = sample_feeds(chain.graph, &self.feeds, sample)?;
        let one = activation.slice(0, sample..sample + 1)?;
        let out = chain.run(&feeds, &[(last, one.clone())], output)?;
        let above = chain.objective.gradient(sample..sample + 1, out)?;
        feeds.insert(last, one);
        let options = Options::default();
        let found =
            gradients(chain.graph, chain.weights, &feeds, &[(output, above)], &[last], &[], &options)?;
        let missing = || PruneError::Unfit("the loss has no gradient at the end of the chain".to_owned());
        found.values.into_values().next().ok_or_else(missing)
    }

    /// The gradient in front of a part, and those of its tensors summed over all samples.
    fn backward(
        &self,
        link: Link,
        incoming: &Tensor,
        above: &Tensor,
        tensors: &[TensorId],
        group: usize,
    ) -> Result<(Tensor, BTreeMap<TensorId, Tensor>)> {
        let chain = self.chain;
        let mut sums: BTreeMap<TensorId, Tensor> = BTreeMap::new();
        let mut parts = Vec::new();
        for rows in groups(0..chain.objective.samples(), group) {
            let mut feeds = gathered(chain.graph, &self.feeds, std::slice::from_ref(&rows))?;
            feeds.insert(link.from, incoming.slice(0, rows.clone())?);
            let above = [(link.to, above.slice(0, rows)?)];
            let options = Options::default();
            let found =
                gradients(chain.graph, chain.weights, &feeds, &above, &[link.from], tensors, &options)?;
            for (id, g) in found.weights {
                let sum = match sums.remove(&id) {
                    Some(s) => s.add(&g)?,
                    None => g,
                };
                sums.insert(id, sum);
            }
            parts.extend(found.values.into_values());
        }
        Ok((Tensor::concat(&parts, 0)?, sums))
    }
}

fn boundary(i: usize) -> String {
    format!("boundary-{i:05}")
}

fn per_sample(stream: &Tensor) -> Result<Vec<Tensor>> {
    let samples = stream.shape().first().copied().unwrap_or(0);
    Ok((0..samples).map(|s| stream.slice(0, s..s + 1)).collect::<pomona_exec::Result<_>>()?)
}
