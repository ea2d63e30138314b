//! Channel groups: what width pruning can cut, index by index.
//!
//! An axis group joins all tensor axes that share a class; behind a Concat that is several layers at once. A channel group is
//! finer: the classes with the same set of tensor axes, one layer's filters with all that follows them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::bundles::bundles;
use super::kinds::{ChannelKind, name_kinds};
use super::links::{Axis, AxisMap};
use super::runs::{Equal, runs_of};
use crate::edit::Edit;
use crate::error::Result;
use crate::graph::{Graph, NodeId};
use crate::op::Op;
use crate::tensor::{Slot, TensorId};

/// Channels that are cut alike: each goes with the same axes of the same tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelGroup {
    /// `<tensor name>:<axis>` of its first member, with `@<first index>` where a group before has that name.
    pub name: String,
    /// Number of channels: the smallest things that can go.
    pub len: usize,
    /// Every tensor axis that a channel goes with.
    pub members: Vec<ChannelMember>,
    /// The cell of each channel: all cells of one cluster keep the same share, or an operator's heads or groups would
    /// become unequal.
    pub cells: Vec<u32>,
    /// Where whole norm groups leave more widths than equal shares: the bundle of each channel, which goes whole and whatever
    /// the other groups lose; none for a channel that stays.
    pub bundles: Option<Vec<Option<u32>>>,
    /// Groups with one number are tied by such an operator and keep the same share.
    pub cluster: usize,
    /// What its channels are to the network.
    pub kind: ChannelKind,
    /// `<module of the attention>.qk`, `.v` or `.heads`, `stream`; empty where the layers that make the channels name them.
    pub label: String,
}

/// A tensor axis that is cut with a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelMember {
    /// The tensor.
    pub tensor: TensorId,
    /// The axis.
    pub axis: usize,
    /// What the axis is to the operators that read the tensor.
    pub side: Side,
    /// The channel that each index of the axis belongs to; none for an index of another group.
    pub channel: Vec<Option<u32>>,
}

/// What a tensor axis is to its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// It makes the channels: rows of a linear layer, filters of a convolution, its bias, an embedding's width.
    Makes,
    /// It scales or shifts them: norms and their statistics.
    Norm,
    /// It reads them.
    Reads,
}

/// The channel groups that can be cut, in the order of the graph's tensors.
///
/// Channels that an input or output of the graph fixes, and those that an operator needs all of, are in none. Rotary heads,
/// which can only go whole, are not here either.
///
/// # Errors
/// [`crate::GraphError::Graph`] where the graph has more indices than 32 bits count.
pub fn channel_groups(graph: &Graph) -> Result<Vec<ChannelGroup>> {
    let map = AxisMap::new(graph)?;
    let sides = sides(graph);
    let mut constraints = runs_of(graph, &map);
    constraints.settle(&map);
    let mut found: BTreeMap<Vec<(TensorId, usize)>, Vec<u32>> = BTreeMap::new();
    for (list, classes) in by_axes(graph, &map) {
        let open = |c: &u32| map.lock_of(*c).is_none() && !constraints.fixed.contains(c);
        let classes: Vec<u32> = classes.into_iter().filter(open).collect();
        if !classes.is_empty() {
            found.insert(list, classes);
        }
    }
    // A single channel has nothing that could go.
    found.retain(|_, classes| classes.len() > 1);
    let mut groups: Vec<ChannelGroup> = Vec::with_capacity(found.len());
    let mut place: Vec<Place> = vec![None; map.bound()];
    let mut named = HashSet::new();
    for (list, classes) in found {
        let Some(&(first, axis)) = list.first() else { continue };
        // Channels count along the first member.
        let number = groups.len() as u32;
        classes.iter().for_each(|c| place[*c as usize] = Some((number, u32::MAX)));
        let mine = |c: u32| place[c as usize].is_some_and(|(g, _)| g == number);
        let start = map.classes(Axis::Tensor(first, axis)).position(mine);
        let mut next = 0;
        for c in map.classes(Axis::Tensor(first, axis)) {
            if let Some((g, i @ u32::MAX)) = &mut place[c as usize]
                && *g == number
            {
                *i = next;
                next += 1;
            }
        }
        let member = |(tensor, axis): (TensorId, usize)| ChannelMember {
            tensor,
            axis,
            side: sides.get(&(tensor, axis)).copied().unwrap_or(Side::Norm),
            channel: map
                .classes(Axis::Tensor(tensor, axis))
                .map(|c| place[c as usize].filter(|(g, _)| *g == number).map(|(_, i)| i))
                .collect(),
        };
        let group = ChannelGroup {
            name: unique_name(graph, (first, axis), start.as_ref(), &mut named),
            len: classes.len(),
            members: list.iter().map(|a| member(*a)).collect(),
            cells: vec![0; classes.len()],
            bundles: None,
            cluster: groups.len(),
            kind: ChannelKind::Filters,
            label: String::new(),
        };
        groups.push(group);
    }
    tie(&mut groups, &place, &constraints.equal);
    let group_of = |class: u32| place[class as usize].map(|(g, _)| g as usize);
    let found = bundles(&constraints, groups.len(), group_of);
    for (class, bundle) in found {
        if let Some((g, channel)) = place[class as usize] {
            let group = &mut groups[g as usize];
            let len = group.len;
            group.bundles.get_or_insert_with(|| vec![None; len])[channel as usize] = bundle;
        }
    }
    name_kinds(graph, &map, &place, &mut groups);
    Ok(groups)
}

