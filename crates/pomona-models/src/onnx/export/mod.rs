//! A graph as an ONNX model: every operator as nodes of operator set 17 and later, weights as initializers.
//!
//! Floating point values are f32, integers int64. Weights that are stored narrower are cast where they are read, which run
//! times fold when they load the file.

mod attention;
mod dims;
mod elementwise;
mod layout;
mod linear;
mod norms;
mod recurrent;
mod sink;
mod spatial;

use std::collections::{BTreeMap, HashMap, HashSet};

use pomona_graph::{
    Annotation, Dim, Graph, Node, Op, QuantTarget, Shape, Slot, TensorId, ValueId, ValueType,
};
use pomona_store::Encoding;
use pomona_store::onnx::{
    OnnxAttribute, OnnxDim, OnnxGraph, OnnxModel, OnnxNode, OnnxPort, OnnxTensor, OnnxValue, element,
};

pub(crate) use sink::Stored;

/// How a graph is written.
#[derive(Clone, Debug)]
pub(crate) struct ExportOptions {
    /// Operator set, 17 or later.
    pub opset: i64,
    /// Element types of inputs and outputs that are not f32 or int64, by name.
    pub ports: BTreeMap<String, i32>,
    /// Encoding of each tensor in the file.
    pub encodings: BTreeMap<String, Encoding>,
}

/// A model without its weights, and how these are stored.
pub(crate) struct Exported {
    pub model: OnnxModel,
    pub tensors: Vec<Stored>,
}

/// What a rule gives: names of the outputs, or why the operator cannot be written.
type Emit<T> = Result<T, String>;

/// Nodes under construction.
struct Writer<'g> {
    graph: &'g Graph,
    options: &'g ExportOptions,
    nodes: Vec<OnnxNode>,
    small: Vec<OnnxTensor>,
    stored: Vec<Stored>,
    /// Names in the file by tensor of the graph.
    initializers: HashMap<TensorId, String>,
    /// Names of read forms of tensors: cast, transposed, rounded.
    read: HashMap<(TensorId, String), String>,
    values: HashMap<ValueId, String>,
    constants: HashMap<String, String>,
    dims: HashMap<Dim, String>,
    used: HashSet<String>,
    /// Tensors whose only use is a Linear's weight: these are stored transposed, as MatMul reads them.
    linear_only: HashSet<TensorId>,
}

/// The model of a graph.
///
/// # Errors
/// The nodes that ONNX has no operators for, each with the reason.
pub(crate) fn export(graph: &Graph, options: &ExportOptions) -> Result<Exported, Vec<String>> {
    let mut w = Writer::new(graph, options);
    let mut problems = Vec::new();
    w.ports_in();
    for node in &graph.nodes {
        if let Err(why) = w.node(node) {
            problems.push(format!("`{}` ({}) {why}", node.path, node.op.name()));
            // What reads it is written all the same, so that every problem is found.
            for (k, v) in node.outputs.iter().enumerate() {
                w.values.entry(*v).or_insert(format!("{}:{k}", node.path));
            }
        }
    }
    let outputs = w.ports_out();
    if !problems.is_empty() {
        return Err(problems);
    }
    let inputs = graph.inputs.iter().map(|p| (p.name.clone(), p.value));
    let states = graph.states.iter().map(|s| (s.name.clone(), s.input));
    let inputs = inputs.chain(states).map(|(name, v)| w.port(name, v)).collect();
    let model = OnnxModel {
        // The oldest version of the file format that has the operator set.
        ir_version: match options.opset {
            ..=18 => 8,
            19..=20 => 9,
            _ => 10,
        },
        opsets: vec![(String::new(), options.opset)],
        producer: "pomona".to_owned(),
        graph: OnnxGraph {
            name: graph.name.clone(),
            nodes: w.nodes,
            inputs,
            outputs,
            initializers: w.small,
            unread: Vec::new(),
        },
        functions: Vec::new(),
    };
    Ok(Exported { model, tensors: w.stored })
}

