//! Repeated blocks of an opaque model, which has tensors but no nodes: found by names alone.

use std::collections::BTreeMap;

use super::{Region, RegionKind};
use crate::graph::{Graph, ValueRef};
use crate::tensor::{Role, TensorDef};

/// A block `prefix.N` whose tensors have the names and shapes of another block of the same list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedBlock {
    /// `prefix`.
    pub list: String,
    /// `N`.
    pub index: usize,
    /// Elements of its parameters.
    pub parameters: u64,
}

impl NamedBlock {
    /// `prefix.N`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.list, self.index)
    }
}

/// Blocks `prefix.N` of equal suffixes and shapes, by list in order of appearance and then by number. A list inside a
/// block of another list is part of that block.
pub fn named_blocks(tensors: &[TensorDef]) -> Vec<NamedBlock> {
    type Signature<'a> = BTreeMap<&'a str, &'a [usize]>;
    let mut lists: indexmap::IndexMap<&str, BTreeMap<usize, (Signature<'_>, u64)>> =
        indexmap::IndexMap::new();
    for t in tensors {
        let mut at = 0;
        for part in t.name.split('.') {
            let (start, end) = (at, at + part.len());
            at = end + 1;
            let canonical = part.parse::<usize>().ok().filter(|n| n.to_string() == part);
            if let (Some(index), true, true) = (canonical, start > 0, at <= t.name.len()) {
                let list = lists.entry(&t.name[..start - 1]).or_default();
                let (signature, parameters) = list.entry(index).or_default();
                signature.insert(&t.name[at..], &t.shape);
                if t.role == Role::Parameter {
                    *parameters = parameters.saturating_add(t.elements());
                }
            }
        }
    }
    let mut out: Vec<NamedBlock> = Vec::new();
    // Outer lists come first: a prefix is shorter than what it holds.
    lists.sort_by(|a, _, b, _| a.matches('.').count().cmp(&b.matches('.').count()));
    for (list, members) in &lists {
        // A list inside a member of a repeated list is part of that member, also of one that differs from the others.
        let inside = |b: &NamedBlock| {
            let rest = list.strip_prefix(b.list.as_str()).and_then(|r| r.strip_prefix('.'));
            rest.is_some_and(|r| r.split('.').next().is_some_and(|n| n.parse::<usize>().is_ok()))
        };
        if out.iter().any(inside) {
            continue;
        }
        for (index, (signature, parameters)) in members {
            if members.iter().any(|(i, (s, _))| i != index && s == signature) {
                out.push(NamedBlock { list: (*list).to_owned(), index: *index, parameters: *parameters });
            }
        }
    }
    out
}

/// The blocks of an opaque graph as regions. Their values are block paths: `prefix.N` stands for what block N gives,
/// `@prefix` for what enters the first; see [`crate::Edit::Bypass`].
pub(super) fn opaque_regions(graph: &Graph) -> Vec<Region> {
    let blocks = named_blocks(&graph.tensors);
    let all = block_numbers(graph);
    let region = |b: &NamedBlock| {
        let before = all.get(&b.list).and_then(|n| n.range(..b.index).next_back());
        Region {
            path: b.path(),
            kind: RegionKind::Block,
            from: ValueRef(before.map_or(format!("@{}", b.list), |n| format!("{}.{n}", b.list))),
            to: ValueRef(b.path()),
            nodes: Vec::new(),
            side_inputs: Vec::new(),
            side_outputs: Vec::new(),
            states: Vec::new(),
            parameters: b.parameters,
        }
    };
    blocks.iter().map(region).collect()
}

/// The numbers in use of each list `prefix.N`.
pub(crate) fn block_numbers(graph: &Graph) -> BTreeMap<String, std::collections::BTreeSet<usize>> {
    let mut out: BTreeMap<String, std::collections::BTreeSet<usize>> = BTreeMap::new();
    let paths = graph.nodes.iter().map(|n| &n.path);
    for path in paths.chain(graph.tensors.iter().map(|t| &t.name)).chain(graph.modules.keys()) {
        let mut at = 0;
        for part in path.split('.') {
            let start = at;
            at += part.len() + 1;
            if let (Ok(n), true) = (part.parse::<usize>(), start > 0)
                && n.to_string() == part
            {
                out.entry(path[..start - 1].to_owned()).or_default().insert(n);
            }
        }
    }
    out
}
