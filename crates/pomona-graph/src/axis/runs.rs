//! Runs: operators that hold equal heads or groups need the same number of channels in each.

use std::collections::{HashMap, HashSet};

use super::links::{Axis, AxisMap};
use crate::graph::{Graph, ValueId};
use crate::op::{Direction, Op, SplitMap};

/// Classes of one head or group, in order.
pub(super) type Run = Vec<u32>;

/// Runs of one operator that must keep the same number of channels.
pub(super) struct Equal {
    /// The runs.
    pub runs: Vec<Run>,
    /// Whether the operator is a GroupNorm: a run of its own can go whole, and the others stay what they were.
    pub norm: bool,
}

/// What operators ask of the channels that they read or make.
#[derive(Default)]
pub(super) struct Constraints {
    /// Runs that must keep the same number of channels.
    pub equal: Vec<Equal>,
    /// Classes that cannot go one by one.
    pub fixed: HashSet<u32>,
    /// Those of them that can go with their whole head.
    pub rotary: HashSet<u32>,
}

impl Constraints {
    /// Where runs hold unequal numbers of channels that cannot go, no equal share can go from them: they stay whole, which
    /// may make other runs unequal.
    pub fn settle(&mut self, map: &AxisMap) {
        loop {
            let before = self.fixed.len();
            for Equal { runs, .. } in &self.equal {
                let fixed = |c: &&u32| map.lock_of(**c).is_some() || self.fixed.contains(*c);
                let mut counts = runs.iter().map(|run| run.iter().filter(fixed).count());
                let first = counts.next();
                if counts.any(|n| Some(n) != first) {
                    self.fixed.extend(runs.iter().flatten());
                }
            }
            if self.fixed.len() == before {
                return;
            }
        }
    }
}

/// The constraints of a graph.
pub(super) fn runs_of(graph: &Graph, map: &AxisMap) -> Constraints {
    let mut out = Constraints::default();
    for node in &graph.nodes {
        let (x, y) = (node.inputs.first(), node.outputs.first());
        let last = |v: &ValueId| map.rank(*v).saturating_sub(1);
        let mut add = |value: Option<&ValueId>, axis: usize, runs: usize| {
            let Some(v) = value else { return };
            let classes: Vec<u32> = map.classes(Axis::Value(*v, axis)).collect();
            if runs > 1 && !classes.is_empty() && classes.len().is_multiple_of(runs) {
                let runs = classes.chunks(classes.len() / runs).map(<[u32]>::to_vec).collect();
                out.equal.push(Equal { runs, norm: matches!(node.op, Op::GroupNorm { .. }) });
            }
        };
        match &node.op {
            Op::GroupNorm { groups, .. } => add(x, 1, *groups),
            Op::Conv(a) if a.groups > 1 => {
                // Channels of a depthwise convolution are free; a multiple of them makes runs of outputs.
                let depthwise = x.and_then(|v| map.len(Axis::Value(*v, 1))) == Some(a.groups);
                if !depthwise {
                    add(y, 1, a.groups);
                }
            }
            Op::Attention(a) => {
                add(node.inputs.first(), 2, a.heads);
                add(node.inputs.get(1), 2, a.kv_heads);
                add(node.inputs.get(2), 2, a.kv_heads);
            }
            Op::Recurrent { direction: Direction::Both, .. } => add(y, 2, 2),
            Op::Split { axis, map: SplitMap::Interleaved { groups, .. } } => {
                node.outputs.iter().for_each(|v| add(Some(v), *axis, *groups));
            }
            Op::Rope(a) => {
                let Some(v) = x else { continue };
                let classes: Vec<u32> = map.classes(Axis::Value(*v, last(v))).collect();
                let width = (classes.len() / a.heads.max(1)).max(1);
                add(x, last(v), a.heads);
                let turns = classes.iter().enumerate().filter(|(i, _)| i % width < a.rotary).map(|(_, c)| *c);
                out.rotary.extend(turns);
            }
            _ => {}
        }
    }
    out.fixed.extend(&out.rotary);
    out
}

/// The runs that each class is in: operator and run.
pub(super) fn parts_of(constraints: &Constraints) -> HashMap<u32, Vec<(usize, usize)>> {
    let mut parts: HashMap<u32, Vec<(usize, usize)>> = HashMap::new();
    for (number, Equal { runs, .. }) in constraints.equal.iter().enumerate() {
        for (r, run) in runs.iter().enumerate() {
            for class in run {
                let marks = parts.entry(*class).or_default();
                if marks.last() != Some(&(number, r)) {
                    marks.push((number, r));
                }
            }
        }
    }
    parts
}
