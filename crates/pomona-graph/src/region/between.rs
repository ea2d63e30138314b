//! The part between two values: whether it is closed, and what goes with it.

use std::collections::HashSet;

use super::{Flow, Region, RegionKind, SideOutput};
use crate::dim::show_shape;
use crate::error::{GraphError, Result};
use crate::graph::{Graph, NodeId, ValueId, ValueRef};
use crate::op::Op;

/// The region between two values, which may span several modules or a whole inner level.
///
/// # Errors
/// [`GraphError::Graph`] with the reason why what lies between cannot go.
pub fn span(graph: &Graph, from: &ValueRef, to: &ValueRef) -> Result<Region> {
    let fault = |message: String| GraphError::Graph { graph: graph.name.clone(), message };
    let find = |r: &ValueRef| graph.resolve(r).ok_or_else(|| fault(format!("there is no value `{}`", r.0)));
    let (a, b) = (find(from)?, find(to)?);
    let path = format!("{}..{}", from.0, to.0);
    between(&Flow::new(graph), a, b, path.clone(), RegionKind::Span)
        .map_err(|why| fault(format!("`{path}` cannot be removed: {why}")))
}

/// The region between two values, or a sentence that says why there is none.
pub(super) fn between(
    flow: &Flow<'_>,
    from: ValueId,
    to: ValueId,
    path: String,
    kind: RegionKind,
) -> std::result::Result<Region, String> {
    let graph = flow.graph;
    if !flow.same_type(from, to) {
        let (a, b) = (graph.value(from), graph.value(to));
        return Err(format!(
            "it takes `{}` of shape {} and gives `{}` of shape {}; both must be equal",
            flow.name(from).0,
            show_shape(&a.shape),
            flow.name(to).0,
            show_shape(&b.shape)
        ));
    }
    let inside = flow.paths(from, to);
    if inside.is_empty() {
        return Err(format!("`{}` is not computed from `{}`", flow.name(to).0, flow.name(from).0));
    }
    let mut followed = HashSet::new();
    let mut side_outputs = Vec::new();
    let on_path: HashSet<NodeId> = inside.iter().copied().collect();
    for value in inside.iter().flat_map(|n| &graph.node(*n).outputs).filter(|v| **v != to) {
        escapes(flow, *value, *value, &on_path, &mut followed, &mut side_outputs)?;
    }
    let reader = |s: &SideOutput| graph.find_node(&s.reader).map(|n| (n, s.operand));
    let dropped = side_outputs.iter().filter_map(reader).collect();
    let (dead, states) = flow.useless(from, to, &dropped);
    if let Some(n) = inside.iter().find(|n| !dead[n.0 as usize]) {
        return Err(format!("`{}` inside it is needed elsewhere too", graph.node(*n).path));
    }
    if let Some(reader) = side_outputs.iter().find(|s| reads_only(flow, s, &dead)) {
        return Err(format!("every operand of `{}` would go", reader.reader));
    }
    let nodes: Vec<NodeId> = (0..dead.len()).filter(|i| dead[*i]).map(|i| NodeId(i as u32)).collect();
    let mut side_inputs: Vec<ValueId> = Vec::new();
    for v in nodes.iter().flat_map(|n| &graph.node(*n).inputs).filter(|v| **v != from) {
        let outside = flow.producer(*v).is_none_or(|n| !dead[n.0 as usize]);
        let own_state = states.iter().any(|s| graph.states[*s].input == *v);
        if outside && !own_state && !side_inputs.contains(v) {
            side_inputs.push(*v);
        }
    }
    Ok(Region {
        path,
        kind,
        from: flow.name(from),
        to: flow.name(to),
        side_inputs: side_inputs.into_iter().map(|v| flow.name(v)).collect(),
        side_outputs,
        states: states.into_iter().map(|s| graph.states[s].name.clone()).collect(),
        parameters: flow.own_parameters(&nodes),
        nodes,
    })
}

/// Follows a value out of the region to the joins that can lose it.
fn escapes(
    flow: &Flow<'_>,
    origin: ValueId,
    value: ValueId,
    inside: &HashSet<NodeId>,
    followed: &mut HashSet<NodeId>,
    found: &mut Vec<SideOutput>,
) -> std::result::Result<(), String> {
    if let Some(port) = flow.port(value) {
        return Err(format!("`{}` inside it is needed for the output `{port}`", flow.name(origin).0));
    }
    for (reader, operand) in flow.readers(value) {
        if inside.contains(reader) {
            continue;
        }
        let node = flow.graph.node(*reader);
        match node.op {
            Op::Concat { .. } | Op::Add {} if node.inputs.len() > 1 => found.push(SideOutput {
                value: flow.name(value),
                reader: node.path.clone(),
                operand: *operand,
            }),
            // What only reshapes or maps the skip goes with it.
            _ if node.inputs.len() == 1 => {
                if followed.insert(*reader) {
                    for v in &node.outputs {
                        escapes(flow, origin, *v, inside, followed, found)?;
                    }
                }
            }
            _ => {
                return Err(format!(
                    "`{}` inside it is also read by `{}` ({}), which cannot lose an operand",
                    flow.name(origin).0,
                    node.path,
                    node.op.name()
                ));
            }
        }
    }
    Ok(())
}

fn reads_only(flow: &Flow<'_>, side: &SideOutput, dead: &[bool]) -> bool {
    let Some(reader) = flow.graph.find_node(&side.reader) else { return false };
    let gone = |v: &ValueId| flow.producer(*v).is_some_and(|n| dead[n.0 as usize]);
    flow.graph.node(reader).inputs.iter().all(gone)
}
