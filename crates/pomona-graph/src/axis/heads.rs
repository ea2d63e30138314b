//! Attention seen from its heads: which channel each query is, and the heads that can go whole.

use std::collections::HashMap;

use super::channels::{ChannelGroup, ChannelMember, Side, sides};
use super::kinds::{ChannelKind, beside};
use super::links::{Axis, AxisMap};
use crate::error::Result;
use crate::graph::{Graph, NodeId};
use crate::op::{AttentionAttrs, Op};

/// The channels that an attention's queries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionColumns {
    /// The attention.
    pub node: NodeId,
    /// Group and channel of each column of the queries (`heads x width`); none for one that cannot go.
    pub queries: Vec<Option<(usize, u32)>>,
}

/// An attention's heads as channels of a group. A head of keys goes with its values and with all queries that share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadGroup {
    /// A channel a head of keys.
    pub group: ChannelGroup,
    /// The attentions that have these heads.
    pub attentions: Vec<NodeId>,
    /// The layers that make the values, with the head of each index.
    pub values: Vec<ChannelMember>,
}

fn attentions(graph: &Graph) -> impl Iterator<Item = (NodeId, &AttentionAttrs)> {
    graph.iter().filter_map(|(id, n)| match &n.op {
        Op::Attention(a) if n.inputs.len() > 2 => Some((id, a)),
        _ => None,
    })
}

/// The channel of `groups` that each column of each attention's queries is.
///
/// # Errors
/// [`crate::GraphError::Graph`] where the graph has more indices than 32 bits count.
pub fn attention_columns(graph: &Graph, groups: &[ChannelGroup]) -> Result<Vec<AttentionColumns>> {
    let map = AxisMap::new(graph)?;
    let mut place: HashMap<u32, (usize, u32)> = HashMap::new();
    for (g, group) in groups.iter().enumerate() {
        for m in &group.members {
            for (class, channel) in map.classes(Axis::Tensor(m.tensor, m.axis)).zip(&m.channel) {
                if let Some(c) = channel {
                    place.insert(class, (g, *c));
                }
            }
        }
    }
    let columns = |id: NodeId| {
        let queries = Axis::Value(graph.node(id).inputs[0], 2);
        let queries = map.classes(queries).map(|c| place.get(&c).copied()).collect();
        AttentionColumns { node: id, queries }
    };
    Ok(attentions(graph).map(|(id, _)| columns(id)).collect())
}

/// The classes of an attention's keys and values, each with its head and whether it is a value's; or why no head can go.
fn by_head(
    graph: &Graph,
    map: &AxisMap,
    attention: NodeId,
    heads: usize,
) -> std::result::Result<Vec<(u32, u32, bool)>, String> {
    if heads < 2 {
        return Err("it has one head of keys, which all its queries read".to_owned());
    }
    let mut all = Vec::new();
    for (input, value) in [(1, false), (2, true)] {
        let classes: Vec<u32> = map.classes(Axis::Value(graph.node(attention).inputs[input], 2)).collect();
        if classes.is_empty() || !classes.len().is_multiple_of(heads) {
            return Err(format!("{} channels do not divide into its {heads} heads", classes.len()));
        }
        let width = classes.len() / heads;
        all.extend(classes.into_iter().enumerate().map(|(i, c)| (c, (i / width) as u32, value)));
    }
    if let Some(why) = all.iter().find_map(|(c, ..)| map.lock_of(*c)) {
        return Err(why.to_owned());
    }
    let mut head_of = HashMap::new();
    match all.iter().all(|(c, h, _)| *head_of.entry(*c).or_insert(*h) == *h) {
        true => Ok(all),
        false => Err("an operator ties a channel of one head to another head's".to_owned()),
    }
}

