//! The coupled groups of a graph as people read them: all of them, also those that stay whole, with the reason.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::bundles::bundles;
use super::channels::{Side, sides, unique_name};
use super::links::{Axis, AxisMap};
use super::runs::{Constraints, Equal, parts_of, runs_of};
use crate::error::Result;
use crate::graph::{Graph, NodeId, ValueId};
use crate::op::Op;
use crate::tensor::{Role, TensorId};

/// The smallest thing of a group that can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Granularity {
    /// A channel.
    Channel,
    /// Channels, the same number from each part: heads, norm groups, groups of a convolution, directions.
    GroupOfChannels {
        /// How many parts hold equal numbers.
        parts: usize,
    },
    /// A whole group of a GroupNorm; the statistics of the others stay what they were.
    NormGroup {
        /// How many can go.
        bundles: usize,
        /// Channels that stay, because their norm group holds channels of other groups too.
        stay: usize,
    },
    /// A whole head: its channels turn at frequencies of their own.
    Head {
        /// How many heads there are.
        heads: usize,
    },
}

/// Indices of tensor axes that go together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CoupledGroup {
    /// `<tensor name>:<axis>` of its first member, with `@<first index>` where a group before has that name.
    pub name: String,
    /// Number of channels: sets of indices that stand and fall together.
    pub len: usize,
    /// The smallest thing that can go.
    pub granularity: Granularity,
    /// Every tensor axis that a channel goes with.
    pub members: Vec<CoupledMember>,
    /// Paths of the operators without weights that tie the members: joins, splits, attention.
    pub through: Vec<String>,
    /// Names of groups that keep the same share, because an operator holds equal parts of both; of heads that go whole, the
    /// group of their values.
    pub tied: Vec<String>,
    /// Parameters that go with the smallest thing: a channel, one of each part, a head.
    pub parameters: u64,
    /// Why nothing of it can be cut, where that is so.
    pub locked: Option<String>,
}

/// A tensor axis of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CoupledMember {
    /// Name of the tensor.
    pub tensor: String,
    /// The axis.
    pub axis: usize,
    /// What the axis is to the operators that read the tensor.
    pub side: Side,
    /// How many of its indices are the group's.
    pub indices: usize,
    /// How many indices it has.
    pub of: usize,
}

/// What parts a list of classes: the tensor axes, and why or how they can go.
type Key = (Vec<(TensorId, usize)>, Option<String>, bool);

/// All groups of tensor axes, in the order of the graph's tensors: those that can be cut and those that stay whole.
///
/// # Errors
/// [`crate::GraphError::Graph`] where the graph has more indices than 32 bits count.
pub fn coupled_groups(graph: &Graph) -> Result<Vec<CoupledGroup>> {
    let map = AxisMap::new(graph)?;
    let sides = sides(graph);
    let mut constraints = runs_of(graph, &map);
    constraints.settle(&map);
    let mut axes: BTreeMap<u32, Vec<(TensorId, usize)>> = BTreeMap::new();
    for (id, t) in graph.iter_tensors() {
        for axis in 0..t.shape.len() {
            for class in map.classes(Axis::Tensor(id, axis)) {
                let list = axes.entry(class).or_default();
                if list.last() != Some(&(id, axis)) {
                    list.push((id, axis));
                }
            }
        }
    }
    let mut found: BTreeMap<Key, Vec<u32>> = BTreeMap::new();
    for (class, list) in axes {
        let rotary = constraints.rotary.contains(&class);
        let unequal = || {
            (constraints.fixed.contains(&class) && !rotary).then(|| {
                "an operator holds equal parts of it with channels that stay, and the parts would become unequal".to_owned()
            })
        };
        let single = || {
            let one = list.iter().all(|(t, axis)| graph.tensor(*t).shape[*axis] == 1);
            one.then(|| "it is a single index: nothing would be left".to_owned())
        };
        let lock = map.lock_of(class).map(str::to_owned).or_else(unequal).or_else(single);
        found.entry((list, lock, rotary)).or_default().push(class);
    }
    let parts = parts_of(&constraints);
    let whole = whole_norm_groups(&constraints, &found);
    let mut group_of: HashMap<u32, usize> = HashMap::new();
    let mut groups = Vec::with_capacity(found.len());
    let mut named = HashSet::new();
    for ((list, locked, rotary), classes) in found {
        let Some(&(first, axis)) = list.first() else { continue };
        let mine: HashSet<u32> = classes.iter().copied().collect();
        classes.iter().for_each(|c| {
            group_of.insert(*c, groups.len());
        });
        let start = map.classes(Axis::Tensor(first, axis)).position(|c| mine.contains(&c));
        let cells: HashSet<&[(usize, usize)]> =
            classes.iter().map(|c| parts.get(c).map_or(&[][..], Vec::as_slice)).collect();
        let granularity = match (rotary, cells.len()) {
            (true, heads) => Granularity::Head { heads },
            _ if classes.iter().any(|c| whole.contains_key(c)) => {
                let of = |c: &u32| whole.get(c).copied().flatten();
                let bundles: HashSet<u32> = classes.iter().filter_map(of).collect();
                let stay = classes.iter().filter(|c| of(c).is_none()).count();
                Granularity::NormGroup { bundles: bundles.len(), stay }
            }
            (false, parts) if parts > 1 => Granularity::GroupOfChannels { parts },
            _ => Granularity::Channel,
        };
        // What the smallest cut takes: all of one cell, one of each cell, or one.
        let mut seen: HashSet<&[(usize, usize)]> = HashSet::new();
        let cell = |c: &u32| parts.get(c).map_or(&[][..], Vec::as_slice);
        let taken: HashSet<u32> = match (granularity, classes.first()) {
            (Granularity::Head { .. }, Some(one)) => {
                classes.iter().filter(|c| cell(c) == cell(one)).copied().collect()
            }
            (Granularity::NormGroup { .. }, _) => {
                let one = classes.iter().find_map(|c| whole.get(c).copied().flatten());
                classes.iter().filter(|c| one.is_some() && whole.get(c) == Some(&one)).copied().collect()
            }
            (Granularity::GroupOfChannels { .. }, _) => {
                classes.iter().filter(|c| seen.insert(cell(c))).copied().collect()
            }
            (_, one) => one.into_iter().copied().collect(),
        };
        let member = |(tensor, axis): &(TensorId, usize)| {
            let def = graph.tensor(*tensor);
            CoupledMember {
                tensor: def.name.clone(),
                axis: *axis,
                side: sides.get(&(*tensor, *axis)).copied().unwrap_or(Side::Norm),
                indices: map.classes(Axis::Tensor(*tensor, *axis)).filter(|c| mine.contains(c)).count(),
                of: def.shape[*axis],
            }
        };
        groups.push(CoupledGroup {
            name: unique_name(graph, (first, axis), start.as_ref(), &mut named),
            len: classes.len(),
            granularity,
            members: list.iter().map(member).collect(),
            through: Vec::new(),
            tied: Vec::new(),
            parameters: parameters(graph, &map, &list, &taken),
            locked,
        });
    }
    for (id, path) in through(graph, &map, &group_of) {
        groups[id].through.push(path);
    }
    tie(&mut groups, &constraints, &group_of);
    tie_heads(graph, &map, &mut groups, &group_of);
    Ok(groups)
}

