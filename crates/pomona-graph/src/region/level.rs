//! Inner levels of a U-shape: everything between a downsampling and the upsampling that undoes it.

use super::between::between;
use super::{Flow, Region, RegionKind};
use crate::graph::{NodeId, ValueId};

/// Regions from the input of a downsampling to the output of its upsampling, and from the output of the one to the input
/// of the other, where the shapes allow it.
pub(super) fn level_regions(flow: &Flow<'_>) -> Vec<Region> {
    let changes: Vec<(NodeId, std::cmp::Ordering)> =
        flow.graph.iter().filter_map(|(id, _)| resolution_change(flow, id).map(|c| (id, c))).collect();
    let mut out: Vec<Region> = Vec::new();
    let of = |wanted: std::cmp::Ordering| {
        changes.iter().filter(move |(_, c)| *c == wanted).map(|(n, _)| flow.graph.node(*n))
    };
    for down in of(std::cmp::Ordering::Less) {
        for up in of(std::cmp::Ordering::Greater) {
            let ends = [(down.inputs[0], up.outputs[0]), (down.outputs[0], up.inputs[0])];
            for (from, to) in ends {
                let path = format!("{}..{}", flow.name(from).0, flow.name(to).0);
                if flow.same_type(from, to)
                    && let Ok(region) = between(flow, from, to, path, RegionKind::Level)
                {
                    out.push(region);
                }
            }
        }
    }
    out
}

/// How a node with one stream changes the number of positions of each channel.
fn resolution_change(flow: &Flow<'_>, id: NodeId) -> Option<std::cmp::Ordering> {
    let node = flow.graph.node(id);
    let (input, output) = (*node.inputs.first()?, *node.outputs.first()?);
    let spatial = |v: ValueId| {
        let shape = &flow.graph.value(v).shape;
        if shape.len() < 3 { None } else { shape.get(2..).map(<[_]>::to_vec) }
    };
    let (a, b) = (spatial(input)?, spatial(output)?);
    let relevant = matches!(
        node.op,
        crate::op::Op::Conv(_)
            | crate::op::Op::ConvTranspose { .. }
            | crate::op::Op::Pool { .. }
            | crate::op::Op::Resize { .. }
            | crate::op::Op::PixelShuffle { .. }
    );
    if !relevant || a.len() != b.len() || a == b {
        return None;
    }
    // Symbolic sizes are compared at a size that downsampling divides evenly.
    let size = |d: &crate::dim::Dim| {
        let sizes = d.symbols().into_iter().map(|s| (s, 4096)).collect();
        d.bind(&sizes).ok()?.as_int()
    };
    let volume = |shape: &[crate::dim::Dim]| shape.iter().try_fold(1_i64, |n, d| n.checked_mul(size(d)?));
    match volume(&b)?.cmp(&volume(&a)?) {
        std::cmp::Ordering::Equal => None,
        order => Some(order),
    }
}
