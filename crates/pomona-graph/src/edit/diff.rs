//! What edits removed and what they made smaller, by name.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::graph::Graph;
use crate::tensor::{Role, TensorDef};

/// Modules that are gone and tensors that are smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GraphDiff {
    /// The outermost modules of which nothing is left, in the order of the graph.
    pub removed: Vec<RemovedModule>,
    /// Tensors of another shape.
    pub changed: Vec<ChangedTensor>,
}

/// A module of which nothing is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemovedModule {
    /// Its path.
    pub path: String,
    /// Its class where the importer knows it, else the operator's name; empty for a list of modules.
    pub class: String,
    /// Elements of its parameters that nothing else reads.
    pub parameters: u64,
}

/// A tensor of another shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedTensor {
    /// Its name.
    pub name: String,
    /// Its shape in the source.
    pub before: Vec<usize>,
    /// Its shape now.
    pub after: Vec<usize>,
}

/// What is in `before` and no longer in `after`, which was made from it by edits.
pub fn diff(before: &Graph, after: &Graph) -> GraphDiff {
    let left: HashSet<&str> = after.nodes.iter().flat_map(|n| prefixes(&n.path)).collect();
    let mut tensors: HashMap<&str, &TensorDef> = after.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut removed: Vec<RemovedModule> = Vec::new();
    let mut counted = BTreeSet::new();
    for node in &before.nodes {
        let Some(path) = prefixes(&node.path).find(|p| !left.contains(p)) else { continue };
        // Helper nodes of a module that is otherwise there (a join) are no news.
        let known = before.modules.contains_key(path) || path != node.path || !node.weights.is_empty();
        let at = removed.iter().position(|r| r.path == path);
        let at = match at {
            Some(at) => at,
            None if known => {
                let class = before.modules.get(path).cloned();
                let class =
                    class.unwrap_or_else(|| if path == node.path { node.op.name() } else { "" }.to_owned());
                removed.push(RemovedModule { path: path.to_owned(), class, parameters: 0 });
                removed.len() - 1
            }
            None => continue,
        };
        for id in node.weights.values() {
            let t = before.tensor(*id);
            if t.role == Role::Parameter && !tensors.contains_key(t.name.as_str()) && counted.insert(*id) {
                removed[at].parameters = removed[at].parameters.saturating_add(t.elements());
            }
        }
    }
    let changed = before.tensors.iter().filter_map(|t| {
        let now = tensors.remove(t.name.as_str()).filter(|now| now.shape != t.shape)?;
        Some(ChangedTensor { name: t.name.clone(), before: t.shape.clone(), after: now.shape.clone() })
    });
    let changed = changed.collect();
    GraphDiff { removed, changed }
}

/// The prefixes of a path in whole parts, shortest first, the path itself last.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(i, _)| i).chain([path.len()]).map(|end| &path[..end])
}
