//! From a bound graph to its report. One pass over nodes and tensors: the time is linear in the graph.

use std::collections::BTreeMap;

use pomona_graph::{Graph, Node, Op, Role, Slot, ValueId, ValueType, show_shape};

use crate::blocks::{self, BlockSpec};
use crate::count::{OpCost, Shapes, macs};
use crate::dtype::{is_float, stored_bytes};
use crate::error::{CostError, Result};
use crate::liveness;
use crate::report::{CostReport, InputShape, OperatorCost, Traffic, Uncounted};
use crate::state;
use crate::tree;

/// What the counts assume beside the graph.
#[derive(Clone, Debug, Default)]
pub struct CostOptions {
    /// Name of the architecture for the report; the component's name where it is empty.
    pub architecture: String,
    /// Element type of activations and states (`f32`, `f16`, ...). Without it: the floating-point type that holds most
    /// of the weights' bytes, or f16 where most are quantised, as run times for these do.
    pub activation_dtype: Option<String>,
    /// Removable parts as the graph's analysis finds them. Without them the report lists the repeated modules, none of
    /// them marked removable.
    pub blocks: Option<Vec<BlockSpec>>,
}

/// Counts a bound graph. An error where a shape is symbolic; what has no count is named in the report.
pub fn cost(graph: &Graph, options: &CostOptions) -> Result<CostReport> {
    let shapes = bound_shapes(graph)?;
    let dtype = options.activation_dtype.clone().unwrap_or_else(|| usual_dtype(graph));
    let sizes = value_bytes(graph, &shapes, &dtype);

    let mut uncounted = Vec::new();
    let tensor_bytes: Vec<u64> = graph
        .tensors
        .iter()
        .map(|t| {
            stored_bytes(t.elements(), &t.dtype).unwrap_or_else(|| {
                uncounted.push(Uncounted {
                    path: t.name.clone(),
                    operator: t.dtype.clone(),
                    reason: "the bytes of this element type are not known".to_owned(),
                });
                0
            })
        })
        .collect();

    let appends = state::appends(graph);
    let mut operators = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.iter() {
        let counted = macs(&node.op, &node_shapes(graph, node, &shapes)).unwrap_or_else(|reason| {
            uncounted.push(Uncounted {
                path: node.path.clone(),
                operator: node.op.name().to_owned(),
                reason,
            });
            OpCost::default()
        });
        let launched = !is_view(&node.op);
        let traffic = match (launched, appends.get(&id)) {
            (false, _) => Traffic::default(),
            (true, Some(held)) => append_traffic(node, *held, &sizes),
            (true, None) => traffic(graph, node, &sizes, &tensor_bytes, &shapes),
        };
        let flops = 2.0 * counted.macs_full as f64 + counted.other_ops as f64;
        operators.push(OperatorCost {
            path: node.path.clone(),
            operator: node.op.name().to_owned(),
            output: node.outputs.first().map(|v| shapes[v.0 as usize].clone()).unwrap_or_default(),
            parameters: own_parameters(graph, node),
            macs: counted.into(),
            other_ops: counted.other_ops,
            traffic,
            intensity: (traffic.total() > 0).then(|| flops / traffic.total() as f64),
            launched,
        });
    }

    let modules = tree::build(graph, &operators, &tensor_bytes);
    let specs = options.blocks.clone().unwrap_or_else(|| blocks::repeated(graph));
    Ok(CostReport {
        architecture: if options.architecture.is_empty() { &graph.name } else { &options.architecture }
            .clone(),
        component: graph.name.clone(),
        parameters: graph.parameters(),
        macs: modules.macs,
        other_ops: modules.other_ops,
        weight_bytes: tensor_bytes.iter().fold(0, |n, b| n.saturating_add(*b)),
        activation_dtype: dtype,
        traffic: operators.iter().fold(Traffic::default(), |a, o| Traffic {
            weights: a.weights.saturating_add(o.traffic.weights),
            read: a.read.saturating_add(o.traffic.read),
            written: a.written.saturating_add(o.traffic.written),
        }),
        peak_activations: liveness::peak(graph, &sizes),
        state_bytes: state::bytes(graph, &shapes, &sizes),
        inputs: graph
            .inputs
            .iter()
            .map(|p| InputShape { name: p.name.clone(), shape: shapes[p.value.0 as usize].clone() })
            .collect(),
        blocks: blocks::costs(graph, &specs, &operators, &tensor_bytes),
        uncounted,
        modules,
        operators,
    })
}

