//! Values by the path of a node or of a module.

use pomona_graph::{Graph, ValueId, ValueRef, ValueType};

/// The value that a path names: `node`, `node:1`, `@input`, or of a module the last value that others read.
pub fn tap(graph: &Graph, path: &str) -> Option<ValueId> {
    if let Some(v) = graph.resolve(&ValueRef(path.to_owned())) {
        return Some(v);
    }
    let under = |p: &str| p.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    let consumers = graph.consumers();
    let outside = |v: &ValueId| {
        let read =
            consumers.get(v.0 as usize).is_some_and(|c| c.iter().any(|(n, _)| !under(&graph.node(*n).path)));
        read || graph.outputs.iter().any(|p| p.value == *v)
    };
    let mut made = graph.nodes.iter().filter(|n| under(&n.path)).flat_map(|n| &n.outputs);
    made.rfind(|v| graph.value(**v).ty == ValueType::Float && outside(v)).copied()
}
