//! Chains of reshapes and transpositions: where each axis of the result comes from, and shorter chains that do the same.

use pomona_graph::{Dim, Op, Shape, ValueId};

use super::Work;

/// A factor of an axis of the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Atom {
    /// Axis of the source; none for a repetition.
    pub axis: Option<usize>,
    pub size: Dim,
    /// Elements of the axis that one step of this atom spans; tells atoms of an axis apart and orders them.
    pub stride: Dim,
}

/// Axes of a value as products of factors, outermost first.
pub(super) type Axes = Vec<Vec<Atom>>;

/// The axes of a source.
pub(super) fn whole(shape: &Shape) -> Axes {
    let atom = |(i, d): (usize, &Dim)| {
        if d.as_int() == Some(1) {
            Vec::new()
        } else {
            vec![Atom { axis: Some(i), size: d.clone(), stride: 1.into() }]
        }
    };
    shape.iter().enumerate().map(atom).collect()
}

/// The axes after a reshape; none where a new axis would hold parts that no factors describe.
pub(super) fn reshape(axes: &Axes, to: &Shape) -> Option<Axes> {
    let mut atoms: Vec<Atom> = axes.iter().flatten().rev().cloned().collect();
    let mut out = Vec::with_capacity(to.len());
    for size in to {
        let mut left = size.clone();
        let mut own = Vec::new();
        while left.as_int() != Some(1) {
            let atom = atoms.pop()?;
            if let Some(rest) = divide(&left, &atom.size) {
                left = rest;
                own.push(atom);
            } else {
                let inner = divide(&atom.size, &left)?;
                let stride = atom.stride.checked_mul(&inner).ok()?;
                own.push(Atom { axis: atom.axis, size: left, stride });
                atoms.push(Atom { axis: atom.axis, size: inner, stride: atom.stride });
                left = 1.into();
            }
        }
        out.push(own);
    }
    atoms.is_empty().then_some(out)
}

/// `a / b` where that is exact.
fn divide(a: &Dim, b: &Dim) -> Option<Dim> {
    let q = a.floor_div(b).ok()?;
    (q.checked_mul(b).ok()? == *a && q.as_int() != Some(0)).then_some(q)
}

/// Joins neighbours that are parts of one axis.
pub(super) fn merged(axes: &Axes) -> Axes {
    let join = |list: &Vec<Atom>| {
        let mut out: Vec<Atom> = Vec::new();
        for a in list {
            match out.last_mut() {
                Some(l)
                    if l.axis == a.axis
                        && a.axis.is_some()
                        && a.stride.checked_mul(&a.size).is_ok_and(|s| s == l.stride) =>
                {
                    l.size = l.size.checked_mul(&a.size).unwrap_or(l.size.clone());
                    l.stride = a.stride.clone();
                }
                _ => out.push(a.clone()),
            }
        }
        out
    };
    axes.iter().map(join).collect()
}

/// The source of a chain that ends at a value, and the value's axes in terms of it.
fn chain(w: &Work, v: ValueId) -> Option<(ValueId, Axes, usize)> {
    let mut nodes = Vec::new();
    let mut source = v;
    while let Some(at) = w.maker(source) {
        match w.node(at).op {
            Op::Reshape { .. } | Op::Transpose { .. } => {
                nodes.push(at);
                source = w.node(at).inputs[0];
            }
            _ => break,
        }
    }
    let mut axes = whole(w.shape(source));
    for at in nodes.iter().rev() {
        axes = match &w.node(*at).op {
            Op::Reshape { shape } => reshape(&axes, shape)?,
            Op::Transpose { axes: order } => order.iter().map(|a| axes[*a].clone()).collect(),
            _ => return None,
        };
    }
    Some((source, merged(&axes), nodes.len()))
}

/// A chain of views as one node, or none.
pub(super) fn simplify(w: &mut Work, at: usize) -> bool {
    if !matches!(w.node(at).op, Op::Reshape { .. } | Op::Transpose { .. }) {
        return false;
    }
    let out = w.node(at).outputs[0];
    let Some((source, axes, nodes)) = chain(w, out) else { return false };
    let from = w.shape(source).clone();
    let to = w.shape(out).clone();
    let entire = whole(&from);
    // Axes in the source's order: only the grouping differs.
    let flat: Vec<_> = axes.iter().flatten().cloned().collect();
    let in_order = merged(&vec![flat.clone()]).concat() == merged(&vec![entire.concat()]).concat();
    if in_order && from == to && nodes > 0 {
        // The same value: its readers take the source.
        let graph = &mut w.draft.graph;
        let is_output = graph.outputs.iter().any(|p| p.value == out);
        if is_output {
            return false;
        }
        for node in &mut graph.nodes {
            node.inputs.iter_mut().filter(|v| **v == out).for_each(|v| *v = source);
        }
        return true;
    }
    if nodes < 2 {
        return false;
    }
    if in_order {
        w.replace_view(at, Op::Reshape { shape: to }, source);
        return true;
    }
    // Whole axes in another order.
    if from.len() == to.len() {
        let order: Option<Vec<usize>> = axes
            .iter()
            .map(|a| match a.as_slice() {
                [one] if one.axis.is_some_and(|i| from[i] == one.size) => one.axis,
                _ => None,
            })
            .collect();
        if let Some(order) = order {
            w.replace_view(at, Op::Transpose { axes: order }, source);
            return true;
        }
    }
    false
}

impl Work {
    fn replace_view(&mut self, at: usize, op: Op, source: ValueId) {
        let node = &mut self.draft.graph.nodes[at];
        node.op = op;
        node.inputs = vec![source];
    }

    /// Whether a tensor of the file holds one number everywhere.
    pub(super) fn filled(&self, id: pomona_graph::TensorId, value: f32) -> bool {
        let name = &self.graph().tensor(id).name;
        self.draft.known.get(name).is_some_and(|v| v.iter().all(|x| *x == value))
    }
}