/// The bundle of each class of the groups that go by whole norm groups.
fn whole_norm_groups(
    constraints: &Constraints,
    found: &BTreeMap<Key, Vec<u32>>,
) -> HashMap<u32, Option<u32>> {
    let mut group_of: HashMap<u32, usize> = HashMap::new();
    let open = found.iter().filter(|((_, locked, rotary), of)| locked.is_none() && !rotary && of.len() > 1);
    for (g, (_, classes)) in open.enumerate() {
        group_of.extend(classes.iter().map(|c| (*c, g)));
    }
    bundles(constraints, found.len(), |class| group_of.get(&class).copied())
}

/// Parameters of the tensors that lose these classes, less those that stay.
fn parameters(graph: &Graph, map: &AxisMap, list: &[(TensorId, usize)], taken: &HashSet<u32>) -> u64 {
    let tensors: HashSet<TensorId> = list.iter().map(|(t, _)| *t).collect();
    let lost = |id: TensorId| {
        let def = graph.tensor(id);
        if def.role != Role::Parameter {
            return 0;
        }
        let stays = |axis: usize| {
            if !list.contains(&(id, axis)) {
                return def.shape[axis] as u64;
            }
            map.classes(Axis::Tensor(id, axis)).filter(|c| !taken.contains(c)).count() as u64
        };
        let left = (0..def.shape.len()).fold(1_u64, |n, axis| n.saturating_mul(stays(axis)));
        def.elements().saturating_sub(left)
    };
    tensors.into_iter().map(lost).sum()
}

/// Group and path of each operator without weights that reads or makes channels of the group.
fn through(graph: &Graph, map: &AxisMap, group_of: &HashMap<u32, usize>) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let in_node = |id: NodeId| {
        let node = graph.node(id);
        let mut groups: Vec<usize> = Vec::new();
        for v in node.inputs.iter().chain(&node.outputs) {
            for axis in 0..map.rank(*v) {
                let mut last = None;
                for class in map.classes(Axis::Value(*v, axis)) {
                    if let Some(g) = group_of.get(&class).filter(|g| last != Some(**g)) {
                        last = Some(*g);
                        groups.push(*g);
                    }
                }
            }
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    };
    for (id, node) in graph.iter().filter(|(_, n)| n.weights.is_empty()) {
        out.extend(in_node(id).into_iter().map(|g| (g, node.path.clone())));
    }
    out
}

/// Groups that can be cut and share an operator with equal parts.
fn tie(groups: &mut [CoupledGroup], constraints: &Constraints, group_of: &HashMap<u32, usize>) {
    for Equal { runs, .. } in &constraints.equal {
        let mut together: Vec<usize> =
            runs.iter().flatten().filter_map(|c| group_of.get(c).copied()).collect();
        together.sort_unstable();
        together.dedup();
        let apart = |g: usize| matches!(groups[g].granularity, Granularity::NormGroup { .. });
        together.retain(|g| groups[*g].locked.is_none() && !apart(*g));
        let names: Vec<String> = together.iter().map(|g| groups[*g].name.clone()).collect();
        for (i, g) in together.iter().enumerate() {
            for (k, name) in names.iter().enumerate() {
                if i != k && !groups[*g].tied.contains(name) {
                    groups[*g].tied.push(name.clone());
                }
            }
        }
    }
}

/// Heads of keys that go whole take those of the values along.
fn tie_heads(graph: &Graph, map: &AxisMap, groups: &mut [CoupledGroup], group_of: &HashMap<u32, usize>) {
    for node in graph.nodes.iter().filter(|n| matches!(n.op, Op::Attention(_))) {
        let (Some(k), Some(v)) = (node.inputs.get(1), node.inputs.get(2)) else { continue };
        let of = |value: ValueId| -> BTreeSet<usize> {
            map.classes(Axis::Value(value, 2)).filter_map(|c| group_of.get(&c).copied()).collect()
        };
        let values: Vec<String> = of(*v).into_iter().map(|g| groups[g].name.clone()).collect();
        for g in of(*k) {
            if matches!(groups[g].granularity, Granularity::Head { .. }) {
                groups[g].tied.clone_from(&values);
            }
        }
    }
}