/// Why none of a graph's heads can go: the attentions' reasons, each with the first that has it.
///
/// # Errors
/// [`crate::GraphError::Graph`] where the graph has more indices than 32 bits count.
pub fn no_heads(graph: &Graph) -> Result<String> {
    let map = AxisMap::new(graph)?;
    let mut reasons: Vec<(String, String)> = Vec::new();
    for (id, attrs) in attentions(graph) {
        let why = by_head(graph, &map, id, attrs.kv_heads).err();
        let why = why.unwrap_or_else(|| "another attention reads its keys as other heads".to_owned());
        if reasons.iter().all(|(_, r)| *r != why) {
            reasons.push((graph.node(id).path.clone(), why));
        }
    }
    let said: Vec<String> = reasons.into_iter().map(|(path, why)| format!("`{path}`: {why}")).collect();
    Ok(if said.is_empty() { "it has no attention".to_owned() } else { said.join("; ") })
}

/// The heads of every attention that has more than one of keys and can lose them, in the graph's order.
///
/// # Errors
/// [`crate::GraphError::Graph`] where the graph has more indices than 32 bits count.
pub fn head_groups(graph: &Graph) -> Result<Vec<HeadGroup>> {
    let map = AxisMap::new(graph)?;
    let sides = sides(graph);
    // Group and head of a class; whether it is a value's.
    let mut place: HashMap<u32, (usize, u32, bool)> = HashMap::new();
    let mut found: Vec<(usize, Vec<NodeId>)> = Vec::new();
    for (id, attrs) in attentions(graph) {
        let heads = attrs.kv_heads;
        let Ok(all) = by_head(graph, &map, id, heads) else { continue };
        // Two attentions may read the same keys: then they have the same heads, or none of theirs can go.
        let known: Vec<_> =
            all.iter().filter_map(|(c, h, _)| place.get(c).map(|p| (p.0, p.1 == *h))).collect();
        match known.first() {
            Some((g, _)) if found[*g].0 == heads && known.iter().all(|(o, same)| o == g && *same) => {
                found[*g].1.push(id);
                all.into_iter().for_each(|(c, h, v)| {
                    place.entry(c).or_insert((*g, h, v));
                });
            }
            Some(_) => {}
            None => {
                let g = found.len();
                found.push((heads, vec![id]));
                place.extend(all.into_iter().map(|(c, h, v)| (c, (g, h, v))));
            }
        }
    }
    let mut members: Vec<(Vec<ChannelMember>, Vec<ChannelMember>)> = vec![Default::default(); found.len()];
    for (tensor, def) in graph.iter_tensors() {
        for axis in 0..def.shape.len() {
            let on: Vec<_> =
                map.classes(Axis::Tensor(tensor, axis)).map(|c| place.get(&c).copied()).collect();
            let mut groups: Vec<usize> = on.iter().flatten().map(|p| p.0).collect();
            groups.sort_unstable();
            groups.dedup();
            let side = sides.get(&(tensor, axis)).copied().unwrap_or(Side::Norm);
            for g in groups {
                let member = |only_values: bool| ChannelMember {
                    tensor,
                    axis,
                    side,
                    channel: on
                        .iter()
                        .map(|p| p.filter(|p| p.0 == g && (p.2 || !only_values)).map(|p| p.1))
                        .collect(),
                };
                members[g].0.push(member(false));
                let values = member(true);
                if side == Side::Makes && def.shape.len() > 1 && values.channel.iter().any(Option::is_some) {
                    members[g].1.push(values);
                }
            }
        }
    }
    let mut out = Vec::with_capacity(found.len());
    for ((heads, attentions), (mut members, values)) in found.into_iter().zip(members) {
        // Edits name the first member: it must have every head.
        let has = |m: &ChannelMember, h: u32| m.channel.contains(&Some(h));
        let whole = members.iter().position(|m| (0..heads as u32).all(|h| has(m, h)));
        let Some(first) = whole else { continue };
        members.swap(0, first);
        let label = beside(&graph.node(attentions[0]).path, ChannelKind::Heads.name());
        let group = ChannelGroup {
            name: label.clone(),
            len: heads,
            members,
            cells: vec![0; heads],
            bundles: None,
            cluster: out.len(),
            kind: ChannelKind::Heads,
            label,
        };
        out.push(HeadGroup { group, attentions, values });
    }
    Ok(out)
}
