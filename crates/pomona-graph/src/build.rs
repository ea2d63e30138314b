//! The builder that importers use: nodes are checked as they are added.

use std::collections::{BTreeMap, HashMap};

use crate::annotation::Annotation;
use crate::dim::{Dim, Shape};
use crate::error::{GraphError, Result};
use crate::graph::{Graph, Node, Port, StatePort, Value, ValueId};
use crate::op::{Activation, ConvAttrs, Op, ValueType};
use crate::shape::infer;
use crate::tensor::{Role, Slot, TensorDef, TensorId};

/// Grows a graph node by node; shapes are inferred, weights registered by name.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: Graph,
    tensors: HashMap<String, TensorId>,
    paths: HashMap<String, ()>,
    dtype: String,
}

impl GraphBuilder {
    /// An empty graph for component `name`; tensors that the layer helpers register are stored as `dtype`.
    pub fn new(name: impl Into<String>, dtype: impl Into<String>) -> Self {
        let graph = Graph::new(name);
        Self { graph, tensors: HashMap::new(), paths: HashMap::new(), dtype: dtype.into() }
    }

    fn value(&mut self, shape: Shape, ty: ValueType) -> ValueId {
        self.graph.values.push(Value { shape, ty });
        ValueId(self.graph.values.len() as u32 - 1)
    }

    fn fault(&self, message: String) -> GraphError {
        GraphError::Graph { graph: self.graph.name.clone(), message }
    }

    /// A port that the graph is fed.
    pub fn input(&mut self, name: &str, shape: Shape, ty: ValueType) -> ValueId {
        let value = self.value(shape, ty);
        self.graph.inputs.push(Port { name: name.to_owned(), value });
        value
    }

    /// A port that the graph gives.
    pub fn output(&mut self, name: &str, value: ValueId) {
        self.graph.outputs.push(Port { name: name.to_owned(), value });
    }

    /// State carried between runs; [`GraphBuilder::set_state`] says what the next run reads.
    pub fn state(&mut self, name: &str, shape: Shape, ty: ValueType, start: f64) -> ValueId {
        let input = self.value(shape, ty);
        self.graph.states.push(StatePort { name: name.to_owned(), input, output: input, start });
        input
    }

    /// The value that becomes the state of this name.
    pub fn set_state(&mut self, name: &str, output: ValueId) -> Result<()> {
        match self.graph.states.iter_mut().find(|s| s.name == name) {
            Some(state) => {
                state.output = output;
                Ok(())
            }
            None => Err(self.fault(format!("has no state `{name}`"))),
        }
    }

    /// The usual size of a symbol: what costs are worked out with where nobody gives a size.
    pub fn default_size(&mut self, symbol: &str, size: usize) {
        self.graph.defaults.insert(symbol.to_owned(), i64::try_from(size).unwrap_or(i64::MAX));
    }

    /// Class name of a module.
    pub fn module(&mut self, path: &str, class: &str) {
        self.graph.modules.insert(path.to_owned(), class.to_owned());
    }

    /// Registers a tensor; the same name again gives the same tensor, an error where the shape differs.
    pub fn tensor(&mut self, name: &str, shape: &[usize], dtype: &str, role: Role) -> Result<TensorId> {
        if let Some(&id) = self.tensors.get(name) {
            let known = &self.graph.tensor(id).shape;
            if known != shape {
                return Err(
                    self.fault(format!("tensor `{name}` has shape {known:?} here and {shape:?} there"))
                );
            }
            return Ok(id);
        }
        let def = TensorDef {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: dtype.to_owned(),
            role,
            aliases: Vec::new(),
        };
        self.graph.tensors.push(def);
        let id = TensorId(self.graph.tensors.len() as u32 - 1);
        self.tensors.insert(name.to_owned(), id);
        Ok(id)
    }

    /// Name of a registered tensor.
    pub fn tensor_name(&self, id: TensorId) -> Option<&str> {
        self.graph.tensors.get(id.0 as usize).map(|t| t.name.as_str())
    }

    /// A parameter of the builder's type.
    pub fn parameter(&mut self, name: &str, shape: &[usize]) -> Result<TensorId> {
        let dtype = self.dtype.clone();
        self.tensor(name, shape, &dtype, Role::Parameter)
    }

    /// A further name of a tensor in the source (a tied weight).
    pub fn alias(&mut self, id: TensorId, name: &str) {
        self.graph.tensors[id.0 as usize].aliases.push(name.to_owned());
        self.tensors.insert(name.to_owned(), id);
    }

    /// Shape of a value.
    pub fn shape(&self, id: ValueId) -> &[Dim] {
        &self.graph.value(id).shape
    }

    /// Element type of a value.
    pub fn ty(&self, id: ValueId) -> ValueType {
        self.graph.value(id).ty
    }

    /// The nodes so far, in the order in which they were added.
    pub fn nodes(&self) -> &[Node] {
        &self.graph.nodes
    }

    /// The path of the node that makes a value, and the number of the output.
    pub fn producer(&self, id: ValueId) -> Option<(String, usize)> {
        let mut nodes = self.graph.nodes.iter().rev();
        nodes.find_map(|n| Some((n.path.clone(), n.outputs.iter().position(|v| *v == id)?)))
    }

    /// What a value is a broadcast of, where an Expand makes it.
    pub fn expanded(&self, id: ValueId) -> Option<ValueId> {
        let node = self.graph.nodes.iter().rev().find(|n| n.outputs.contains(&id))?;
        if matches!(node.op, Op::Expand { .. }) { node.inputs.first().copied() } else { None }
    }

