//! The parts that depth pruning removes: whole blocks, or their sublayers.

use std::str::FromStr;

use pomona_graph::{Graph, Region, TensorId, ValueId};
use serde::{Deserialize, Serialize};

use crate::error::{PruneError, Result};

/// Which parts are candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// Repeated blocks (transformer layers).
    Block,
    /// Residual branches within them (attention, feed-forward).
    Sublayer,
}

impl FromStr for UnitKind {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s {
            "block" => Ok(Self::Block),
            "sublayer" => Ok(Self::Sublayer),
            _ => Err(format!("unknown unit `{s}`: block or sublayer")),
        }
    }
}

/// A removable part: what flows in becomes what flows out when it goes.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The region in the graph.
    pub region: Region,
    /// The main stream on the way in; none in an opaque model.
    pub from: Option<ValueId>,
    /// The main stream on the way out; none in an opaque model.
    pub to: Option<ValueId>,
    /// Tensors that only this part uses.
    pub tensors: Vec<TensorId>,
    /// Index of the repeated block that it is or belongs to, from 0.
    pub block: usize,
}

/// The removable parts of a kind, in the order in which data flows, and the number of blocks.
pub fn units(graph: &Graph, kind: UnitKind) -> Result<(Vec<Unit>, usize)> {
    let blocks = pomona_graph::blocks(graph);
    if blocks.is_empty() {
        return Err(PruneError::Unfit(format!(
            "`{}` has no repeated removable blocks; `pomona inspect` shows what it has",
            graph.name
        )));
    }
    let regions: Vec<(usize, Region)> = match kind {
        UnitKind::Block => blocks.iter().cloned().enumerate().collect(),
        UnitKind::Sublayer => {
            let inside =
                |path: &str, block: &str| path.strip_prefix(block).is_some_and(|r| r.starts_with('.'));
            pomona_graph::sublayers(graph)
                .into_iter()
                .filter_map(|r| blocks.iter().position(|b| inside(&r.path, &b.path)).map(|b| (b, r)))
                .collect()
        }
    };
    if regions.is_empty() {
        return Err(PruneError::Unfit(format!(
            "`{}` has no removable sublayers: use --unit block",
            graph.name
        )));
    }
    let uses = tensor_uses(graph);
    let units = regions.into_iter().map(|(block, region)| {
        let tensors = region_tensors(graph, &region, &uses);
        let (from, to) = (graph.resolve(&region.from), graph.resolve(&region.to));
        Unit { from, to, tensors, block, region }
    });
    Ok((units.collect(), blocks.len()))
}

/// How many nodes read each tensor.
fn tensor_uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.tensors.len()];
    for id in graph.nodes.iter().flat_map(|n| n.weights.values()) {
        uses[id.0 as usize] += 1;
    }
    uses
}

fn region_tensors(graph: &Graph, region: &Region, uses: &[usize]) -> Vec<TensorId> {
    if graph.nodes.is_empty() {
        let prefix = format!("{}.", region.path);
        return graph.iter_tensors().filter(|(_, t)| t.name.starts_with(&prefix)).map(|(id, _)| id).collect();
    }
    let mut inside = vec![0; graph.tensors.len()];
    for id in region.nodes.iter().flat_map(|n| graph.node(*n).weights.values()) {
        inside[id.0 as usize] += 1;
    }
    let own = |id: &TensorId| inside[id.0 as usize] > 0 && inside[id.0 as usize] == uses[id.0 as usize];
    graph.iter_tensors().map(|(id, _)| id).filter(own).collect()
}