/// Group and channel of a class.
pub(super) type Place = Option<(u32, u32)>;

/// Axes of tensors, and the indices that they have in common.
type AxesOfSize = (Vec<(TensorId, usize)>, Vec<u32>);

/// The classes of tensor axes by the axes that each goes with; classes ascend. The axes are read once: where a class turns
/// up on one more axis, it moves to the list that is longer by this axis.
pub(super) fn by_axes(graph: &Graph, map: &AxisMap) -> Vec<AxesOfSize> {
    const NONE: u32 = u32::MAX;
    // Each list by its last axis and the list without it.
    let mut lists: Vec<(u32, (TensorId, usize))> = Vec::new();
    let mut list_of = vec![NONE; map.bound()];
    for (id, t) in graph.iter_tensors() {
        for axis in 0..t.shape.len() {
            let fresh = lists.len() as u32;
            let mut longer: HashMap<u32, u32> = HashMap::new();
            let mut last = (NONE, NONE);
            for class in map.classes(Axis::Tensor(id, axis)) {
                let from = list_of[class as usize];
                // An axis may hold a class twice.
                if from != NONE && from >= fresh {
                    continue;
                }
                if last.1 == NONE || last.0 != from {
                    let to = *longer.entry(from).or_insert_with(|| {
                        lists.push((from, (id, axis)));
                        lists.len() as u32 - 1
                    });
                    last = (from, to);
                }
                list_of[class as usize] = last.1;
            }
        }
    }
    let mut classes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (class, list) in (0_u32..).zip(&list_of).filter(|(_, l)| **l != NONE) {
        classes.entry(*list).or_default().push(class);
    }
    let axes = |mut list: u32| {
        let mut out = Vec::new();
        while list != NONE {
            let (shorter, axis) = lists[list as usize];
            out.push(axis);
            list = shorter;
        }
        out.reverse();
        out
    };
    classes.into_iter().map(|(list, classes)| (axes(list), classes)).collect()
}

/// `<tensor name>:<axis>`; where a group before has this name (parts of one axis that go apart, as the queries and the values
/// of a joined projection), with `@` and the first index.
pub(super) fn unique_name(
    graph: &Graph,
    (tensor, axis): (TensorId, usize),
    first: Option<&usize>,
    named: &mut HashSet<(TensorId, usize)>,
) -> String {
    let plain = format!("{}:{axis}", graph.tensor(tensor).name);
    if named.insert((tensor, axis)) { plain } else { format!("{plain}@{}", first.unwrap_or(&0)) }
}

/// Splits channels into cells at the ends of runs, and ties groups that share an operator with runs.
fn tie(groups: &mut [ChannelGroup], place: &[Place], constraints: &[Equal]) {
    // A cell is all channels of a group with the same runs.
    let mut signature: Vec<Vec<Vec<(usize, usize)>>> =
        groups.iter().map(|g| vec![Vec::new(); g.len]).collect();
    fn root(groups: &[ChannelGroup], mut g: usize) -> usize {
        while groups[g].cluster != g {
            g = groups[g].cluster;
        }
        g
    }
    for (number, Equal { runs, .. }) in constraints.iter().enumerate() {
        let mut first = None;
        for (r, run) in runs.iter().enumerate() {
            for (g, channel) in run.iter().filter_map(|class| place[*class as usize]) {
                let g = g as usize;
                let marks = &mut signature[g][channel as usize];
                if marks.last() != Some(&(number, r)) {
                    marks.push((number, r));
                }
                let (a, b) = (root(groups, *first.get_or_insert(g)), root(groups, g));
                groups[a.max(b)].cluster = a.min(b);
            }
        }
    }
    for g in 0..groups.len() {
        let mut cells: HashMap<&[(usize, usize)], u32> = HashMap::new();
        let numbers: Vec<u32> = signature[g]
            .iter()
            .map(|marks| {
                let next = cells.len() as u32;
                *cells.entry(marks.as_slice()).or_insert(next)
            })
            .collect();
        groups[g].cells = numbers;
        groups[g].cluster = root(groups, g);
    }
}

