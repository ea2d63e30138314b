//! `drop_operand`: an Add or Concat loses an input; what reads a Concat loses the matching slices of its weights.

use std::collections::HashSet;

use super::work::{Usage, Work};
use crate::axis::{Axis, AxisMap, GroupRule, cut, reinfer};
use crate::graph::{NodeId, ValueId};
use crate::op::Op;

pub(super) fn drop_operand(work: &mut Work, path: &str, index: usize) -> Result<(), String> {
    let id = work.graph.find_node(path).ok_or_else(|| work.missing_node(path, "node"))?;
    let node = work.graph.node(id);
    let count = node.inputs.len();
    let axis = match node.op {
        Op::Add {} => None,
        Op::Concat { axis } => Some(axis),
        _ => {
            return Err(format!(
                "`{path}` is {}: only Add and Concat can lose an operand; `bypass` removes other operators",
                node.op.name()
            ));
        }
    };
    if index >= count {
        return Err(format!("`{path}` has {count} operands; {index} is not one of them, counting from 0"));
    }
    if count < 2 {
        return Err(format!("`{path}` has one operand only: bypass it"));
    }
    let before = Usage::of(&work.graph, None);
    match axis {
        Some(axis) => cut_concat(work, id, axis, index)?,
        None => {
            work.graph.nodes[id.0 as usize].inputs.remove(index);
        }
    }
    let node = work.graph.node(id);
    if let (&[only], Some(&out)) = (node.inputs.as_slice(), node.outputs.first()) {
        let name = work.graph.value_ref(only);
        work.replace_uses(out, only);
        work.renamed.insert(crate::ValueRef(path.to_owned()), name);
    }
    work.sweep(&before);
    Ok(())
}

/// Puts a value that nothing makes in the operand's place, cuts everything that goes with it, then removes it.
fn cut_concat(work: &mut Work, id: NodeId, axis: usize, index: usize) -> Result<(), String> {
    let operand = work.graph.node(id).inputs[index];
    let stand_in = ValueId(work.graph.values.len() as u32);
    let value = work.graph.value(operand).clone();
    if value.shape.get(axis).and_then(crate::Dim::as_int).is_none() {
        return Err("the operand's size along the joined axis is symbolic: bind it first".to_owned());
    }
    work.graph.values.push(value);
    work.graph.nodes[id.0 as usize].inputs[index] = stand_in;
    let map = AxisMap::new(&work.graph).map_err(|e| e.to_string())?;
    let mut removed: HashSet<u32> = map.classes(Axis::Value(stand_in, axis)).collect();
    check_downstream(work, &map, &removed, id)?;
    cut(work, &map, &mut removed, GroupRule::WholeGroups)?;
    work.graph.nodes[id.0 as usize].inputs.remove(index);
    reinfer(&mut work.graph)
}

/// Nothing may be cut that is not computed from the Concat: another operand of a later join, say.
fn check_downstream(work: &Work, map: &AxisMap, removed: &HashSet<u32>, id: NodeId) -> Result<(), String> {
    let graph = &work.graph;
    let mut downstream = vec![false; graph.values.len()];
    for (n, node) in graph.iter() {
        if n == id || node.inputs.iter().any(|v| downstream[v.0 as usize]) {
            node.outputs.iter().for_each(|v| downstream[v.0 as usize] = true);
        }
    }
    for (n, node) in graph.iter().filter(|(n, _)| *n != id) {
        for v in node.outputs.iter().filter(|v| !downstream[v.0 as usize]) {
            let cut =
                (0..map.rank(*v)).any(|a| map.classes(Axis::Value(*v, a)).any(|c| removed.contains(&c)));
            if cut {
                return Err(format!(
                    "it would also cut `{}` ({}), which does not come from `{}`: drop it together with the join of both",
                    graph.node(n).path,
                    node.op.name(),
                    graph.node(id).path
                ));
            }
        }
    }
    Ok(())
}
