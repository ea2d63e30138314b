//! Backward runs through Burn's autodiff: a vector-Jacobian product for any values and weights.

use std::collections::BTreeMap;

use pomona_graph::{Graph, TensorId, ValueId};

use crate::burn_types::{AutodiffBackend, B, FloatTensorOps};
use crate::error::{ExecError, Result};
use crate::evaluate::{Feeds, Options, run};
use crate::tensor::{Kind, Tensor};
use crate::weights::WeightProvider;

/// What a backward run gives.
#[derive(Debug, Default)]
pub struct Gradients {
    /// The values that the upstream gradients belong to, in their order.
    pub outputs: Vec<Tensor>,
    /// Gradients of fed values.
    pub values: BTreeMap<ValueId, Tensor>,
    /// Gradients of weights, summed over the uses of a tied one.
    pub weights: BTreeMap<TensorId, Tensor>,
}

/// Gradients of `sum over upstream of <value, gradient>` for fed values and weights. Nothing else goes onto the tape.
pub fn gradients(
    graph: &Graph,
    weights: &dyn WeightProvider,
    feeds: &Feeds,
    upstream: &[(ValueId, Tensor)],
    wrt_values: &[ValueId],
    wrt_weights: &[TensorId],
    options: &Options,
) -> Result<Gradients> {
    let mut leaves: Feeds = BTreeMap::new();
    for (id, tensor) in feeds {
        leaves.insert(*id, tensor.leaf(wrt_values.contains(id))?);
    }
    for id in wrt_values {
        if feeds.get(id).is_none_or(|t| t.kind() != Kind::Float) {
            let message = "its gradient is wanted, so it must be fed as floats".to_owned();
            return Err(ExecError::Feed { value: graph.value_ref(*id).0, message });
        }
    }
    let mut tracked: BTreeMap<TensorId, Tensor> = BTreeMap::new();
    let wanted: Vec<ValueId> = upstream.iter().map(|(v, _)| *v).collect();
    let mut tensor = |id: TensorId, _| {
        if let Some(t) = tracked.get(&id) {
            return Ok(t.clone());
        }
        let leaf = weights.get(id)?.leaf(wrt_weights.contains(&id))?;
        if wrt_weights.contains(&id) {
            tracked.insert(id, leaf.clone());
        }
        Ok(leaf)
    };
    let outputs = run(graph, &leaves, &wanted, options, &mut tensor, weights, true)?;
    let mut loss = None;
    for (out, (id, above)) in outputs.iter().zip(upstream) {
        if out.shape() != above.shape() {
            let message = format!("is {out:?} and its upstream gradient {above:?}");
            return Err(ExecError::Feed { value: graph.value_ref(*id).0, message });
        }
        let term = B::float_sum(B::float_mul(out.as_float()?, above.leaf(false)?.as_float()?));
        loss = Some(match loss {
            Some(sum) => B::float_add(sum, term),
            None => term,
        });
    }
    let mut found = Gradients::default();
    let Some(loss) = loss else { return Ok(found) };
    let grads = B::backward(loss);
    let take = |leaf: &Tensor| -> Result<Tensor> {
        match B::grad(&leaf.as_float()?, &grads) {
            Some(g) => Ok(Tensor::float(g, &leaf.device)),
            // A leaf that the outputs do not depend on.
            None => Tensor::full(0.0, leaf.shape(), &leaf.device),
        }
    };
    for id in wrt_values {
        if let Some(leaf) = leaves.get(id) {
            found.values.insert(*id, take(leaf)?);
        }
    }
    for (id, leaf) in &tracked {
        found.weights.insert(*id, take(leaf)?);
    }
    for out in outputs {
        found.outputs.push(Tensor::float(B::inner(out.as_float()?), &out.device));
    }
    Ok(found)
}
