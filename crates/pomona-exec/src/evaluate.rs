//! Forward runs: only the nodes that the wanted values need, each value freed at its last use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use pomona_graph::{Activation, Graph, Node, NodeId, Op, TensorId, ValueId};

use crate::annotation;
use crate::error::{ExecError, Result};
use crate::ops::{self, Call};
use crate::symbols::{learn, learn_all};
use crate::tensor::Tensor;
use crate::threads::stay_awake;
use crate::weights::WeightProvider;

/// Values that are given. A fed inner value cuts the graph there: its producers do not run.
pub type Feeds = BTreeMap<ValueId, Tensor>;

/// What dropout and batch statistics do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Dropout is the identity, BatchNorm uses what its attribute says.
    #[default]
    Inference,
    /// Dropout drops, from this seed and the node's path; BatchNorm uses the batch's statistics.
    Training {
        /// The run's seed.
        seed: u64,
    },
}

/// How a graph is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Inference or training.
    pub mode: Mode,
    /// Stop at the first node that makes a NaN or an infinity, naming it.
    pub check_finite: bool,
    /// Values that a backward run keeps while it runs what lies between them again, one part at a time, instead of keeping a
    /// tape of everything: [`crate::block_ends`] gives those of a graph's blocks. Forward runs pay no heed to them.
    pub checkpoints: Vec<ValueId>,
    /// Told the moments of its batch by every BatchNorm that normalises by them.
    pub moments: Option<Arc<BatchMoments>>,
}

/// Moments of batches, by the path of the BatchNorm that took them.
#[derive(Debug, Default)]
pub struct BatchMoments(Mutex<BTreeMap<String, ChannelMoments>>);

/// What a BatchNorm saw of its input, a number a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelMoments {
    /// Means over batch and space.
    pub mean: Vec<f32>,
    /// Mean squared distances from them (not the unbiased ones).
    pub variance: Vec<f32>,
    /// Numbers in a channel.
    pub count: usize,
}

impl BatchMoments {
    pub(crate) fn tell(&self, path: &str, moments: ChannelMoments) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), moments);
    }

    /// All that was told since the last time.
    pub fn take(&self) -> BTreeMap<String, ChannelMoments> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The wanted values, in their order; any value of the graph can be wanted.
///
/// Fails where a needed input was not fed, a feed does not fit its declared shape, a weight cannot be had, or a node
/// cannot be run on what it is given.
pub fn evaluate(
    graph: &Graph,
    weights: &dyn WeightProvider,
    feeds: &Feeds,
    wanted: &[ValueId],
    options: &Options,
) -> Result<Vec<Tensor>> {
    let source = Source { fetch: &|id| weights.get(id), provider: weights, tracked: &[] };
    run(graph, feeds, wanted, options, &source)
}

/// Where a run's weights come from.
pub(crate) struct Source<'a> {
    /// Gives a weight, on the tape if its gradient is wanted.
    pub fetch: &'a dyn Fn(TensorId) -> Result<Tensor>,
    /// What is behind it; serves embeddings by rows.
    pub provider: &'a dyn WeightProvider,
    /// Weights on the tape: they may not be had around `fetch`.
    pub tracked: &'a [TensorId],
}

