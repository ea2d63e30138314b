//! Forward runs: only the nodes that the wanted values need, each value freed at its last use.

use std::collections::BTreeMap;

use pomona_graph::{Bindings, Graph, NodeId, QuantTarget, TensorId, ValueId};

use crate::error::{ExecError, Result};
use crate::ops::{self, Call};
use crate::quantise;
use crate::symbols::learn;
use crate::tensor::Tensor;
use crate::weights::WeightProvider;

/// Values that are given. A fed inner value cuts the graph there: its producers do not run.
pub type Feeds = BTreeMap<ValueId, Tensor>;

/// What dropout and batch statistics do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Dropout is the identity, BatchNorm uses what its attribute says.
    #[default]
    Inference,
    /// Dropout drops, from this seed and the node's path.
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
}

/// The wanted values, in their order.
pub fn evaluate(
    graph: &Graph,
    weights: &dyn WeightProvider,
    feeds: &Feeds,
    wanted: &[ValueId],
    options: &Options,
) -> Result<Vec<Tensor>> {
    run(graph, feeds, wanted, options, &mut |id, _| weights.get(id), weights, false)
}

/// A run whose weights go through `tensor`, which may put them on a tape. `provider` serves embeddings by rows.
pub(crate) fn run(
    graph: &Graph,
    feeds: &Feeds,
    wanted: &[ValueId],
    options: &Options,
    tensor: &mut dyn FnMut(TensorId, NodeId) -> Result<Tensor>,
    provider: &dyn WeightProvider,
    taped: bool,
) -> Result<Vec<Tensor>> {
    let mut sizes = Bindings::new();
    for (id, fed) in feeds {
        learn(graph, *id, fed, &mut sizes)?;
    }
    let order = needed(graph, feeds, wanted)?;
    let mut last = BTreeMap::new();
    for &id in &order {
        for v in &graph.node(id).inputs {
            last.insert(*v, id);
        }
    }
    let mut live: BTreeMap<ValueId, Tensor> = feeds.clone();
    for &id in &order {
        let node = graph.node(id);
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            let done = last.get(v) == Some(&id) && !wanted.contains(v) && !feeds.contains_key(v);
            let again = node.inputs.iter().filter(|w| *w == v).count() > 1;
            let value = if done && !again { live.remove(v) } else { live.get(v).cloned() };
            inputs.push(value.ok_or_else(|| ExecError::Feed {
                value: graph.value_ref(*v).0,
                message: format!("is needed by `{}` and was neither fed nor made", node.path),
            })?);
        }
        let annotated = graph.annotations.contains_key(&node.path);
        let round = |t: Tensor, target: QuantTarget| {
            quantise::rounded(t, quantise::note(graph, node, &target), node, taped)
        };
        if annotated {
            let all = inputs.into_iter().enumerate().map(|(k, t)| round(t, QuantTarget::Input(k)));
            inputs = all.collect::<Result<_>>()?;
        }
        let call = Call { graph, id, node, inputs, sizes: &sizes, options, provider, taped };
        let mut outputs = if annotated {
            let mut fetch = |t: TensorId, n: NodeId| {
                quantise::rounded(tensor(t, n)?, quantise::of_weight(graph, node, t), node, taped)
            };
            ops::run(call, &mut fetch)?
        } else {
            ops::run(call, tensor)?
        };
        if annotated {
            let all = outputs.into_iter().enumerate().map(|(k, t)| round(t, QuantTarget::Output(k)));
            outputs = all.collect::<Result<_>>()?;
        }
        for v in &node.inputs {
            if last.get(v) == Some(&id) && !wanted.contains(v) && !feeds.contains_key(v) {
                live.remove(v);
            }
        }
        for (v, t) in node.outputs.iter().zip(outputs) {
            if options.check_finite {
                check_finite(node, &t)?;
            }
            if last.contains_key(v) || wanted.contains(v) {
                live.insert(*v, t);
            }
        }
    }
    wanted
        .iter()
        .map(|v| {
            live.get(v).cloned().ok_or_else(|| ExecError::Feed {
                value: graph.value_ref(*v).0,
                message: "is wanted and was neither fed nor made".to_owned(),
            })
        })
        .collect()
}

fn check_finite(node: &pomona_graph::Node, t: &Tensor) -> Result<()> {
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
fn needed(graph: &Graph, feeds: &Feeds, wanted: &[ValueId]) -> Result<Vec<NodeId>> {
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