impl<'g> Writer<'g> {
    fn new(graph: &'g Graph, options: &'g ExportOptions) -> Self {
        let mut uses: HashMap<TensorId, (usize, usize)> = HashMap::new();
        for node in &graph.nodes {
            for (slot, t) in &node.weights {
                let e = uses.entry(*t).or_default();
                e.0 += 1;
                e.1 += usize::from(matches!(node.op, Op::Linear {}) && *slot == Slot::Weight);
            }
        }
        let linear_only =
            uses.into_iter().filter(|(_, (all, linear))| all == linear).map(|(t, _)| t).collect();
        let mut used: HashSet<String> = graph.inputs.iter().map(|p| p.name.clone()).collect();
        used.extend(graph.outputs.iter().flat_map(|p| [p.name.clone(), format!("out_{}", p.name)]));
        used.extend(graph.states.iter().flat_map(|s| [s.name.clone(), next_name(&s.name)]));
        used.extend(graph.tensors.iter().map(|t| t.name.clone()));
        Self {
            graph,
            options,
            nodes: Vec::new(),
            small: Vec::new(),
            stored: Vec::new(),
            initializers: HashMap::new(),
            read: HashMap::new(),
            values: HashMap::new(),
            constants: HashMap::new(),
            dims: HashMap::new(),
            used,
            linear_only,
        }
    }

