//! Backward runs through Burn's autodiff: a vector-Jacobian product for any values and weights.

use std::cell::RefCell;
use std::collections::BTreeMap;

use pomona_graph::{Graph, TensorId, ValueId};

use crate::burn_types::{AutodiffBackend, B, D, FloatTensorOps};
use crate::checkpoints;
use crate::error::{ExecError, Result};
use crate::evaluate::{Feeds, Options, Source, run};
use crate::kernels;
use crate::tensor::{Kind, Tensor};
use crate::weights::WeightProvider;

/// What a backward run gives.
#[derive(Debug, Default)]
pub struct Gradients {
    /// The values that the upstream gradients belong to, in their order.
    pub outputs: Vec<Tensor>,
    /// Gradients of fed values.
    pub values: BTreeMap<ValueId, Tensor>,
    /// Gradients of weights, summed over the uses of a tied one. A weight that no node of the run reads has none.
    pub weights: BTreeMap<TensorId, Tensor>,
}

/// Gradients of `sum over upstream of <value, gradient>` for fed values and weights.
///
/// Nodes that depend on none of them run as in [`crate::evaluate`], without a tape. Upstream gradients have the shapes
/// of their values. `wrt_values` must be fed, as floats.
pub fn gradients(
    graph: &Graph,
    weights: &dyn WeightProvider,
    feeds: &Feeds,
    upstream: &[(ValueId, Tensor)],
    wrt_values: &[ValueId],
    wrt_weights: &[TensorId],
    options: &Options,
) -> Result<Gradients> {
    let wanted: Vec<ValueId> = upstream.iter().map(|(v, _)| *v).collect();
    let wrt = Wrt { values: wrt_values, weights: wrt_weights };
    let given = |_: &[Tensor]| Ok(upstream.iter().map(|(_, t)| t.clone()).collect());
    gradients_of_loss(graph, weights, feeds, &wanted, wrt, options, given)
}

/// What gradients are wanted for: fed values, as floats, and weights.
#[derive(Clone, Copy, Debug)]
pub struct Wrt<'a> {
    /// Fed values.
    pub values: &'a [ValueId],
    /// Weights of the graph's table.
    pub weights: &'a [TensorId],
}

/// Gradients of a loss in one forward and one backward run: `upstream` is called with the wanted values, off the tape, and
/// gives the loss's gradient for each, in its shape.
///
/// Nodes that depend on nothing that `wrt` names run without a tape and keep nothing. With [`Options::checkpoints`] the
/// tape holds one part of the graph at a time, and the parts are run forward once more.
pub fn gradients_of_loss(
    graph: &Graph,
    weights: &dyn WeightProvider,
    feeds: &Feeds,
    wanted: &[ValueId],
    wrt: Wrt<'_>,
    options: &Options,
    upstream: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Gradients> {
    if options.checkpoints.is_empty() {
        return on_one_tape(graph, weights, feeds, wanted, wrt, options, upstream);
    }
    checkpoints::check(graph, options)?;
    checkpoints::part_by_part(graph, weights, feeds, wanted, wrt, options, upstream)
}

/// With a tape of the whole run.
pub(crate) fn on_one_tape(
    graph: &Graph,
    weights: &dyn WeightProvider,
    feeds: &Feeds,
    wanted: &[ValueId],
    wrt: Wrt<'_>,
    options: &Options,
    upstream: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Gradients> {
    let (wrt_values, wrt_weights) = (wrt.values, wrt.weights);
    let mut leaves: Feeds = feeds.clone();
    for id in wrt_values {
        match leaves.get_mut(id) {
            Some(t) if t.kind() == Kind::Float => *t = t.leaf()?,
            _ => {
                let message = "its gradient is wanted, so it must be fed as floats".to_owned();
                return Err(ExecError::Feed { value: graph.value_ref(*id).0, message });
            }
        }
    }
    let tracked: RefCell<BTreeMap<TensorId, Tensor>> = RefCell::default();
    let fetch = |id: TensorId| {
        if !wrt_weights.contains(&id) {
            return weights.get(id);
        }
        if let Some(t) = tracked.borrow().get(&id) {
            return Ok(t.clone());
        }
        let leaf = weights.get(id)?.leaf()?;
        tracked.borrow_mut().insert(id, leaf.clone());
        Ok(leaf)
    };
    let source = Source { fetch: &fetch, provider: weights, tracked: wrt_weights };
    let outputs = run(graph, &leaves, wanted, options, &source)?;
    let plain = outputs.iter().map(Tensor::off_tape).collect::<Result<Vec<_>>>()?;
    let upstream = upstream(&plain)?;
    if upstream.len() != wanted.len() {
        let message = format!("{} gradients were given for {} values", upstream.len(), wanted.len());
        return Err(ExecError::Tensor(message));
    }
    let mut loss = None;
    for (out, (id, above)) in outputs.iter().zip(wanted.iter().zip(&upstream)) {
        if out.shape() != above.shape() || out.kind() != Kind::Float || above.kind() != Kind::Float {
            let message = format!("is {out:?} and its upstream gradient {above:?}");
            return Err(ExecError::Feed { value: graph.value_ref(*id).0, message });
        }
        if !out.is_taped() {
            continue;
        }
        let term = seed(out, above)?;
        loss = Some(match loss {
            Some(sum) => B::float_add(sum, term),
            None => term,
        });
    }
    let grads = loss.map(B::backward);
    let take = |leaf: &Tensor| -> Result<Tensor> {
        let d = leaf.as_float()?;
        match grads.as_ref().and_then(|g| B::grad(&d, g)) {
            Some(g) => Ok(Tensor::float(g, &leaf.device)),
            // A leaf that the outputs do not depend on.
            None => Tensor::full(0.0, leaf.shape(), &leaf.device),
        }
    };
    let mut found = Gradients::default();
    for id in wrt_values {
        if let Some(leaf) = leaves.get(id) {
            found.values.insert(*id, take(leaf)?);
        }
    }
    for (id, leaf) in tracked.borrow().iter() {
        found.weights.insert(*id, take(leaf)?);
    }
    found.outputs = plain;
    Ok(found)
}

/// A number whose gradient for `out` is `above`.
fn seed(out: &Tensor, above: &Tensor) -> Result<D> {
    match kernels::seed(out, above)? {
        Some(t) => t.as_float(),
        None => Ok(B::float_sum(B::float_mul(out.as_float()?, above.as_float()?))),
    }
}
