//! Elements of axes in classes: a union-find over every index of every axis of known size.

use super::relations::link_node;
use crate::error::{GraphError, Result};
use crate::graph::{Graph, ValueId};
use crate::tensor::TensorId;

/// An axis of a value or of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Axis {
    Value(ValueId, usize),
    Tensor(TensorId, usize),
}

/// Longest axis that is tracked: longer ones (a hostile shape) are left whole.
const MAX_LEN: usize = 1 << 24;

/// In the place of a reason: the class can be cut.
const FREE: u32 = u32::MAX;

/// Classes of elements that are cut together, and the reasons of those that cannot be.
pub(crate) struct AxisMap {
    /// First element and length of each axis, by value.
    values: Vec<Vec<Option<(u32, u32)>>>,
    tensors: Vec<Vec<Option<(u32, u32)>>>,
    parent: Vec<u32>,
    locks: Vec<(u32, u32, usize)>,
    reasons: Vec<String>,
    /// Reason of each locked class, by its number; [`FREE`] for the others.
    locked: Vec<u32>,
}

impl AxisMap {
    /// All relations of a graph. Axes of symbolic size are not tracked: they are never cut.
    pub fn new(graph: &Graph) -> Result<AxisMap> {
        let mut next = 0_u32;
        let mut overflow = false;
        let mut place = |len: Option<usize>| {
            let len = u32::try_from(len.filter(|n| *n <= MAX_LEN)?).ok()?;
            let base = next;
            match next.checked_add(len) {
                Some(n) => next = n,
                None => overflow = true,
            }
            Some((base, len))
        };
        let size = |d: &crate::dim::Dim| d.as_int().and_then(|n| usize::try_from(n).ok());
        let values = graph.values.iter().map(|v| v.shape.iter().map(|d| place(size(d))).collect()).collect();
        let tensors =
            graph.tensors.iter().map(|t| t.shape.iter().map(|d| place(Some(*d))).collect()).collect();
        if overflow {
            return Err(GraphError::Graph {
                graph: graph.name.clone(),
                message: "has more indices on its axes than 32 bits count: axis groups are not found for it"
                    .into(),
            });
        }
        let mut map = AxisMap {
            values,
            tensors,
            parent: (0..next).collect(),
            locks: Vec::new(),
            reasons: Vec::new(),
            locked: Vec::new(),
        };
        for port in &graph.inputs {
            map.lock_value(port.value, &format!("it is an axis of the input `{}`", port.name));
        }
        for port in &graph.outputs {
            map.lock_value(port.value, &format!("it is an axis of the output `{}`", port.name));
        }
        for state in &graph.states {
            for axis in 0..map.values[state.input.0 as usize].len() {
                map.same(Axis::Value(state.input, axis), Axis::Value(state.output, axis));
            }
        }
        for node in &graph.nodes {
            link_node(&mut map, graph, node);
        }
        // From here on every element's parent is its class: roots have the lowest number, so one pass is enough.
        for e in 0..map.parent.len() {
            map.parent[e] = map.parent[map.parent[e] as usize];
        }
        map.locked = vec![FREE; map.parent.len()];
        for (start, len, reason) in std::mem::take(&mut map.locks) {
            for e in start..start + len {
                let class = &mut map.locked[map.parent[e as usize] as usize];
                *class = (*class).min(u32::try_from(reason).unwrap_or(FREE - 1));
            }
        }
        Ok(map)
    }

    fn range(&self, axis: Axis) -> Option<(u32, u32)> {
        match axis {
            Axis::Value(v, a) => *self.values[v.0 as usize].get(a)?,
            Axis::Tensor(t, a) => *self.tensors[t.0 as usize].get(a)?,
        }
    }

    /// Length of a tracked axis.
    pub fn len(&self, axis: Axis) -> Option<usize> {
        self.range(axis).map(|(_, len)| len as usize)
    }

    pub fn rank(&self, value: ValueId) -> usize {
        self.values[value.0 as usize].len()
    }

    fn join(&mut self, a: u32, b: u32) {
        let (mut a, mut b) = (a, b);
        // Halving the paths on the way keeps trees flat.
        for e in [&mut a, &mut b] {
            while self.parent[*e as usize] != *e {
                let up = self.parent[self.parent[*e as usize] as usize];
                self.parent[*e as usize] = up;
                *e = up;
            }
        }
        // The lower element stays the root: the result does not depend on the order of joins.
        self.parent[a.max(b) as usize] = a.min(b);
    }

    /// Index `i` of the one axis goes with index `k` of the other, for all pairs.
    pub fn link(&mut self, a: Axis, b: Axis, pairs: impl Iterator<Item = (usize, usize)>) {
        let (Some((base_a, len_a)), Some((base_b, len_b))) = (self.range(a), self.range(b)) else { return };
        for (i, k) in pairs {
            if i < len_a as usize && k < len_b as usize {
                self.join(base_a + i as u32, base_b + k as u32);
            }
        }
    }

    /// Two axes of one length are the same; others (broadcast from 1) are not linked.
    pub fn same(&mut self, a: Axis, b: Axis) {
        if let (Some(n), Some(m)) = (self.len(a), self.len(b))
            && n == m
        {
            self.link(a, b, (0..n).map(|i| (i, i)));
        }
    }

    /// No index of the axis can go.
    pub fn lock(&mut self, axis: Axis, reason: &str) {
        if let Some((start, len)) = self.range(axis) {
            if self.reasons.last().is_none_or(|r| r != reason) {
                self.reasons.push(reason.to_owned());
            }
            self.locks.push((start, len, self.reasons.len() - 1));
        }
    }

    pub fn lock_value(&mut self, value: ValueId, reason: &str) {
        (0..self.rank(value)).for_each(|a| self.lock(Axis::Value(value, a), reason));
    }

    /// The class of each index of an axis; nothing for an axis that is not tracked.
    pub fn classes(&self, axis: Axis) -> impl Iterator<Item = u32> {
        let (start, len) = self.range(axis).unwrap_or((0, 0));
        (start..start + len).map(|e| self.parent[e as usize])
    }

    /// One more than the largest number of a class.
    pub fn bound(&self) -> usize {
        self.parent.len()
    }

    /// Why a class cannot be cut.
    pub fn lock_of(&self, class: u32) -> Option<&str> {
        self.locked.get(class as usize).and_then(|r| self.reasons.get(*r as usize)).map(String::as_str)
    }
}