    /// A free name.
    fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = 1;
        while name.is_empty() || !self.used.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}_{n}");
        }
        name
    }

    fn shape(&self, v: ValueId) -> &'g Shape {
        &self.graph.value(v).shape
    }

    fn rank(&self, v: ValueId) -> usize {
        self.shape(v).len()
    }

    fn ty(&self, v: ValueId) -> ValueType {
        self.graph.value(v).ty
    }

    /// The name of a value that is there.
    fn value(&self, v: ValueId) -> Emit<String> {
        self.values.get(&v).cloned().ok_or_else(|| format!("reads value {} before it is made", v.0))
    }

    /// The n-th input of a node, rounded where an annotation says so.
    fn input(&mut self, node: &Node, i: usize) -> Emit<String> {
        let v = *node.inputs.get(i).ok_or_else(|| format!("has no input {i}"))?;
        let name = self.value(v)?;
        self.rounded(node, &QuantTarget::Input(i), name, None)
    }

    /// A node; gives the name of its first output.
    fn emit(&mut self, op: &str, inputs: &[&str], name: &str, attributes: Vec<OnnxAttribute>) -> String {
        let out = self.fresh(name);
        self.emit_as(op, inputs, std::slice::from_ref(&out), attributes);
        out
    }

    fn emit_as(&mut self, op: &str, inputs: &[&str], outputs: &[String], attributes: Vec<OnnxAttribute>) {
        // Optional inputs at the end are left out, those before them have an empty name.
        let last = inputs.iter().rposition(|i| !i.is_empty()).map_or(0, |i| i + 1);
        self.nodes.push(OnnxNode {
            name: outputs.first().cloned().unwrap_or_default(),
            op: op.to_owned(),
            domain: String::new(),
            inputs: inputs[..last].iter().map(|i| (*i).to_owned()).collect(),
            outputs: outputs.to_vec(),
            attributes,
            scopes: Vec::new(),
            classes: Vec::new(),
        });
    }

    /// Name of a node's k-th output: its path, or the port's name where it is an output of the graph.
    fn claim(&mut self, node: &Node, k: usize) -> String {
        let v = node.outputs[k];
        if let Some(name) = self.values.get(&v) {
            return name.clone();
        }
        let port = self.graph.outputs.iter().find(|p| p.value == v).map(|p| p.name.clone());
        let name = match port.map(|n| self.out_name(&n)).filter(|n| !self.options.ports.contains_key(n)) {
            // Rounded outputs get the port's name after the rounding.
            Some(name) if self.note(node, &QuantTarget::Output(k)).is_none() => name,
            _ => {
                let wanted = if k == 0 { node.path.clone() } else { format!("{}:{k}", node.path) };
                self.fresh(&wanted)
            }
        };
        self.values.insert(v, name.clone());
        name
    }

    /// The node that gives output 0.
    fn finish(&mut self, node: &Node, op: &str, inputs: &[&str], attributes: Vec<OnnxAttribute>) {
        let out = self.claim(node, 0);
        self.emit_as(op, inputs, &[out], attributes);
    }

    /// Output 0 is a value that is there already.
    fn same(&mut self, node: &Node, name: &str) {
        self.finish(node, "Identity", &[name], vec![]);
    }

    fn node(&mut self, node: &Node) -> Emit<()> {
        match &node.op {
            Op::Linear {} | Op::MatMul { .. } | Op::Embedding {} => self.linear(node)?,
            Op::Conv(_) | Op::ConvTranspose { .. } | Op::Pool { .. } | Op::AdaptivePool { .. } => {
                self.spatial(node)?
            }
            Op::Resize { .. } | Op::PixelShuffle { .. } => self.spatial(node)?,
            Op::LayerNorm { .. }
            | Op::RmsNorm { .. }
            | Op::GroupNorm { .. }
            | Op::BatchNorm { .. }
            | Op::InstanceNorm { .. } => self.norm(node)?,
            Op::Attention(a) => self.attention(node, a)?,
            Op::Rope(a) => self.rope(node, a)?,
            Op::Recurrent { .. } => self.recurrent(node)?,
            Op::Activation { .. }
            | Op::PRelu {}
            | Op::Binary { .. }
            | Op::Scalar { .. }
            | Op::Add {}
            | Op::Where {}
            | Op::Clip { .. }
            | Op::Cast { .. }
            | Op::Sinusoid { .. }
            | Op::Softmax { .. }
            | Op::Dropout { .. } => self.elementwise(node)?,
            _ => self.layout(node)?,
        }
        for k in 0..node.outputs.len() {
            self.round_output(node, k)?;
        }
        Ok(())
    }

    fn ports_in(&mut self) {
        let ports = self.graph.inputs.iter().map(|p| (&p.name, p.value));
        let all: Vec<_> = ports.chain(self.graph.states.iter().map(|s| (&s.name, s.input))).collect();
        for (name, v) in all {
            let own = self.own_type(v);
            let name = match self.options.ports.get(name) {
                Some(t) if *t != own => {
                    self.emit("Cast", &[name], &format!("{name}.cast"), vec![int("to", own.into())])
                }
                _ => name.clone(),
            };
            self.values.insert(v, name);
        }
    }

    /// Name of an output: in ONNX it may not be an input's too (`sample` goes in, `out_sample` comes out).
    fn out_name(&self, name: &str) -> String {
        let inputs = self.graph.inputs.iter().map(|p| &p.name);
        let taken = inputs.chain(self.graph.states.iter().map(|s| &s.name)).any(|n| n == name);
        if taken { format!("out_{name}") } else { name.to_owned() }
    }

    fn own_type(&self, v: ValueId) -> i32 {
        element_of(self.ty(v))
    }

    /// Ports of the outputs. Values that several ports name, or that are inputs, are passed through a node.
    fn ports_out(&mut self) -> Vec<OnnxPort> {
        let ports = self.graph.outputs.iter().map(|p| (self.out_name(&p.name), p.value));
        let states = self.graph.states.iter().map(|s| (next_name(&s.name), s.output));
        let all: Vec<_> = ports.chain(states).collect();
        let mut out = Vec::new();
        for (name, v) in all {
            let found = self.values.get(&v).cloned().unwrap_or_default();
            let own = self.own_type(v);
            match self.options.ports.get(&name) {
                Some(t) if *t != own => {
                    let to = int("to", (*t).into());
                    self.emit_as("Cast", &[&found], std::slice::from_ref(&name), vec![to]);
                }
                _ if found != name => {
                    self.emit_as("Identity", &[&found], std::slice::from_ref(&name), vec![])
                }
                _ => {}
            }
            out.push(self.port(name, v));
        }
        out
    }

    fn port(&self, name: String, v: ValueId) -> OnnxPort {
        let dims = self.shape(v).iter().map(|d| match d.as_int() {
            Some(n) => OnnxDim::Size(n),
            None => OnnxDim::Name(d.to_string()),
        });
        let element = self.options.ports.get(&name).copied().unwrap_or(self.own_type(v));
        OnnxPort { name, element, shape: Some(dims.collect()) }
    }

    fn note(&self, node: &Node, target: &QuantTarget) -> Option<&'g Annotation> {
        let notes = self.graph.annotations.get(&node.path)?;
        notes.iter().find(|n| matches!(n, Annotation::Quantisation { target: t, .. } if t == target))
    }

    /// The value through a QuantizeLinear and a DequantizeLinear where the node has such an annotation.
    fn rounded(
        &mut self,
        node: &Node,
        target: &QuantTarget,
        name: String,
        turned: Option<usize>,
    ) -> Emit<String> {
        let Some(Annotation::Quantisation { bits, signed, axis, block, scales, zero_points, .. }) =
            self.note(node, target).cloned()
        else {
            return Ok(name);
        };
        if block.is_some() {
            return Err(
                "is rounded in blocks along its last axis, which QuantizeLinear does not do here".to_owned()
            );
        }
        let encoding = match (bits, signed) {
            (8, true) => Encoding::I8,
            (8, false) => Encoding::U8,
            (16, true) if self.options.opset >= 21 => Encoding::I16,
            (16, false) if self.options.opset >= 21 => Encoding::U16,
            _ => {
                return Err(format!(
                    "is rounded to {bits} bits, which operator set {} does not have",
                    self.options.opset
                ));
            }
        };
        let shape: Vec<usize> = if axis.is_some() { vec![scales.len()] } else { vec![] };
        let width = if bits == 8 { 1 } else { 2 };
        let zeros =
            (0..scales.len()).map(|i| zero_points.get(i).or(zero_points.first()).copied().unwrap_or(0));
        let zeros: Vec<u8> = zeros.flat_map(|z| z.to_le_bytes()[..width].to_vec()).collect();
        let bytes = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        let scale = self.constant(&format!("{name}.scale"), Encoding::F32, &shape, bytes);
        let zero = self.constant(&format!("{name}.zero_point"), encoding, &shape, zeros);
        let mut attributes = vec![];
        if let Some(axis) = axis {
            attributes.push(int("axis", turned.map_or(axis, |_| 1 - axis.min(1)) as i64));
        }
        let q = self.emit(
            "QuantizeLinear",
            &[&name, &scale, &zero],
            &format!("{name}.quantized"),
            attributes.clone(),
        );
        Ok(self.emit("DequantizeLinear", &[&q, &scale, &zero], &format!("{name}.rounded"), attributes))
    }

    fn round_output(&mut self, node: &Node, k: usize) -> Emit<()> {
        let target = QuantTarget::Output(k);
        if self.note(node, &target).is_none() {
            return Ok(());
        }
        let name = self.value(node.outputs[k])?;
        let name = self.rounded(node, &target, name, None)?;
        self.values.insert(node.outputs[k], name);
        Ok(())
    }
}

/// The output that becomes a state's next input.
fn next_name(state: &str) -> String {
    format!("{state}.next")
}

fn element_of(ty: ValueType) -> i32 {
    match ty {
        ValueType::Float => element::FLOAT,
        ValueType::Int => element::INT64,
        ValueType::Bool => element::BOOL,
    }
}

fn int(name: &str, v: i64) -> OnnxAttribute {
    OnnxAttribute { name: name.to_owned(), value: OnnxValue::Int(v) }
}

fn ints(name: &str, v: impl IntoIterator<Item = usize>) -> OnnxAttribute {
    let v = v.into_iter().map(|x| x as i64).collect();
    OnnxAttribute { name: name.to_owned(), value: OnnxValue::Ints(v) }
}

fn float(name: &str, v: f64) -> OnnxAttribute {
    OnnxAttribute { name: name.to_owned(), value: OnnxValue::Float(v as f32) }
}

fn text(name: &str, v: &str) -> OnnxAttribute {
    OnnxAttribute { name: name.to_owned(), value: OnnxValue::Text(v.to_owned()) }
}
