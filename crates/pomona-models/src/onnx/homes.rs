//! Where nodes live: names that exporters' optimisers make up get the module that the nodes around them are in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pomona_graph::{NodeId, Op, Slot};

use super::Draft;

/// Moves nodes without a module into that of their neighbours, gives a module's path to a node that is alone in it, and names
/// tensors without a name of their own after the node that reads them.
pub(super) fn settle(draft: &mut Draft) {
    move_in(draft);
    lone(draft);
    tensors(draft);
}

/// Whether a name is one that exporters generate: the operator's (`Relu`, `Split_12`), or `node_Split_12`.
pub(super) fn is_generated(last: &str) -> bool {
    last.starts_with("node_") || last.starts_with(|c: char| c.is_ascii_uppercase())
}

fn move_in(draft: &mut Draft) {
    let producers = draft.graph.producers();
    let mut readers: HashMap<u32, Vec<NodeId>> = HashMap::new();
    for (id, node) in draft.graph.iter() {
        node.inputs.iter().for_each(|v| readers.entry(v.0).or_default().push(id));
    }
    let outer: BTreeSet<u32> =
        draft.graph.inputs.iter().chain(&draft.graph.outputs).map(|p| p.value.0).collect();
    let ids: Vec<NodeId> = draft.graph.iter().map(|(id, _)| id).collect();
    let mut taken: BTreeSet<String> = draft.graph.nodes.iter().map(|n| n.path.clone()).collect();
    for id in ids {
        let node = draft.graph.node(id);
        let constant = matches!(node.op, Op::Constant {});
        let plain = node.weights.is_empty() && is_generated(&node.path);
        if node.path.contains('.') || !(constant || plain) {
            continue;
        }
        if node.inputs.iter().chain(&node.outputs).any(|v| outer.contains(&v.0)) {
            continue;
        }
        let before = node.inputs.iter().filter_map(|v| producers[v.0 as usize]).map(|(n, _)| n);
        let after = node.outputs.iter().flat_map(|v| readers.get(&v.0).into_iter().flatten().copied());
        let around = before
            .chain(after)
            .map(|n| draft.graph.node(n))
            .filter(|n| !matches!(n.op, Op::Constant {}))
            .map(|n| n.path.rsplit_once('.').map_or("", |(module, _)| module));
        let Some(home) = common(around).filter(|h| !h.is_empty()) else { continue };
        let path = format!("{home}.{}", node.path);
        if taken.insert(path.clone()) {
            rename(draft, id, path);
        }
    }
}

/// The longest module that all of these are in.
fn common<'a>(modules: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut shared: Option<Vec<&str>> = None;
    for module in modules {
        let parts: Vec<&str> = module.split('.').collect();
        shared = Some(match shared {
            None => parts,
            Some(s) => s.into_iter().zip(parts).take_while(|(a, b)| a == b).map(|(a, _)| a).collect(),
        });
    }
    shared.map(|s| s.join("."))
}

fn lone(draft: &mut Draft) {
    let mut inside: BTreeMap<String, usize> = BTreeMap::new();
    for node in &draft.graph.nodes {
        let ends = node.path.match_indices('.').map(|(i, _)| i).chain([node.path.len()]);
        ends.for_each(|end| *inside.entry(node.path[..end].to_owned()).or_default() += 1);
    }
    let ids: Vec<NodeId> = draft.graph.iter().map(|(id, _)| id).collect();
    for id in ids {
        let path = &draft.graph.node(id).path;
        if let Some((module, last)) = path.rsplit_once('.')
            && is_generated(last)
            && inside.get(module) == Some(&1)
        {
            let module = module.to_owned();
            rename(draft, id, module);
        }
    }
}

fn rename(draft: &mut Draft, id: NodeId, path: String) {
    let old = std::mem::replace(&mut draft.graph.nodes[id.0 as usize].path, path.clone());
    if let Some(notes) = draft.graph.annotations.remove(&old) {
        draft.graph.annotations.insert(path, notes);
    }
}

/// `val_45.value`, once a constant, is `norm.weight` where a norm alone reads it.
fn tensors(draft: &mut Draft) {
    let mut uses: HashMap<u32, Vec<(String, Slot)>> = HashMap::new();
    for node in &draft.graph.nodes {
        let value = matches!(node.op, Op::Constant {});
        for (slot, t) in &node.weights {
            let word = match slot {
                Slot::Weight if value => "value",
                Slot::Weight => "weight",
                Slot::Bias => "bias",
                _ => continue,
            };
            uses.entry(t.0).or_default().push((format!("{}.{word}", node.path), *slot));
        }
    }
    let mut taken: BTreeSet<String> = draft.graph.tensors.iter().map(|t| t.name.clone()).collect();
    for (i, def) in draft.graph.tensors.iter_mut().enumerate() {
        let Some([(wanted, _)]) = uses.get(&(i as u32)).map(Vec::as_slice) else { continue };
        let anonymous = def.name.strip_suffix(".value").is_some_and(|stem| !stem.contains('.'));
        if !anonymous || !taken.insert(wanted.clone()) {
            continue;
        }
        let old = std::mem::replace(&mut def.name, wanted.clone());
        if let Some(expr) = draft.exprs.remove(&old) {
            draft.exprs.insert(wanted.clone(), expr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_module_is_whole_names() {
        for (modules, shared) in [
            (vec!["a.b.c", "a.b"], Some("a.b")),
            (vec!["a.b1", "a.b2"], Some("a")),
            (vec!["a", ""], Some("")),
            (vec![], None),
        ] {
            assert_eq!(common(modules.into_iter()).as_deref(), shared);
        }
    }

    #[test]
    fn generated_names_are_told_from_modules() {
        for (name, yes) in [("Split_12", true), ("node_view", true), ("relu1", false), ("attention", false)] {
            assert_eq!(is_generated(name), yes, "{name}");
        }
    }
}
