//! After rewriting: dead nodes, values and tensors go, and nodes stand in an order in which their inputs are ready.

use std::collections::HashMap;

use pomona_graph::{Graph, Node, TensorId, ValueId};

use super::Draft;
use crate::error::Result;

/// A valid graph of what the outputs need.
pub(super) fn clean(draft: Draft) -> Result<Draft> {
    let Draft { graph, mut exprs, known } = draft;
    let producers = graph.producers();
    // Depth first from the outputs, without recursion: chains are as deep as networks.
    let mut order: Vec<usize> = Vec::new();
    let mut state = vec![0_u8; graph.nodes.len()];
    for port in &graph.outputs {
        let mut stack: Vec<(usize, usize)> = Vec::new();
        if let Some((id, _)) = producers[port.value.0 as usize] {
            stack.push((id.0 as usize, 0));
        }
        while let Some((node, next)) = stack.pop() {
            if next == 0 {
                if state[node] != 0 {
                    continue;
                }
                state[node] = 1;
            }
            match graph.nodes[node].inputs.get(next) {
                Some(v) => {
                    stack.push((node, next + 1));
                    if let Some((id, _)) = producers[v.0 as usize]
                        && state[id.0 as usize] == 0
                    {
                        stack.push((id.0 as usize, 0));
                    }
                }
                None => {
                    state[node] = 2;
                    order.push(node);
                }
            }
        }
    }
    // The file's own order where it holds: reports list nodes as their authors wrote them.
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if is_ready(&graph, &sorted) {
        order = sorted;
    }
    let mut out = Graph::new(graph.name.clone());
    out.defaults = graph.defaults.clone();
    out.modules = graph.modules.clone();
    let mut values: HashMap<ValueId, ValueId> = HashMap::new();
    let mut tensors: HashMap<TensorId, TensorId> = HashMap::new();
    let mut value = |out: &mut Graph, v: ValueId| {
        *values.entry(v).or_insert_with(|| {
            out.values.push(graph.value(v).clone());
            ValueId(out.values.len() as u32 - 1)
        })
    };
    for port in &graph.inputs {
        let v = value(&mut out, port.value);
        out.inputs.push(pomona_graph::Port { name: port.name.clone(), value: v });
    }
    for at in order {
        let node = &graph.nodes[at];
        let weights = node.weights.iter().map(|(slot, t)| {
            let id = *tensors.entry(*t).or_insert_with(|| {
                out.tensors.push(graph.tensor(*t).clone());
                TensorId(out.tensors.len() as u32 - 1)
            });
            (*slot, id)
        });
        let weights = weights.collect();
        let made = Node {
            path: node.path.clone(),
            op: node.op.clone(),
            inputs: node.inputs.iter().map(|v| value(&mut out, *v)).collect(),
            weights,
            outputs: node.outputs.iter().map(|v| value(&mut out, *v)).collect(),
        };
        if let Some(notes) = graph.annotations.get(&node.path) {
            out.annotations.insert(node.path.clone(), notes.clone());
        }
        out.nodes.push(made);
    }
    for port in &graph.outputs {
        let v = value(&mut out, port.value);
        out.outputs.push(pomona_graph::Port { name: port.name.clone(), value: v });
    }
    out.validate()?;
    exprs.retain(|name, _| out.tensors.iter().any(|t| t.name == *name));
    Ok(Draft { graph: out, exprs, known })
}

fn is_ready(graph: &Graph, order: &[usize]) -> bool {
    let mut made = vec![false; graph.values.len()];
    graph.inputs.iter().for_each(|p| made[p.value.0 as usize] = true);
    for at in order {
        let node = &graph.nodes[*at];
        if node.inputs.iter().any(|v| !made[v.0 as usize]) {
            return false;
        }
        node.outputs.iter().for_each(|v| made[v.0 as usize] = true);
    }
    true
}
