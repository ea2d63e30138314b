//! Binding: symbols get sizes, attributes and shapes follow.

use std::collections::{BTreeMap, BTreeSet};

use crate::dim::{Bindings, Dim, Shape};
use crate::error::{GraphError, Result};
use crate::graph::{Graph, Value};
use crate::op::{Op, SplitMap};
use crate::shape::infer;

impl Op {
    /// Dimensions among its attributes.
    pub fn dims(&self) -> Vec<&Dim> {
        match self {
            Op::Reshape { shape } | Op::Expand { shape } => shape.iter().collect(),
            Op::Resize { size, .. } => size.iter().collect(),
            Op::Range { end } => vec![end],
            Op::Slice { start, end, .. } => vec![start, end],
            Op::Split { map: SplitMap::Parts { sizes } | SplitMap::Interleaved { sizes, .. }, .. } => {
                sizes.iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The operator with symbols replaced in its attributes.
    pub fn bind(&self, sizes: &Bindings) -> Result<Op> {
        let all = |dims: &[Dim]| dims.iter().map(|d| d.bind(sizes)).collect::<Result<Shape>>();
        Ok(match self {
            Op::Reshape { shape } => Op::Reshape { shape: all(shape)? },
            Op::Expand { shape } => Op::Expand { shape: all(shape)? },
            Op::Resize { mode, coordinates, size } => {
                Op::Resize { mode: *mode, coordinates: *coordinates, size: all(size)? }
            }
            Op::Range { end } => Op::Range { end: end.bind(sizes)? },
            Op::Slice { axis, start, end, step } => {
                Op::Slice { axis: *axis, start: start.bind(sizes)?, end: end.bind(sizes)?, step: *step }
            }
            Op::Split { axis, map: SplitMap::Parts { sizes: parts } } => {
                Op::Split { axis: *axis, map: SplitMap::Parts { sizes: all(parts)? } }
            }
            Op::Split { axis, map: SplitMap::Interleaved { groups, sizes: parts } } => {
                Op::Split { axis: *axis, map: SplitMap::Interleaved { groups: *groups, sizes: all(parts)? } }
            }
            other => other.clone(),
        })
    }
}

impl Graph {
    /// Every symbol in its inputs, states, values and attributes.
    pub fn symbols(&self) -> BTreeSet<String> {
        let attributes = self.nodes.iter().flat_map(|n| n.op.dims());
        self.values.iter().flat_map(|v| &v.shape).chain(attributes).flat_map(Dim::symbols).collect()
    }

    /// The graph with these sizes, every shape concrete; an error that names a symbol without a size.
    pub fn bind(&self, sizes: &Bindings) -> Result<Graph> {
        let bound = self.bind_partial(sizes)?;
        if let Some(symbol) = bound.symbols().first() {
            return Err(GraphError::Unbound { what: format!("graph `{}`", self.name), dim: symbol.clone() });
        }
        bound.validate()?;
        Ok(bound)
    }

    /// The graph with these sizes; other symbols stay.
    pub fn bind_partial(&self, sizes: &Bindings) -> Result<Graph> {
        if let Some((name, size)) = sizes.iter().find(|(_, v)| **v < 0) {
            return Err(GraphError::Dimension(format!("size {size} for `{name}`: sizes are not negative")));
        }
        let mut out = self.clone();
        let sources: Vec<_> =
            out.inputs.iter().map(|p| p.value).chain(out.states.iter().map(|s| s.input)).collect();
        for id in sources {
            let value = &mut out.values[id.0 as usize];
            value.shape = value.shape.iter().map(|d| d.bind(sizes)).collect::<Result<_>>()?;
        }
        for i in 0..out.nodes.len() {
            let op = out.nodes[i].op.bind(sizes)?;
            let node = &out.nodes[i];
            let inputs: Vec<&Value> = node.inputs.iter().map(|v| out.value(*v)).collect();
            let weights: BTreeMap<_, _> = node.weights.iter().map(|(s, t)| (*s, out.tensor(*t))).collect();
            let inferred = infer(&node.path, &op, &inputs, &weights)?;
            let targets = node.outputs.clone();
            out.nodes[i].op = op;
            for (id, value) in targets.into_iter().zip(inferred) {
                out.values[id.0 as usize] = value;
            }
        }
        Ok(out)
    }
}
