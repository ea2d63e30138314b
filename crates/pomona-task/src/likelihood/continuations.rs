//! Log-likelihoods of continuations of contexts, as multiple choice needs them.

use std::collections::{BTreeMap, HashMap};

use pomona_exec::{Feeds, Tensor, side_by_side};
use pomona_graph::{Graph, ValueId};
use rayon::prelude::*;

use super::head::Head;
use super::{Language, PASS_TOKENS};
use crate::error::{Result, TaskError};
use crate::language::{empty_states, token_feeds};

/// A continuation of a context; both have at least one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What stands before.
    pub context: Vec<u32>,
    /// What is scored.
    pub continuation: Vec<u32>,
}

/// Passes that [`log_likelihoods`] runs beside each other where the weights stay in memory: each has its own activations and
/// caches.
pub fn passes_beside() -> usize {
    rayon::current_num_threads().max(1)
}

/// A context with the requests that continue it.
type Shared<'a> = (&'a [u32], Vec<usize>);

/// The log-likelihood of every continuation, in nats. Contexts that are equal run once; those of one length run
/// together, the longest first, and their continuations after them on copies of the caches. Where the weights stay in memory
/// as many passes run beside each other as there are threads: short ones do not fill several cores. `advance` is told of
/// requests that are done.
///
/// # Errors
/// Where the graph is no language model with caches or cannot be run, a request is empty, and where the model gives NaN.
pub fn log_likelihoods(
    lm: Language<'_>,
    requests: &[Request],
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let head = Head::of(lm.graph)?;
    if lm.graph.states.is_empty() {
        return Err(TaskError::Unfit(format!(
            "graph `{}` has no caches, which scoring continuations needs",
            lm.graph.name
        )));
    }
    if requests.iter().any(|r| r.context.is_empty() || r.continuation.is_empty()) {
        return Err(TaskError::Unfit("a context or a continuation has no tokens".to_owned()));
    }
    let mut scores = vec![0.0; requests.len()];
    let groups = by_length(requests);
    let batches: Vec<&[Shared<'_>]> =
        groups.iter().rev().flat_map(|same| same.chunks((PASS_TOKENS / same[0].0.len()).max(1))).collect();
    let beside = if lm.weights.kept() { passes_beside() } else { 1 };
    for some in batches.chunks(beside) {
        let each = |batch: &&[Shared<'_>]| batch_scores(lm, &head, requests, batch);
        let found: Vec<_> = match some {
            [one] => vec![each(one)?],
            _ => side_by_side(|| some.par_iter().map(each).collect::<Result<_>>())?,
        };
        for (request, score) in found.into_iter().flatten() {
            scores[request] += score;
        }
        advance(some.iter().flat_map(|batch| batch.iter()).map(|(_, of)| of.len()).sum())?;
    }
    Ok(scores)
}

/// Distinct contexts grouped by length, the shortest first; within a group in the order of the requests.
fn by_length(requests: &[Request]) -> Vec<Vec<Shared<'_>>> {
    let mut place: HashMap<&[u32], usize> = HashMap::new();
    let mut groups: BTreeMap<usize, Vec<Shared<'_>>> = BTreeMap::new();
    for (i, request) in requests.iter().enumerate() {
        let group = groups.entry(request.context.len()).or_default();
        let at = *place.entry(&request.context).or_insert_with(|| {
            group.push((&request.context, Vec::new()));
            group.len() - 1
        });
        group[at].1.push(i);
    }
    groups.into_values().collect()
}

/// Scores of all continuations of contexts of one length, a request possibly in two parts.
fn batch_scores(
    lm: Language<'_>,
    head: &Head,
    requests: &[Request],
    batch: &[Shared<'_>],
) -> Result<Vec<(usize, f64)>> {
    let length = batch[0].0.len();
    let ids: Vec<&[u32]> = batch.iter().map(|(context, _)| *context).collect();
    let mut feeds = token_feeds(lm.graph, &ids, 0, lm.device)?;
    feeds.extend(empty_states(lm.graph, batch.len(), lm.device)?);
    // A continuation's first token is predicted by the context's last; those of one token are done with that.
    let mut longer: Vec<(usize, usize)> = batch
        .iter()
        .enumerate()
        .flat_map(|(b, (_, of))| of.iter().map(move |r| (b, *r)))
        .filter(|(_, r)| requests[*r].continuation.len() > 1)
        .collect();
    let mut wanted = vec![head.input];
    if !longer.is_empty() {
        wanted.extend(lm.graph.states.iter().map(|s| s.output));
    }
    let mut found = lm.run(&feeds, &wanted)?.into_iter();
    drop(feeds);
    let hidden = found.next().ok_or_else(|| TaskError::Unfit("a run gave nothing".to_owned()))?;
    let caches: Vec<Tensor> = found.collect();
    let mut picks = Vec::new();
    let mut of = Vec::new();
    for (b, (_, members)) in batch.iter().enumerate() {
        for request in members {
            picks.push(((b + 1) * length - 1, requests[*request].continuation[0]));
            of.push(*request);
        }
    }
    let first = head.nll(lm, &hidden, &picks)?;
    let mut scores: Vec<(usize, f64)> = of.into_iter().zip(first.into_iter().map(|nll| -nll)).collect();
    drop(hidden);
    longer.sort_by_key(|(_, r)| std::cmp::Reverse(requests[*r].continuation.len()));
    let mut rest = longer.as_slice();
    while let Some((_, longest)) = rest.first() {
        let width = requests[*longest].continuation.len() - 1;
        let (now, later) = rest.split_at((PASS_TOKENS / (length + width)).clamp(1, rest.len()));
        let copies: Vec<usize> = now.iter().map(|(b, _)| *b).collect();
        // Shorter ones are filled up behind their end, where nothing that counts looks.
        let rows: Vec<Vec<u32>> = now
            .iter()
            .map(|(_, r)| {
                let mut row = requests[*r].continuation.clone();
                let last = row.pop().unwrap_or(0);
                row.resize(width, last);
                row
            })
            .collect();
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let mut feeds = token_feeds(lm.graph, &rows, length, lm.device)?;
        feeds.extend(copied(lm.graph, &caches, &copies, batch.len())?);
        let hidden = lm.run(&feeds, &[head.input])?.remove(0);
        drop(feeds);
        let mut picks = Vec::new();
        let mut of = Vec::new();
        for (row, (_, request)) in now.iter().enumerate() {
            for (k, token) in requests[*request].continuation[1..].iter().enumerate() {
                picks.push((row * width + k, *token));
                of.push(*request);
            }
        }
        scores.extend(of.into_iter().zip(head.nll(lm, &hidden, &picks)?.into_iter().map(|nll| -nll)));
        rest = later;
    }
    Ok(scores)
}

/// Caches of the picked members of a batch, one after the other.
fn copied(graph: &Graph, caches: &[Tensor], picked: &[usize], batch: usize) -> Result<Feeds> {
    let mut feeds = Feeds::new();
    for (state, cache) in graph.states.iter().zip(caches) {
        let axis = batch_axis(graph, state.input).ok_or_else(|| {
            TaskError::Unfit(format!("the state `{}` has no axis `batch`: it cannot be shared", state.name))
        })?;
        let every: Vec<usize> = (0..batch).collect();
        let tensor = if picked == every {
            cache.clone()
        } else {
            let parts: Vec<Tensor> =
                picked.iter().map(|b| cache.slice(axis, *b..*b + 1)).collect::<pomona_exec::Result<_>>()?;
            Tensor::concat(&parts, axis)?
        };
        feeds.insert(state.input, tensor);
    }
    Ok(feeds)
}

fn batch_axis(graph: &Graph, value: ValueId) -> Option<usize> {
    let batch = pomona_graph::Dim::symbol("batch");
    graph.value(value).shape.iter().position(|d| *d == batch)
}
