//! Peak activations under the executor's policy: a value lives from its operator to its last reader.

use pomona_graph::Graph;

use crate::report::Peak;

/// The largest sum of live bytes while an operator runs, its inputs and outputs among them. What the caller feeds and what
/// it wants (outputs, next states) lives to the end; scratch memory within an operator is not counted.
pub(crate) fn peak(graph: &Graph, sizes: &[u64]) -> Peak {
    let last = last_reader(graph);
    let fed = graph.inputs.iter().map(|p| p.value).chain(graph.states.iter().map(|s| s.input));
    let mut live = fed.fold(0_u64, |n, v| n.saturating_add(sizes[v.0 as usize]));
    let mut peak = Peak { bytes: live, at: String::new() };
    let mut dying: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (id, node) in graph.iter() {
        for v in &node.outputs {
            let v = v.0 as usize;
            match last[v] {
                Last::Kept => {}
                Last::Never => dying[id.0 as usize].push(v),
                Last::At(reader) => dying[reader].push(v),
            }
        }
    }
    for (id, node) in graph.iter() {
        live = node.outputs.iter().fold(live, |n, v| n.saturating_add(sizes[v.0 as usize]));
        if live > peak.bytes {
            peak = Peak { bytes: live, at: node.path.clone() };
        }
        live = dying[id.0 as usize].iter().fold(live, |n, v| n.saturating_sub(sizes[*v]));
    }
    peak
}

#[derive(Clone, Copy, PartialEq)]
enum Last {
    Never,
    At(usize),
    Kept,
}

fn last_reader(graph: &Graph) -> Vec<Last> {
    let mut last = vec![Last::Never; graph.values.len()];
    for (id, node) in graph.iter() {
        for v in &node.inputs {
            last[v.0 as usize] = Last::At(id.0 as usize);
        }
    }
    let wanted = graph.outputs.iter().map(|p| p.value).chain(graph.states.iter().map(|s| s.output));
    for v in wanted {
        last[v.0 as usize] = Last::Kept;
    }
    last
}
