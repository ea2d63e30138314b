//! One run of any graph on the smallest input that it takes: whether an output works at all.

use std::collections::HashSet;

use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Bindings, Graph, ValueId, ValueType};

use crate::error::{Result, TaskError};
use crate::language::empty_states;
use crate::objective::Weights;

/// Largest size that is tried for a symbol.
const MAX_SIZE: i64 = 4096;
/// Elements of weights between two points at which a streamed run lets go of them.
const SEGMENT: u64 = 16 << 20;

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

/// Runs the whole graph, part by part, weights let go between the parts (which frees them where they are streamed), and
/// stops at the first number that is not finite.
///
/// # Errors
/// As the executor's; the message names the node.
pub fn run_through(graph: &Graph, weights: &dyn Weights, mut feeds: Feeds) -> Result<()> {
    let options = Options { check_finite: true, ..Options::default() };
    let ports: HashSet<ValueId> =
        graph.outputs.iter().map(|p| p.value).chain(graph.states.iter().map(|s| s.output)).collect();
    let mut last_use = vec![0; graph.values.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| last_use[v.0 as usize] = i);
    }
    let mut made: Vec<ValueId> = Vec::new();
    let mut elements = 0_u64;
    for (i, node) in graph.nodes.iter().enumerate() {
        made.extend(&node.outputs);
        let size = |t: &pomona_graph::TensorId| graph.tensor(*t).elements();
        elements = elements.saturating_add(node.weights.values().map(size).sum());
        let end = i + 1 == graph.nodes.len();
        if elements < SEGMENT && !end {
            continue;
        }
        // What later nodes read is kept, as is what the graph gives.
        let live = |v: &ValueId| last_use[v.0 as usize] > i || ports.contains(v);
        let wanted: Vec<ValueId> = made.drain(..).filter(live).collect();
        let found = evaluate(graph, weights, &feeds, &wanted, &options)?;
        weights.release();
        feeds.retain(|v, _| last_use[v.0 as usize] > i);
        feeds.extend(wanted.into_iter().zip(found));
        elements = 0;
    }
    Ok(())
}
