//! Decomposed operators become single ones again: activations, biases, norms, attention.
//!
//! A pattern is found at its last node, which is replaced by the whole; what nothing reads any more goes afterwards. The
//! graph computes the same before and after each replacement.

mod activations;
mod attention;
mod heads;
mod norms;
mod views;
mod weights;

use std::collections::HashSet;

use pomona_graph::{
    Annotation, BinaryFn, Expr, Graph, Node, NodeId, Op, QuantTarget, Role, Shape, Slot, TensorDef, TensorId,
    Value, ValueId, ValueType,
};

use super::Draft;
use super::clean::clean;
use super::homes::is_generated;
use crate::error::Result;

/// A draft with what is known of its edges.
struct Work {
    draft: Draft,
    producers: Vec<Option<(NodeId, usize)>>,
    uses: Vec<usize>,
    paths: HashSet<String>,
}

/// Every fusion, in an order in which each finds what it builds upon.
pub(super) fn fuse(draft: Draft) -> Result<Draft> {
    let mut draft = draft;
    for pass in [
        activations::fuse as fn(&mut Work, usize) -> bool,
        weights::biases,
        norms::decomposed,
        norms::grouped,
        norms::affine,
        attention::fuse,
        views::simplify,
        activations::fuse,
    ] {
        draft = run(draft, pass)?;
    }
    Ok(draft)
}

/// One pass over all nodes in order, then what became dead goes.
fn run(draft: Draft, pass: fn(&mut Work, usize) -> bool) -> Result<Draft> {
    let mut work = Work::new(draft);
    let mut at = 0;
    // Passes may add nodes before the one that they replace.
    while at < work.draft.graph.nodes.len() {
        let before = work.draft.graph.nodes.len();
        if !work.rounds(at) {
            pass(&mut work, at);
        }
        at += 1 + work.draft.graph.nodes.len() - before;
    }
    clean(work.draft)
}

impl Work {
    fn new(draft: Draft) -> Work {
        let producers = draft.graph.producers();
        let mut uses = vec![0; draft.graph.values.len()];
        let read = draft.graph.nodes.iter().flat_map(|n| &n.inputs).copied();
        read.chain(draft.graph.outputs.iter().map(|p| p.value)).for_each(|v| uses[v.0 as usize] += 1);
        let paths = draft.graph.nodes.iter().map(|n| n.path.clone()).collect();
        Work { draft, producers, uses, paths }
    }

    fn graph(&self) -> &Graph {
        &self.draft.graph
    }

    fn node(&self, at: usize) -> &Node {
        &self.draft.graph.nodes[at]
    }

    /// The node that makes a value as its only output. None where it rounds: the whole could not say where.
    fn maker(&self, v: ValueId) -> Option<usize> {
        self.only_maker(v).filter(|at| !self.rounds(*at))
    }

    /// The same, of nodes that round too.
    fn only_maker(&self, v: ValueId) -> Option<usize> {
        let (id, k) = self.producers.get(v.0 as usize).copied().flatten()?;
        (k == 0 && self.graph().node(id).outputs.len() == 1).then_some(id.0 as usize)
    }

    /// Whether a node rounds what it reads or gives, weights apart.
    fn rounds(&self, at: usize) -> bool {
        let notes = &self.graph().annotations;
        let values = |n: &Annotation| matches!(n, Annotation::Quantisation { target, .. } if *target != QuantTarget::Weight);
        !notes.is_empty() && notes.get(&self.node(at).path).is_some_and(|list| list.iter().any(values))
    }

    fn shape(&self, v: ValueId) -> &Shape {
        &self.graph().value(v).shape
    }

    fn once(&self, v: ValueId) -> bool {
        self.uses[v.0 as usize] == 1
    }

    /// Operands of a function of two values.
    fn binary(&self, v: ValueId, function: BinaryFn) -> Option<(ValueId, ValueId)> {
        let node = self.node(self.maker(v)?);
        let fits = match &node.op {
            Op::Binary { function: f } => *f == function,
            Op::Add {} => function == BinaryFn::Add,
            _ => false,
        };
        match node.inputs[..] {
            [a, b] if fits => Some((a, b)),
            _ => None,
        }
    }

    /// Operand and number of a function with a number.
    fn scalar(&self, v: ValueId, function: BinaryFn) -> Option<(ValueId, f64)> {
        let node = self.node(self.maker(v)?);
        match node.op {
            Op::Scalar { function: f, value, reversed } if f == function && (!reversed || commutes(f)) => {
                Some((node.inputs[0], value))
            }
            _ => None,
        }
    }

    /// The tensor of a constant value.
    fn constant(&self, v: ValueId) -> Option<TensorId> {
        let node = self.node(self.maker(v)?);
        match node.op {
            Op::Constant {} => node.weights.get(&Slot::Weight).copied(),
            _ => None,
        }
    }

