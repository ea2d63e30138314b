//! Coupled axes: which elements of which axes must be cut together, from the graph alone.
//!
//! Every axis of known size, of values and of tensors, has an element an index. Operators link elements that stand and
//! fall together; what they cannot lose is locked with a reason. A class of linked elements is the smallest thing that can
//! be cut; an axis group is all tensor axes that share classes.

mod bundles;
mod channels;
mod cut;
mod heads;
mod kinds;
mod layout;
mod links;
mod listing;
mod notes;
mod recurrent;
mod relations;
mod runs;
#[cfg(test)]
mod tests;

pub use channels::{ChannelGroup, ChannelMember, Side, channel_groups, keep_edits};
pub(crate) use cut::{GroupRule, cut, reinfer};
pub use heads::{AttentionColumns, HeadGroup, attention_columns, head_groups, no_heads};
pub use kinds::ChannelKind;
pub(crate) use links::{Axis, AxisMap};
pub use listing::{CoupledGroup, CoupledMember, Granularity, coupled_groups};

use std::collections::BTreeMap;

use crate::error::Result;
use crate::graph::Graph;
use crate::tensor::TensorId;

/// Tensor axes that are cut together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AxisGroup {
    /// `<tensor name>:<axis>` of the first member, as [`crate::Edit::Keep`] names the group.
    pub name: String,
    /// Indices of that axis.
    pub len: usize,
    /// All members, each the name of a tensor and its axis.
    pub members: Vec<(String, usize)>,
    /// Why none of its indices can be cut, where that is so.
    pub locked: Option<String>,
}

/// The axis groups of a graph, in the order of its tensors.
///
/// # Errors
/// [`crate::GraphError::Graph`] where the graph has more indices than 32 bits count.
pub fn axis_groups(graph: &Graph) -> Result<Vec<AxisGroup>> {
    let map = AxisMap::new(graph)?;
    let mut component: Vec<usize> = Vec::new();
    let mut axes: Vec<(TensorId, usize)> = Vec::new();
    let mut owner: std::collections::HashMap<u32, usize> = std::collections::HashMap::new();
    fn find(component: &[usize], mut i: usize) -> usize {
        while component[i] != i {
            i = component[i];
        }
        i
    }
    for (id, t) in graph.iter_tensors() {
        for axis in 0..t.shape.len() {
            let this = axes.len();
            axes.push((id, axis));
            component.push(this);
            for class in map.classes(Axis::Tensor(id, axis)) {
                let first = *owner.entry(class).or_insert(this);
                let (a, b) = (find(&component, first), find(&component, this));
                component[a.max(b)] = a.min(b);
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in 0..axes.len() {
        groups.entry(find(&component, i)).or_default().push(i);
    }
    let group = |members: Vec<usize>| {
        let (first, axis) = axes[members[0]];
        let def = graph.tensor(first);
        let lock = |i: &usize| {
            let (t, a) = axes[*i];
            let mut reasons = map.classes(Axis::Tensor(t, a)).map(|c| map.lock_of(c));
            // Any class that can be cut leaves the group open.
            reasons.try_fold(None, |_, r| r.map(Some)).map(|r| r.unwrap_or("it has no indices").to_owned())
        };
        let locks: Option<Vec<String>> = members.iter().map(lock).collect();
        AxisGroup {
            name: format!("{}:{axis}", def.name),
            len: def.shape[axis],
            members: members.iter().map(|i| (graph.tensor(axes[*i].0).name.clone(), axes[*i].1)).collect(),
            locked: locks.and_then(|l| l.into_iter().next()),
        }
    };
    Ok(groups.into_values().map(group).collect())
}
