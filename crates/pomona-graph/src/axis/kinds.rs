//! What the channels of a group are to the network: queries and keys, values, the stream that blocks add to, or inner layers.

use super::channels::{ChannelGroup, Place};
use super::links::{Axis, AxisMap};
use crate::graph::Graph;
use crate::op::{BinaryFn, Op};

/// What the channels of a group are to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Channels of queries and keys, whose products an attention sums.
    QueryKey,
    /// Channels of an attention's values.
    Value,
    /// Channels that several layers add to.
    Stream,
    /// Neurons of linear layers between others: a feed-forward layer's.
    Inner,
    /// Filters of anything else.
    Filters,
    /// Whole heads of an attention.
    Heads,
}

impl ChannelKind {
    /// Every kind.
    pub const ALL: [ChannelKind; 6] =
        [Self::QueryKey, Self::Value, Self::Stream, Self::Inner, Self::Filters, Self::Heads];

    /// Name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueryKey => "qk",
            Self::Value => "v",
            Self::Stream => "stream",
            Self::Inner => "ffn",
            Self::Filters => "filters",
            Self::Heads => "heads",
        }
    }
}

/// The module around a node, with a name below it.
pub(super) fn beside(path: &str, name: &str) -> String {
    path.rsplit_once('.').map_or_else(|| name.to_owned(), |(module, _)| format!("{module}.{name}"))
}

/// Sets the kind and label of each group.
pub(super) fn name_kinds(graph: &Graph, map: &AxisMap, place: &[Place], groups: &mut [ChannelGroup]) {
    let mut added = vec![false; groups.len()];
    let mut named = vec![false; groups.len()];
    let of = |axis: Axis| {
        let mut found: Vec<usize> =
            map.classes(axis).filter_map(|c| place[c as usize].map(|(g, _)| g as usize)).collect();
        found.dedup();
        found
    };
    for node in &graph.nodes {
        match &node.op {
            Op::Attention(_) => {
                let kinds = [ChannelKind::QueryKey, ChannelKind::QueryKey, ChannelKind::Value];
                for (v, kind) in node.inputs.iter().zip(kinds) {
                    for g in of(Axis::Value(*v, 2)) {
                        if !std::mem::replace(&mut named[g], true) {
                            groups[g].kind = kind;
                            groups[g].label = beside(&node.path, kind.name());
                        }
                    }
                }
            }
            Op::Add {} | Op::Binary { function: BinaryFn::Add } => {
                for v in &node.outputs {
                    (0..map.rank(*v)).flat_map(|a| of(Axis::Value(*v, a))).for_each(|g| added[g] = true);
                }
            }
            _ => {}
        }
    }
    for g in (0..groups.len()).filter(|g| !named[*g]) {
        let makers: Vec<_> = groups[g].makers(graph).map(|(id, _)| id).collect();
        let linear = makers.iter().all(|id| matches!(graph.node(*id).op, Op::Linear {}));
        if added[g] && makers.len() > 1 {
            groups[g].kind = ChannelKind::Stream;
            groups[g].label = ChannelKind::Stream.name().to_owned();
        } else if linear && !makers.is_empty() {
            groups[g].kind = ChannelKind::Inner;
        }
    }
}