    /// Replaces a node; its outputs stay the same values.
    fn replace(&mut self, at: usize, op: Op, inputs: Vec<ValueId>, weights: Vec<(Slot, TensorId)>) {
        let path = self.module_path(at);
        let node = &mut self.draft.graph.nodes[at];
        if path != node.path {
            let notes = self.draft.graph.annotations.remove(&node.path);
            if let Some(notes) = notes {
                self.draft.graph.annotations.insert(path.clone(), notes);
            }
        }
        node.path = path;
        node.op = op;
        node.inputs = inputs;
        node.weights = weights.into_iter().collect();
    }

    /// The module of a generated name (`layer.0.norm1.Add_1`), where no other node has it.
    fn module_path(&mut self, at: usize) -> String {
        let path = self.node(at).path.clone();
        let Some((mut module, mut last)) = path.rsplit_once('.') else { return path };
        // A part that the importer made of one node (`node_einsum_1.product`) stands for that node.
        if let Some((outer, node)) =
            module.rsplit_once('.').filter(|(_, n)| !is_generated(last) && is_generated(n))
        {
            (module, last) = (outer, node);
        }
        if !is_generated(last) || !self.paths.insert(module.to_owned()) {
            return path;
        }
        module.to_owned()
    }

    /// Adds a node right before another; gives its outputs. The caller's index moves up by one.
    fn insert(
        &mut self,
        before: usize,
        path: &str,
        op: Op,
        inputs: Vec<ValueId>,
        shapes: Vec<Shape>,
    ) -> Vec<ValueId> {
        let mut name = path.to_owned();
        let mut n = 1;
        while !self.paths.insert(name.clone()) {
            n += 1;
            name = format!("{path}_{n}");
        }
        let graph = &mut self.draft.graph;
        let mut outputs = Vec::new();
        for shape in shapes {
            graph.values.push(Value { shape, ty: ValueType::Float });
            outputs.push(ValueId(graph.values.len() as u32 - 1));
            self.uses.push(1);
        }
        let node = Node { path: name, op, inputs, weights: Default::default(), outputs: outputs.clone() };
        graph.nodes.insert(before, node);
        self.producers = graph.producers();
        outputs
    }

    /// A tensor with the same source in another shape.
    fn reshaped(&mut self, id: TensorId, shape: Vec<usize>) -> TensorId {
        let def = self.graph().tensor(id);
        if def.shape == shape {
            return id;
        }
        let name = def.name.clone();
        let of = self.draft.exprs.get(&name).cloned().unwrap_or(Expr::copy(&name));
        let expr = match of {
            Expr::Reshape { of, .. } => Expr::Reshape { shape: shape.clone(), of },
            of => Expr::Reshape { shape: shape.clone(), of: Box::new(of) },
        };
        self.derived(id, &name, shape, expr)
    }

    /// A tensor made from another's source. It takes the name over where nothing else reads the old one.
    fn derived(&mut self, id: TensorId, name: &str, shape: Vec<usize>, expr: Expr) -> TensorId {
        let readers: usize =
            self.graph().nodes.iter().map(|n| n.weights.values().filter(|t| **t == id).count()).sum();
        let constant = self.graph().nodes.iter().find(|n| n.weights.get(&Slot::Weight) == Some(&id));
        let single = readers == 1
            && constant.is_none_or(|n| !matches!(n.op, Op::Constant {}) || self.once(n.outputs[0]));
        let def = self.graph().tensor(id).clone();
        if single {
            // The node that read it is dead once its only reader is replaced.
            self.rename(id, &format!("{name}.as_stored"));
        }
        let mut wanted = name.to_owned();
        let mut n = 1;
        while self.graph().tensors.iter().any(|t| t.name == wanted) {
            n += 1;
            wanted = format!("{name}.{n}");
        }
        self.draft.graph.tensors.push(TensorDef {
            name: wanted.clone(),
            shape,
            role: Role::Parameter,
            ..def
        });
        self.draft.exprs.insert(wanted, expr);
        TensorId(self.draft.graph.tensors.len() as u32 - 1)
    }

    fn rename(&mut self, id: TensorId, name: &str) {
        let mut wanted = name.to_owned();
        let mut n = 1;
        while self.graph().tensors.iter().any(|t| t.name == wanted) {
            n += 1;
            wanted = format!("{name}.{n}");
        }
        let old = std::mem::replace(&mut self.draft.graph.tensors[id.0 as usize].name, wanted.clone());
        if let Some(e) = self.draft.exprs.remove(&old) {
            self.draft.exprs.insert(wanted, e);
        }
    }

    /// A constant as a row of `n` numbers, where its elements lie along one axis of the value that it meets.
    fn row(&self, v: ValueId, n: usize, from_right: usize) -> Option<TensorId> {
        let id = self.constant(v)?;
        let shape = &self.graph().tensor(id).shape;
        let at = shape.len().checked_sub(1 + from_right)?;
        let fits = shape.iter().enumerate().all(|(i, d)| *d == if i == at { n } else { 1 });
        fits.then_some(id)
    }
}

fn commutes(f: BinaryFn) -> bool {
    matches!(f, BinaryFn::Add | BinaryFn::Mul | BinaryFn::Min | BinaryFn::Max)
}

/// Whether two numbers are the same in f32, give or take its rounding.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 * b.abs().max(1e-6)
}