/// The side of each tensor axis that an operator makes or reads channels with.
pub(super) fn sides(graph: &Graph) -> HashMap<(TensorId, usize), Side> {
    let mut out = HashMap::new();
    for node in &graph.nodes {
        if matches!(node.op, Op::Recurrent { .. }) {
            for (slot, t) in &node.weights {
                out.insert((*t, 0), Side::Makes);
                if !matches!(slot, Slot::BiasIh | Slot::BiasHh | Slot::BiasIhReverse | Slot::BiasHhReverse) {
                    out.entry((*t, 1)).or_insert(Side::Reads);
                }
            }
            continue;
        }
        let (makes, reads) = match &node.op {
            Op::Linear {} => (0, Some(1)),
            Op::Conv(a) if a.groups == 1 => (0, Some(1)),
            Op::Conv(_) => (0, Some(1)),
            Op::ConvTranspose { conv, .. } if conv.groups == 1 => (1, Some(0)),
            Op::ConvTranspose { .. } => (0, None),
            Op::Embedding {} => (1, None),
            _ => continue,
        };
        if let Some(w) = node.weights.get(&Slot::Weight) {
            // Of a tied weight the side that makes counts: it is what the channel is.
            out.insert((*w, makes), Side::Makes);
            if let Some(reads) = reads {
                out.entry((*w, reads)).or_insert(Side::Reads);
            }
        }
        if let Some(b) = node.weights.get(&Slot::Bias) {
            out.insert((*b, 0), Side::Makes);
        }
    }
    out
}

impl ChannelGroup {
    /// Paths of the nodes that make its channels.
    pub fn makers<'g>(&'g self, graph: &'g Graph) -> impl Iterator<Item = (NodeId, &'g str)> {
        let made = |t: &TensorId| self.members.iter().any(|m| m.side == Side::Makes && m.tensor == *t);
        let of = move |slot: Option<&TensorId>| slot.is_some_and(made);
        let slots = [Slot::Weight, Slot::WeightIh, Slot::WeightIhReverse];
        graph
            .iter()
            .filter(move |(_, n)| slots.iter().any(|s| of(n.weights.get(s))))
            .map(|(id, n)| (id, n.path.as_str()))
    }
}

/// The `keep` edits that leave these channels of each group, in the groups' order; a group that keeps everything has none.
/// Indices ascend and count what the edits before leave.
pub fn keep_edits(graph: &Graph, groups: &[ChannelGroup], kept: &BTreeMap<usize, Vec<u32>>) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut gone: HashMap<(TensorId, usize), Vec<bool>> = HashMap::new();
    for (g, channels) in kept {
        let Some(group) = groups.get(*g).filter(|group| channels.len() < group.len) else { continue };
        let Some(first) = group.members.first() else { continue };
        let mut stays = vec![false; group.len];
        channels.iter().for_each(|c| stays[*c as usize] = true);
        let before = gone.get(&(first.tensor, first.axis));
        let left = (0..first.channel.len()).filter(|i| before.is_none_or(|b| !b[*i]));
        let keeps = |i: &usize| first.channel[*i].is_none_or(|c| stays[c as usize]);
        let indices = left.enumerate().filter(|(_, i)| keeps(i)).map(|(now, _)| now as u32).collect();
        let name = format!("{}:{}", graph.tensor(first.tensor).name, first.axis);
        edits.push(Edit::Keep { group: name, indices });
        for m in &group.members {
            let marks = gone.entry((m.tensor, m.axis)).or_insert_with(|| vec![false; m.channel.len()]);
            for (mark, c) in marks.iter_mut().zip(&m.channel) {
                *mark |= c.is_some_and(|c| !stays[c as usize]);
            }
        }
    }
    edits
}
