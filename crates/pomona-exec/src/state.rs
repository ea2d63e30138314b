//! State between runs: caches that grow, recurrent states, previous frames.

use pomona_graph::{Bindings, Graph, ValueType};

use crate::device::Device;
use crate::error::{ExecError, Result};
use crate::evaluate::{Feeds, Options, evaluate};
use crate::tensor::Tensor;
use crate::weights::WeightProvider;

/// The states of a first run. Symbols without a size (a cache's length) are 0.
pub fn start_states(graph: &Graph, sizes: &Bindings, device: &Device) -> Result<Feeds> {
    let mut feeds = Feeds::new();
    for state in &graph.states {
        let value = graph.value(state.input);
        let mut shape = Vec::with_capacity(value.shape.len());
        for dim in &value.shape {
            let mut sizes = sizes.clone();
            for symbol in dim.symbols() {
                sizes.entry(symbol).or_insert(0);
            }
            let bound = dim.bind(&sizes).and_then(|d| d.size(&state.name));
            shape.push(
                bound.map_err(|e| ExecError::Feed { value: state.name.clone(), message: e.to_string() })?,
            );
        }
        let count = shape.iter().product();
        let tensor = match value.ty {
            ValueType::Float => Tensor::full(state.start as f32, &shape, device)?,
            ValueType::Int => Tensor::from_i64(vec![state.start as i64; count], &shape, device)?,
            ValueType::Bool => Tensor::from_bool(vec![state.start != 0.0; count], &shape, device)?,
        };
        feeds.insert(state.input, tensor);
    }
    Ok(feeds)
}

/// One run: the named output, and `states` moved on to what the next run reads.
pub fn step(
    graph: &Graph,
    weights: &dyn WeightProvider,
    inputs: &Feeds,
    states: &mut Feeds,
    output: &str,
    options: &Options,
) -> Result<Tensor> {
    let missing =
        || ExecError::Feed { value: output.to_owned(), message: "is no output of the graph".to_owned() };
    let mut wanted = vec![graph.output(output).ok_or_else(missing)?];
    wanted.extend(graph.states.iter().map(|s| s.output));
    let mut feeds = states.clone();
    feeds.extend(inputs.iter().map(|(k, v)| (*k, v.clone())));
    let mut found = evaluate(graph, weights, &feeds, &wanted, options)?.into_iter();
    let out = found.next().ok_or_else(missing)?;
    *states = graph.states.iter().map(|s| s.input).zip(found).collect();
    Ok(out)
}
