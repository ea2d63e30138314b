//! The regions of a graph, in lists that methods use.

use std::collections::{HashMap, HashSet};

use super::level::level_regions;
use super::module::{Modules, is_under, module_region, modules};
use super::named::opaque_regions;
use super::residual::residual_regions;
use super::{Flow, Region, RegionKind};
use crate::graph::{Graph, NodeId};

/// Every removable region, in the order in which the stream leaves them; of several with the same ends, the one that
/// [`RegionKind`] lists first.
pub fn regions(graph: &Graph) -> Vec<Region> {
    if graph.nodes.is_empty() {
        return opaque_regions(graph);
    }
    let flow = Flow::new(graph);
    let modules = modules(&flow);
    let lists = lists(&modules);
    let mut all = residual_regions(&flow);
    for region in &mut all {
        region.kind = residual_kind(region, graph, &modules, &lists);
    }
    let named: HashSet<String> = all.iter().map(|r| r.path.clone()).collect();
    for (path, nodes) in &modules {
        // The module of a residual branch goes with its join and its norm, not as a map from norm to join.
        if !named.contains(path)
            && let Ok(region) = module_region(&flow, path, nodes, kind(path, nodes, graph, &lists))
        {
            all.push(region);
        }
    }
    all.extend(level_regions(&flow));
    let order = |r: &Region| graph.resolve(&r.to).map(|v| flow.order(v));
    all.sort_by_cached_key(|r| (order(r), r.kind));
    let mut seen = HashSet::new();
    all.retain(|r| seen.insert((r.from.clone(), r.to.clone())));
    all
}

/// Lists `prefix` of modules `prefix.0`, `prefix.1`, ... with at least two members of several nodes.
fn lists(modules: &Modules) -> HashSet<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (path, nodes) in modules {
        if let Some((list, _)) = numbered(path).filter(|_| nodes.len() > 1) {
            *counts.entry(list).or_default() += 1;
        }
    }
    counts.into_iter().filter(|(_, n)| *n > 1).map(|(l, _)| l.to_owned()).collect()
}

/// `prefix` and N of `prefix.N`.
pub(crate) fn numbered(path: &str) -> Option<(&str, usize)> {
    let (list, n) = path.rsplit_once('.')?;
    n.parse().ok().map(|n| (list, n))
}

fn kind(path: &str, nodes: &[NodeId], graph: &Graph, lists: &HashSet<String>) -> RegionKind {
    match nodes {
        [one] if graph.node(*one).path == path => RegionKind::Operator,
        [_] => RegionKind::Module,
        _ if numbered(path).is_some_and(|(list, _)| lists.contains(list)) => RegionKind::Block,
        _ => RegionKind::Module,
    }
}

/// A residual branch that is a whole member of a list (a residual convolution block) counts as a block.
fn residual_kind(region: &Region, graph: &Graph, modules: &Modules, lists: &HashSet<String>) -> RegionKind {
    match modules.get(&region.path).map(|nodes| kind(&region.path, nodes, graph, lists)) {
        Some(RegionKind::Block) => RegionKind::Block,
        _ => RegionKind::Sublayer,
    }
}

/// The repeated removable blocks in order: members `prefix.N` of a list of which at least two can go, not those inside
/// another block. These are what depth pruning removes.
pub fn blocks(graph: &Graph) -> Vec<Region> {
    if graph.nodes.is_empty() {
        return opaque_regions(graph);
    }
    let flow = Flow::new(graph);
    let modules = modules(&flow);
    let lists = lists(&modules);
    let candidate = |path: &str, nodes: &[NodeId]| {
        let is_block = kind(path, nodes, graph, &lists) == RegionKind::Block;
        is_block.then(|| module_region(&flow, path, nodes, RegionKind::Block).ok()).flatten()
    };
    let found: Vec<Region> = modules.iter().filter_map(|(path, nodes)| candidate(path, nodes)).collect();
    // A list with one removable member is no repetition: its members differ in kind (the levels of a U-shape).
    let list = |r: &Region| numbered(&r.path).map(|(list, _)| list.to_owned());
    let mut members: HashMap<Option<String>, usize> = HashMap::new();
    found.iter().for_each(|r| *members.entry(list(r)).or_default() += 1);
    let mut out: Vec<Region> = Vec::new();
    for region in found {
        if members[&list(&region)] > 1 && !out.iter().any(|b| is_under(&region.path, &b.path)) {
            out.push(region);
        }
    }
    let order = |r: &Region| graph.resolve(&r.to).map(|v| flow.order(v));
    out.sort_by_cached_key(order);
    out
}

/// Residual branches that hold no other one, in order: attention and feed-forward with their norm and join.
pub fn sublayers(graph: &Graph) -> Vec<Region> {
    let all = residual_regions(&Flow::new(graph));
    let sets: Vec<HashSet<NodeId>> = all.iter().map(|r| r.nodes.iter().copied().collect()).collect();
    let holds_another = |i: usize| {
        sets.iter().enumerate().any(|(k, s)| k != i && s.len() < sets[i].len() && s.is_subset(&sets[i]))
    };
    let keep: Vec<bool> = (0..all.len()).map(|i| !holds_another(i)).collect();
    all.into_iter().zip(keep).filter(|(_, k)| *k).map(|(r, _)| r).collect()
}

/// The region at a module path.
pub fn region_at(graph: &Graph, path: &str) -> Option<Region> {
    explain(graph, path).ok()
}

/// Why a module cannot be removed, as a sentence; none where it can.
pub fn why_not(graph: &Graph, path: &str) -> Option<String> {
    explain(graph, path).err().map(|why| format!("`{path}` cannot be removed: {why}"))
}

fn explain(graph: &Graph, path: &str) -> Result<Region, String> {
    if graph.nodes.is_empty() {
        let found = opaque_regions(graph).into_iter().find(|r| r.path == path);
        return found.ok_or_else(|| "no other block of its list has the same tensors and shapes".to_owned());
    }
    let flow = Flow::new(graph);
    let modules = modules(&flow);
    if let Some(mut region) = residual_regions(&flow).into_iter().find(|r| r.path == path) {
        region.kind = residual_kind(&region, graph, &modules, &lists(&modules));
        return Ok(region);
    }
    match modules.get(path) {
        Some(nodes) => module_region(&flow, path, nodes, kind(path, nodes, graph, &lists(&modules))),
        None => {
            let level = level_regions(&flow).into_iter().find(|r| r.path == path);
            level.ok_or_else(|| "the graph has no module of this path".to_owned())
        }
    }
}