pub(crate) fn run(
    graph: &Graph,
    feeds: &Feeds,
    wanted: &[ValueId],
    options: &Options,
    source: &Source<'_>,
) -> Result<Vec<Tensor>> {
    let mut sizes = learn_all(graph, feeds)?;
    let order = needed(graph, feeds, wanted)?;
    let mut last = BTreeMap::new();
    for &id in &order {
        for v in &graph.node(id).inputs {
            last.insert(*v, id);
        }
    }
    let pairs = pairs(graph, &order, wanted, options);
    let seconds: BTreeSet<NodeId> = pairs.values().map(|(second, _)| *second).collect();
    let mut live: BTreeMap<ValueId, Tensor> = feeds.clone();
    for &id in &order {
        let node = graph.node(id);
        if seconds.contains(&id) {
            continue;
        }
        let done = |v: &ValueId| last.get(v) == Some(&id) && !wanted.contains(v);
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (k, v) in node.inputs.iter().enumerate() {
            // Moved out at the last use, so that it is freed, or its memory used again, while the node runs.
            let value = if done(v) && !node.inputs[k + 1..].contains(v) {
                live.remove(v)
            } else {
                live.get(v).cloned()
            };
            inputs.push(value.ok_or_else(|| ExecError::Feed {
                value: graph.value_ref(*v).0,
                message: format!("is needed by `{}` and was neither fed nor made", node.path),
            })?);
        }
        let pair = pairs.get(&id);
        let then = pair.map(|(_, function)| *function);
        let mut call = Call { graph, node, inputs, sizes: &sizes, options, source, then };
        let marks = graph.annotations.get(&node.path);
        if let Some(marks) = marks {
            annotation::round_inputs(&mut call, marks)?;
        }
        stay_awake(worth(graph, node, &call.inputs));
        let mut outputs = ops::run(call)?;
        if let Some(marks) = marks {
            annotation::round_outputs(node, &mut outputs, marks)?;
        }
        let made = pair.map_or(node, |(second, _)| graph.node(*second));
        for (v, t) in made.outputs.iter().zip(outputs) {
            if options.check_finite {
                check_finite(node, &t)?;
            }
            if graph.value(*v).shape.iter().any(|d| d.symbols().iter().any(|s| !sizes.contains_key(s))) {
                learn(graph, *v, &t, &mut sizes)?;
            }
            if last.contains_key(v) || wanted.contains(v) {
                live.insert(*v, t);
            }
        }
    }
    let missing = |v: &ValueId| ExecError::Feed {
        value: graph.value_ref(*v).0,
        message: "is wanted and was neither fed nor made".to_owned(),
    };
    wanted.iter().map(|v| live.get(v).cloned().ok_or_else(|| missing(v))).collect()
}

/// The largest tensor that a node reads, where the processor's threads share what is done with it.
fn worth(graph: &Graph, node: &Node, inputs: &[Tensor]) -> usize {
    if inputs.first().is_some_and(|t| !t.device().is_cpu()) {
        return 0;
    }
    let weights =
        node.weights.values().map(|id| usize::try_from(graph.tensor(*id).elements()).unwrap_or(usize::MAX));
    inputs.iter().map(Tensor::elements).chain(weights).max().unwrap_or(0)
}

/// Nodes that run with the activation behind them as one: nothing else reads what lies between, no annotation is on
/// either, and no check asks which of the two made a NaN.
fn pairs(
    graph: &Graph,
    order: &[NodeId],
    wanted: &[ValueId],
    options: &Options,
) -> BTreeMap<NodeId, (NodeId, Activation)> {
    let mut readers: BTreeMap<ValueId, Vec<NodeId>> = BTreeMap::new();
    for &id in order {
        graph.node(id).inputs.iter().for_each(|v| readers.entry(*v).or_default().push(id));
    }
    let marked = |n: &Node| graph.annotations.contains_key(&n.path);
    let pair = |id: NodeId| {
        let node = graph.node(id);
        let ([between], false) = (node.outputs.as_slice(), marked(node) || options.check_finite) else {
            return None;
        };
        let [second] = readers.get(between)?.as_slice() else { return None };
        let next = graph.node(*second);
        let Op::Activation { function } = next.op else { return None };
        let one = !wanted.contains(between) && !marked(next) && ops::takes(&node.op, function);
        one.then_some((id, (*second, function)))
    };
    order.iter().filter_map(|id| pair(*id)).collect()
}

fn check_finite(node: &Node, t: &Tensor) -> Result<()> {
    let bad = t.with_f32(|v| v.iter().position(|x| !x.is_finite()))?;
    match bad {
        Some(at) => Err(ExecError::Node {
            node: node.path.clone(),
            op: node.op.name(),
            message: format!("gives a NaN or an infinity (element {at} of {:?})", t.shape()),
        }),
        None => Ok(()),
    }
}

/// Nodes that the wanted values need, in order, where fed values need nothing.
///
/// # Errors
/// An input that is needed and was not fed.
pub fn needed(graph: &Graph, feeds: &Feeds, wanted: &[ValueId]) -> Result<Vec<NodeId>> {
    let producers = graph.producers();
    let mut take = vec![false; graph.nodes.len()];
    let mut open: Vec<ValueId> = wanted.to_vec();
    while let Some(v) = open.pop() {
        if feeds.contains_key(&v) {
            continue;
        }
        match producers.get(v.0 as usize).copied().flatten() {
            Some((id, _)) if !take[id.0 as usize] => {
                take[id.0 as usize] = true;
                open.extend(&graph.node(id).inputs);
            }
            Some(_) => {}
            None => {
                return Err(ExecError::Feed {
                    value: graph.value_ref(v).0,
                    message: "is an input that was not fed".to_owned(),
                });
            }
        }
    }
    Ok(graph.iter().map(|(id, _)| id).filter(|id| take[id.0 as usize]).collect())
}
