//! Backward runs that hold the tape of one part of a graph at a time.

use std::collections::{BTreeMap, BTreeSet};

use pomona_graph::{Graph, NodeId, TensorId, ValueId, blocks};

use crate::error::{ExecError, Result};
use crate::evaluate::{Feeds, Options, evaluate, needed};
use crate::gradients::{Gradients, Wrt, on_one_tape};
use crate::tensor::{Kind, Tensor};
use crate::weights::WeightProvider;

/// The values where a graph's repeated blocks end: checkpoints with which a backward run holds one block's tape at a time.
/// Empty for a graph without blocks.
pub fn block_ends(graph: &Graph) -> Vec<ValueId> {
    blocks(graph).iter().filter_map(|block| graph.resolve(&block.to)).collect()
}

/// As [`crate::gradients_of_loss`] where `options` has checkpoints.
///
/// A forward run without a tape keeps the checkpoints. The part behind the last one is then run with a tape, which gives
/// the loss and the gradients of the checkpoints that it reads; then the part that makes the last one, and so on. A part that
/// depends on nothing whose gradient is wanted is not run again.
pub(crate) fn part_by_part(
    graph: &Graph,
    weights: &dyn WeightProvider,
    feeds: &Feeds,
    wanted: &[ValueId],
    wrt: Wrt<'_>,
    options: &Options,
    upstream: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Gradients> {
    let whole = Options { checkpoints: Vec::new(), ..options.clone() };
    let learned = learned(graph, wrt);
    // Checkpoints that the wanted values depend on, in order.
    let marked: BTreeSet<ValueId> = options.checkpoints.iter().copied().collect();
    let order = needed(graph, feeds, wanted)?;
    let made = order.iter().flat_map(|id| graph.node(*id).outputs.iter().copied());
    let ends: Vec<ValueId> = made.filter(|v| marked.contains(v) && !feeds.contains_key(v)).collect();
    let kept = evaluate(graph, weights, feeds, &ends, &whole)?;
    let (ends, kept): (Vec<_>, Vec<_>) =
        ends.into_iter().zip(kept).filter(|(_, t)| t.kind() == Kind::Float).unzip();

    let mut found = Gradients::default();
    let mut above: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let mut upstream = Some(upstream);
    for part in (0..=ends.len()).rev() {
        let (before, given) = (&ends[..part], &kept[..part]);
        let mut own: Feeds = feeds.clone();
        own.extend(before.iter().copied().zip(given.iter().cloned()));
        let goal = match ends.get(part) {
            None => wanted.to_vec(),
            Some(end) if above.contains_key(end) => vec![*end],
            Some(_) => continue,
        };
        let read = read(graph, &own, &goal)?;
        // Of the values before, those whose gradient leads on to something.
        let on: Vec<ValueId> =
            before.iter().filter(|v| read.contains(v) && learned.contains(v)).copied().collect();
        let values: Vec<ValueId> = on.iter().chain(wrt.values).copied().collect();
        let wrt = Wrt { values: &values, weights: wrt.weights };
        let got = match upstream.take() {
            Some(loss) => on_one_tape(graph, weights, &own, &goal, wrt, &whole, loss)?,
            None => {
                let up = goal.iter().filter_map(|v| above.remove(v)).collect();
                on_one_tape(graph, weights, &own, &goal, wrt, &whole, |_| Ok(up))?
            }
        };
        if part == ends.len() {
            found.outputs = got.outputs;
        }
        for (v, t) in got.values {
            let sums = if on.contains(&v) { &mut above } else { &mut found.values };
            add(sums, v, t)?;
        }
        for (id, t) in got.weights {
            add(&mut found.weights, id, t)?;
        }
    }
    Ok(found)
}

fn add<K: Ord>(sums: &mut BTreeMap<K, Tensor>, key: K, t: Tensor) -> Result<()> {
    let sum = match sums.remove(&key) {
        Some(sum) => sum.add(&t)?,
        None => t,
    };
    sums.insert(key, sum);
    Ok(())
}

/// Fed values that are read on the way to some values, those themselves among them.
fn read(graph: &Graph, feeds: &Feeds, goal: &[ValueId]) -> Result<BTreeSet<ValueId>> {
    let nodes = needed(graph, feeds, goal)?;
    let inputs = nodes.iter().flat_map(|id: &NodeId| graph.node(*id).inputs.iter());
    Ok(inputs.chain(goal).copied().filter(|v| feeds.contains_key(v)).collect())
}

/// Values that depend on a weight or a value whose gradient is wanted.
fn learned(graph: &Graph, wrt: Wrt<'_>) -> BTreeSet<ValueId> {
    let mut out: BTreeSet<ValueId> = wrt.values.iter().copied().collect();
    let weights: BTreeSet<TensorId> = wrt.weights.iter().copied().collect();
    for (_, node) in graph.iter() {
        // An adapter's factors are tensors of the node that no slot names.
        if graph.adapter(&node.path).is_some()
            || node.inputs.iter().any(|v| out.contains(v))
            || node.weights.values().any(|w| weights.contains(w))
        {
            out.extend(&node.outputs);
        }
    }
    out
}

/// Checkpoints that the graph does not have are a fault of whoever gave them.
pub(crate) fn check(graph: &Graph, options: &Options) -> Result<()> {
    match options.checkpoints.iter().find(|v| v.0 as usize >= graph.values.len()) {
        None => Ok(()),
        Some(v) => Err(ExecError::Feed {
            value: format!("#{}", v.0),
            message: format!("is a checkpoint; the graph has {} values", graph.values.len()),
        }),
    }
}
