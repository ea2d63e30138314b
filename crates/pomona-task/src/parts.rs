//! A run in parts, weights let go between them: memory is then some weights and what lives at the cuts.

use std::collections::HashMap;

use pomona_exec::{Feeds, Options, Tensor, evaluate, needed};
use pomona_graph::{Graph, ValueId};

use crate::error::Result;
use crate::objective::Weights;

/// Elements of weights between two points at which a run lets go of them.
const SEGMENT: u64 = 16 << 20;

/// [`evaluate`], with [`Weights::release`] after each 16 Mi elements of weights where that frees them.
///
/// # Errors
/// As the executor's.
pub fn evaluate_in_parts(
    graph: &Graph,
    weights: &dyn Weights,
    feeds: &Feeds,
    wanted: &[ValueId],
    options: &Options,
) -> Result<Vec<Tensor>> {
    if weights.kept() {
        return Ok(evaluate(graph, weights, feeds, wanted, options)?);
    }
    let order = needed(graph, feeds, wanted)?;
    let mut last_use = vec![0; graph.values.len()];
    for (i, id) in order.iter().enumerate() {
        graph.node(*id).inputs.iter().for_each(|v| last_use[v.0 as usize] = i);
    }
    let mut live = feeds.clone();
    let mut found: HashMap<ValueId, Tensor> = HashMap::new();
    let mut made: Vec<ValueId> = Vec::new();
    let mut elements = 0_u64;
    for (i, id) in order.iter().enumerate() {
        let node = graph.node(*id);
        made.extend(&node.outputs);
        let size = |t: &pomona_graph::TensorId| graph.tensor(*t).elements();
        elements = elements.saturating_add(node.weights.values().map(size).sum());
        if elements < SEGMENT && i + 1 < order.len() {
            continue;
        }
        let used_later = |v: &ValueId| last_use[v.0 as usize] > i;
        let cut: Vec<ValueId> = made.drain(..).filter(|v| used_later(v) || wanted.contains(v)).collect();
        let values = evaluate(graph, weights, &live, &cut, options)?;
        weights.release();
        live.retain(|v, _| used_later(v));
        for (v, t) in cut.into_iter().zip(values) {
            if wanted.contains(&v) {
                found.insert(v, t.clone());
            }
            if used_later(&v) {
                live.insert(v, t);
            }
        }
        elements = 0;
    }
    if order.is_empty() {
        return Ok(evaluate(graph, weights, feeds, wanted, options)?);
    }
    // Only a value that was fed is not among the made ones.
    wanted
        .iter()
        .map(|v| match found.get(v).or_else(|| feeds.get(v)) {
            Some(t) => Ok(t.clone()),
            None => Ok(evaluate(graph, weights, feeds, &[*v], options)?.remove(0)),
        })
        .collect()
}
