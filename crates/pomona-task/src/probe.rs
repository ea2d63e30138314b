//! One run of any graph on the smallest input that it takes: whether an output works at all.

use pomona_exec::{Device, Feeds, Options, Tensor};
use pomona_graph::{Bindings, Graph, ValueId, ValueType};

use crate::error::{Result, TaskError};
use crate::language::empty_states;
use crate::objective::Weights;
use crate::parts::evaluate_in_parts;

/// Largest size that is tried for a symbol.
const MAX_SIZE: i64 = 4096;

/// Inputs of batch 1 whose other sizes are the smallest power of two, one for all, that every operator takes; numbers are
/// harmless (positive: some networks take logarithms of them), integers 0, states empty.
///
/// # Errors
/// [`TaskError::Unfit`] where no size up to 4096 fits.
pub fn smallest_feeds(graph: &Graph, device: &Device) -> Result<Feeds> {
    let mut size = 1;
    let sizes: Bindings = loop {
        let fixed = |s: &str| match s {
            "batch" => 1,
            "past" => 0,
            _ => size,
        };
        let sizes = graph.symbols().into_iter().map(|s| (s.clone(), fixed(&s))).collect();
        match graph.bind(&sizes) {
            Ok(_) => break sizes,
            Err(e) if size >= MAX_SIZE => {
                return Err(TaskError::Unfit(format!("no input size up to {MAX_SIZE} fits the graph: {e}")));
            }
            Err(_) => size *= 2,
        }
    };
    let mut feeds = Feeds::default();
    for port in &graph.inputs {
        let value = graph.value(port.value);
        let dims = value.shape.iter().map(|d| d.bind(&sizes)?.size(&port.name));
        let shape: Vec<usize> = dims.collect::<pomona_graph::Result<_>>()?;
        let n = shape.iter().product();
        let tensor = match value.ty {
            ValueType::Float => Tensor::from_f32(
                (0..n).map(|i| 0.5 + 0.25 * (i as f32 * 0.37).sin()).collect(),
                &shape,
                device,
            )?,
            ValueType::Int => Tensor::from_i64(vec![0; n], &shape, device)?,
            ValueType::Bool => Tensor::from_bool(vec![true; n], &shape, device)?,
        };
        feeds.insert(port.value, tensor);
    }
    feeds.extend(empty_states(graph, 1, device)?);
    Ok(feeds)
}

/// Runs the whole graph, part by part ([`evaluate_in_parts`]), and stops at the first number that is not finite.
///
/// # Errors
/// As the executor's; the message names the node.
pub fn run_through(graph: &Graph, weights: &dyn Weights, feeds: Feeds) -> Result<()> {
    let options = Options { check_finite: true, ..Options::default() };
    let ports: Vec<ValueId> =
        graph.outputs.iter().map(|p| p.value).chain(graph.states.iter().map(|s| s.output)).collect();
    evaluate_in_parts(graph, weights, &feeds, &ports, &options)?;
    Ok(())
}
