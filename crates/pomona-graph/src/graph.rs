//! The graph: one step of a model, without cycles and without weight data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::annotation::Annotation;
use crate::dim::{Bindings, Shape};
use crate::op::{Op, ValueType};
use crate::tensor::{Slot, TensorDef, TensorId};

/// Index into [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

/// Index into [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueId(pub u32);

/// A model component: nodes in topological order over values, with the table of tensors that they read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Component name: `model` where there is only one, else `unet`, `text_encoder`, ...
    pub name: String,
    /// What the graph is fed.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Values carried from one run to the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StatePort>,
    /// Weights, by [`TensorId`].
    pub tensors: Vec<TensorDef>,
    /// Operators in an order in which every input is ready.
    pub nodes: Vec<Node>,
    /// Types and shapes, by [`ValueId`].
    pub values: Vec<Value>,
    /// Usual sizes of the symbols in its inputs (`height` -> 64), where the importer knows them.
    #[serde(default, skip_serializing_if = "Bindings::is_empty")]
    pub defaults: Bindings,
    /// Class names of modules by path (`model.layers.0` -> `LlamaDecoderLayer`), where the importer knows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, String>,
    /// Precision, quantisation and adapters, by node path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Vec<Annotation>>,
}

/// A named input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name (`input_ids`, `sample`, `logits`).
    pub name: String,
    /// The value.
    pub value: ValueId,
}

/// State between runs: a KV cache, a recurrent state, the previous frame. Its shape is that of `input`; a symbolic
/// axis that grows (`past`) starts at 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatePort {
    /// Name (`model.layers.0.self_attn.key_cache`).
    pub name: String,
    /// What the step reads.
    pub input: ValueId,
    /// What the next step reads.
    pub output: ValueId,
    /// Every element of the first step's input.
    pub start: f64,
}

/// An operator at its module path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Path in the model that it came from, unique, kept for life.
    pub path: String,
    /// What it computes.
    #[serde(flatten)]
    pub op: Op,
    /// Values it reads.
    #[serde(default)]
    pub inputs: Vec<ValueId>,
    /// Tensors it reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<Slot, TensorId>,
    /// Values it makes.
    pub outputs: Vec<ValueId>,
}

/// Type and shape of what flows along an edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Shape, possibly symbolic.
    pub shape: Shape,
    /// Element type.
    #[serde(rename = "type")]
    pub ty: ValueType,
}

/// A value by the path of its node, as plans and taps name it: `path` for output 0, `path:1` for the next,
/// `@name` for an input of the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueRef(pub String);

impl Graph {
    /// An empty graph for component `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            states: Vec::new(),
            tensors: Vec::new(),
            nodes: Vec::new(),
            values: Vec::new(),
            defaults: Bindings::new(),
            modules: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Rank, alpha and dropout of the low-rank adapter of the node of a path, where it has one.
    pub fn adapter(&self, path: &str) -> Option<(usize, f64, f64)> {
        self.annotations.get(path)?.iter().find_map(|m| match m {
            Annotation::Adapter { rank, alpha, dropout } => Some((*rank, *alpha, *dropout)),
            _ => None,
        })
    }

    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The tensor.
    pub fn tensor(&self, id: TensorId) -> &TensorDef {
        &self.tensors[id.0 as usize]
    }

    /// Nodes with their ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(i, n)| (NodeId(i as u32), n))
    }

    /// Tensors with their ids.
    pub fn iter_tensors(&self) -> impl Iterator<Item = (TensorId, &TensorDef)> {
        self.tensors.iter().enumerate().map(|(i, t)| (TensorId(i as u32), t))
    }

    /// The node at a path.
    pub fn find_node(&self, path: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.path == path).map(|i| NodeId(i as u32))
    }

    /// The tensor of a name or alias.
    pub fn find_tensor(&self, name: &str) -> Option<TensorId> {
        self.tensors
            .iter()
            .position(|t| t.name == name || t.aliases.iter().any(|a| a == name))
            .map(|i| TensorId(i as u32))
    }

    /// The input port of a name.
    pub fn input(&self, name: &str) -> Option<ValueId> {
        self.inputs.iter().find(|p| p.name == name).map(|p| p.value)
    }

    /// The output port of a name.
    pub fn output(&self, name: &str) -> Option<ValueId> {
        self.outputs.iter().find(|p| p.name == name).map(|p| p.value)
    }

    /// For each value, the node and output number that makes it; none for inputs and states.
    pub fn producers(&self) -> Vec<Option<(NodeId, usize)>> {
        let mut out = vec![None; self.values.len()];
        for (id, node) in self.iter() {
            for (k, v) in node.outputs.iter().enumerate() {
                out[v.0 as usize] = Some((id, k));
            }
        }
        out
    }

    /// For each value, the nodes and input numbers that read it.
    pub fn consumers(&self) -> Vec<Vec<(NodeId, usize)>> {
        let mut out = vec![Vec::new(); self.values.len()];
        for (id, node) in self.iter() {
            for (k, v) in node.inputs.iter().enumerate() {
                out[v.0 as usize].push((id, k));
            }
        }
        out
    }

    /// The name of a value in plans and taps.
    pub fn value_ref(&self, id: ValueId) -> ValueRef {
        for node in &self.nodes {
            match node.outputs.iter().position(|v| *v == id) {
                Some(0) => return ValueRef(node.path.clone()),
                Some(k) => return ValueRef(format!("{}:{k}", node.path)),
                None => {}
            }
        }
        let port = self.inputs.iter().find(|p| p.value == id).map(|p| &p.name);
        let state = self.states.iter().find(|s| s.input == id).map(|s| &s.name);
        ValueRef(format!("@{}", port.or(state).map_or("?", String::as_str)))
    }

    /// The value that a name in a plan or tap means.
    pub fn resolve(&self, name: &ValueRef) -> Option<ValueId> {
        if let Some(port) = name.0.strip_prefix('@') {
            let state = || self.states.iter().find(|s| s.name == port).map(|s| s.input);
            return self.input(port).or_else(state);
        }
        if let Some(id) = self.find_node(&name.0) {
            return self.node(id).outputs.first().copied();
        }
        let (path, k) = name.0.rsplit_once(':')?;
        let node = self.node(self.find_node(path)?);
        node.outputs.get(k.parse::<usize>().ok()?).copied()
    }

    /// Elements of all parameters, each tied weight once.
    pub fn parameters(&self) -> u64 {
        let trained = |t: &&TensorDef| t.role == crate::tensor::Role::Parameter;
        self.tensors.iter().filter(trained).fold(0_u64, |n, t| n.saturating_add(t.elements()))
    }
}