    /// Attaches an annotation to the node at a path.
    pub fn annotate(&mut self, path: &str, note: Annotation) {
        if self.paths.contains_key(path) {
            self.graph.annotations.entry(path.to_owned()).or_default().push(note);
        }
    }

    /// Adds a node and gives its outputs.
    pub fn node_multi(
        &mut self,
        path: &str,
        op: Op,
        inputs: &[ValueId],
        weights: &[(Slot, TensorId)],
    ) -> Result<Vec<ValueId>> {
        if self.paths.insert(path.to_owned(), ()).is_some() {
            return Err(self.fault(format!("has two nodes at `{path}`")));
        }
        let values: Vec<&Value> = inputs.iter().map(|v| self.graph.value(*v)).collect();
        let tensors = weights.iter().map(|(s, t)| (*s, self.graph.tensor(*t))).collect();
        let inferred = infer(path, &op, &values, &tensors)?;
        let outputs: Vec<ValueId> = inferred.into_iter().map(|v| self.value(v.shape, v.ty)).collect();
        self.graph.nodes.push(Node {
            path: path.to_owned(),
            op,
            inputs: inputs.to_vec(),
            weights: weights.iter().copied().collect::<BTreeMap<_, _>>(),
            outputs: outputs.clone(),
        });
        Ok(outputs)
    }

    /// Adds a node with one output.
    pub fn node(
        &mut self,
        path: &str,
        op: Op,
        inputs: &[ValueId],
        weights: &[(Slot, TensorId)],
    ) -> Result<ValueId> {
        let outputs = self.node_multi(path, op, inputs, weights)?;
        match outputs.as_slice() {
            [one] => Ok(*one),
            other => Err(self.fault(format!("`{path}` has {} outputs; one was expected", other.len()))),
        }
    }

    /// `path.weight` and, with `bias`, `path.bias`.
    fn weight_and_bias(
        &mut self,
        path: &str,
        weight: &[usize],
        bias: Option<usize>,
    ) -> Result<Vec<(Slot, TensorId)>> {
        let mut out = vec![(Slot::Weight, self.parameter(&format!("{path}.weight"), weight)?)];
        if let Some(n) = bias {
            out.push((Slot::Bias, self.parameter(&format!("{path}.bias"), &[n])?));
        }
        Ok(out)
    }

    fn width(&self, x: ValueId, axis: Option<usize>, path: &str) -> Result<usize> {
        let shape = self.shape(x);
        let dim = axis.map_or(shape.last(), |a| shape.get(a));
        dim.ok_or_else(|| self.fault(format!("`{path}` reads a value without that axis")))?.size(path)
    }

    /// A linear layer to `out` features.
    pub fn linear(&mut self, path: &str, x: ValueId, out: usize, bias: bool) -> Result<ValueId> {
        let input = self.width(x, None, path)?;
        let weights = self.weight_and_bias(path, &[out, input], bias.then_some(out))?;
        self.node(path, Op::Linear {}, &[x], &weights)
    }

    /// An embedding of `count` rows.
    pub fn embedding(&mut self, path: &str, ids: ValueId, count: usize, width: usize) -> Result<ValueId> {
        let weights = self.weight_and_bias(path, &[count, width], None)?;
        self.node(path, Op::Embedding {}, &[ids], &weights)
    }

    /// A convolution with a bias, to `out` channels with this kernel.
    pub fn conv(
        &mut self,
        path: &str,
        x: ValueId,
        out: usize,
        kernel: &[usize],
        attrs: ConvAttrs,
    ) -> Result<ValueId> {
        let channels = self.width(x, Some(1), path)?;
        let mut shape = vec![out, channels / attrs.groups.max(1)];
        shape.extend(kernel);
        let weights = self.weight_and_bias(path, &shape, Some(out))?;
        self.node(path, Op::Conv(attrs), &[x], &weights)
    }

    /// RMSNorm over the last axis.
    pub fn rms_norm(&mut self, path: &str, x: ValueId, eps: f64) -> Result<ValueId> {
        let width = self.width(x, None, path)?;
        let weights = self.weight_and_bias(path, &[width], None)?;
        self.node(path, Op::RmsNorm { eps, offset: 0.0 }, &[x], &weights)
    }

    /// LayerNorm over the last axis.
    pub fn layer_norm(&mut self, path: &str, x: ValueId, eps: f64) -> Result<ValueId> {
        let width = self.width(x, None, path)?;
        let weights = self.weight_and_bias(path, &[width], Some(width))?;
        self.node(path, Op::LayerNorm { axes: 1, eps }, &[x], &weights)
    }

    /// GroupNorm over axis 1.
    pub fn group_norm(&mut self, path: &str, x: ValueId, groups: usize, eps: f64) -> Result<ValueId> {
        let width = self.width(x, Some(1), path)?;
        let weights = self.weight_and_bias(path, &[width], Some(width))?;
        self.node(path, Op::GroupNorm { groups, eps }, &[x], &weights)
    }

    /// An element-wise function.
    pub fn activation(&mut self, path: &str, function: Activation, x: ValueId) -> Result<ValueId> {
        self.node(path, Op::Activation { function }, &[x], &[])
    }

    /// A residual join.
    pub fn add(&mut self, path: &str, operands: &[ValueId]) -> Result<ValueId> {
        self.node(path, Op::Add {}, operands, &[])
    }

    /// The graph, validated.
    pub fn finish(self) -> Result<Graph> {
        self.graph.validate()?;
        Ok(self.graph)
    }
}