/// The integers of every shape.
fn bound_shapes(graph: &Graph) -> Result<Vec<Vec<u64>>> {
    let bound = |(i, v): (usize, &pomona_graph::Value)| {
        let sizes: Option<Vec<u64>> =
            v.shape.iter().map(|d| d.as_int().and_then(|n| u64::try_from(n).ok())).collect();
        sizes.ok_or_else(|| CostError::Unbound {
            node: graph.value_ref(ValueId(i as u32)).0,
            value: i as u32,
            shape: show_shape(&v.shape),
        })
    };
    graph.values.iter().enumerate().map(bound).collect()
}

/// Bytes of every value.
fn value_bytes(graph: &Graph, shapes: &[Vec<u64>], dtype: &str) -> Vec<u64> {
    let one = |(v, shape): (&pomona_graph::Value, &Vec<u64>)| {
        let elements = shape.iter().fold(1_u64, |n, d| n.saturating_mul(*d));
        let dtype = match v.ty {
            ValueType::Float => dtype,
            ValueType::Int => "i64",
            ValueType::Bool => "bool",
        };
        stored_bytes(elements, dtype).unwrap_or(u64::MAX)
    };
    graph.values.iter().zip(shapes).map(one).collect()
}

/// The type in which a run time for these weights computes.
fn usual_dtype(graph: &Graph) -> String {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for t in graph.tensors.iter().filter(|t| t.role == Role::Parameter) {
        let sum = bytes.entry(t.dtype.as_str()).or_default();
        *sum = sum.saturating_add(stored_bytes(t.elements(), &t.dtype).unwrap_or(0));
    }
    match bytes.into_iter().max_by_key(|(_, n)| *n) {
        Some((dtype, _)) if is_float(dtype) => dtype.to_owned(),
        Some(_) => "f16".to_owned(),
        None => "f32".to_owned(),
    }
}

fn node_shapes(graph: &Graph, node: &Node, shapes: &[Vec<u64>]) -> Shapes {
    let of = |values: &[ValueId]| values.iter().map(|v| shapes[v.0 as usize].clone()).collect();
    let sizes = |t: &pomona_graph::TensorDef| t.shape.iter().map(|d| *d as u64).collect();
    Shapes {
        inputs: of(&node.inputs),
        outputs: of(&node.outputs),
        weights: node.weights.iter().map(|(slot, t)| (*slot, sizes(graph.tensor(*t)))).collect(),
    }
}

/// Operators that give another view of the same memory, or nothing to do at inference.
fn is_view(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Expand { .. }
            | Op::Split { .. }
            | Op::Slice { .. }
            | Op::Dropout { .. }
            | Op::Constant {}
            | Op::Range { .. }
    )
}

fn own_parameters(graph: &Graph, node: &Node) -> u64 {
    let trained = node.weights.values().map(|t| graph.tensor(*t)).filter(|t| t.role == Role::Parameter);
    trained.fold(0, |n, t| n.saturating_add(t.elements()))
}

fn traffic(graph: &Graph, node: &Node, sizes: &[u64], tensor_bytes: &[u64], shapes: &[Vec<u64>]) -> Traffic {
    let sum = |values: &[ValueId]| values.iter().fold(0_u64, |n, v| n.saturating_add(sizes[v.0 as usize]));
    let written = sum(&node.outputs);
    let (weights, read) = match &node.op {
        Op::Embedding {} => (looked_up(graph, node, shapes).unwrap_or(0), sum(&node.inputs)),
        // Only the gathered elements are read, and the indices.
        Op::Gather { .. } => (0, written.saturating_add(sum(node.inputs.get(1..).unwrap_or_default()))),
        _ => {
            let all = node.weights.values().fold(0_u64, |n, t| n.saturating_add(tensor_bytes[t.0 as usize]));
            (all, sum(&node.inputs))
        }
    };
    Traffic { weights, read, written }
}

/// Bytes of the rows that an embedding reads: at most one a token, never more than the table.
fn looked_up(graph: &Graph, node: &Node, shapes: &[Vec<u64>]) -> Option<u64> {
    let table = graph.tensor(*node.weights.get(&Slot::Weight)?);
    let ids = shapes[node.inputs.first()?.0 as usize].iter().fold(1_u64, |n, d| n.saturating_mul(*d));
    let [count, width] = table.shape.as_slice() else { return None };
    stored_bytes(ids.min(*count as u64).checked_mul(*width as u64)?, &table.dtype)
}

/// A cache takes the new tokens behind the old ones: only these move.
fn append_traffic(node: &Node, held: ValueId, sizes: &[u64]) -> Traffic {
    let new = node.inputs.iter().filter(|v| **v != held);
    let bytes = new.fold(0_u64, |n, v| n.saturating_add(sizes[v.0 as usize]));
    Traffic { weights: 0, read: bytes, written: bytes }
}
