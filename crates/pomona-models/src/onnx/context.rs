//! What a lowering rule works with: the names it reads, the graph it grows, the tensors it registers.

use std::collections::{BTreeMap, HashMap, HashSet};

use pomona_graph::{
    Bindings, Dim, Expr, GraphBuilder, GraphError, Op, Role, Shape, Slot, TensorId, ValueId, ValueType,
};
use pomona_store::onnx::{OnnxData, OnnxNode, OnnxTensor, OnnxValue, element};
use pomona_store::{Checkpoint, Encoding, TensorInfo, decode};

use super::host::{Data, Host, LIMIT, MEMORY};
use super::names::Names;
use super::ops::Rounding;

/// Most elements that are remembered.
const SMALL: usize = 4096;

/// Why a node could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// It does what no operator of the graph does.
    Unsupported(String),
    /// It needs sizes of these symbols.
    Bind(Vec<String>),
    /// The graph refused it.
    Graph(GraphError),
}

impl From<GraphError> for Fault {
    fn from(e: GraphError) -> Self {
        Fault::Graph(e)
    }
}

pub(super) type Lower<T> = Result<T, Fault>;

pub(super) fn unsupported<T>(why: impl Into<String>) -> Lower<T> {
    Err(Fault::Unsupported(why.into()))
}

/// A tensor of the file, possibly rearranged.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    /// Its name in the file.
    pub name: String,
    pub expr: Expr,
    pub shape: Vec<usize>,
    pub encoding: Encoding,
}

impl Weight {
    pub(super) fn reshape(&self, shape: Vec<usize>) -> Weight {
        let expr = Expr::Reshape { shape: shape.clone(), of: Box::new(self.expr.clone()) };
        let same = shape == self.shape;
        Weight { expr: if same { self.expr.clone() } else { expr }, shape, ..self.clone() }
    }

    pub(super) fn transpose(&self, axes: &[usize]) -> Weight {
        let expr = match &self.expr {
            // What an exporter turned for its own operator turns back: a tied weight stays one tensor.
            Expr::Transpose { axes: inner, of } if axes.iter().enumerate().all(|(i, a)| inner[*a] == i) => {
                (**of).clone()
            }
            expr => Expr::Transpose { axes: axes.to_vec(), of: Box::new(expr.clone()) },
        };
        Weight { expr, shape: axes.iter().map(|a| self.shape[*a]).collect(), ..self.clone() }
    }

    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn ty(&self) -> ValueType {
        match self.encoding {
            Encoding::Bool => ValueType::Bool,
            e if e.is_plain_float() || e.name().starts_with('f') => ValueType::Float,
            _ => ValueType::Int,
        }
    }
}

/// What a name of the file stands for.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Host(Host),
    Weight(Weight),
    Value(ValueId),
    /// A node that makes it could not be read.
    Unknown,
}

/// Everything a rule may touch.
pub(super) struct Context<'a> {
    pub file: &'a Checkpoint,
    pub builder: GraphBuilder,
    pub opset: i64,
    pub entries: HashMap<String, Entry>,
    pub names: Names,
    pub bindings: Bindings,
    /// How each tensor of the graph is made.
    pub exprs: BTreeMap<String, Expr>,
    /// Constants that are not tensors of the file: they join the checkpoint when all is read.
    pub computed: Vec<OnnxTensor>,
    /// Numbers of small tensors by their names in the graph.
    pub known: BTreeMap<String, Vec<f32>>,
    /// Outputs of QuantizeLinear, and how they round.
    pub quantized: HashMap<String, Rounding>,
    /// Names whose readers see rounded numbers.
    pub rounded: HashMap<String, Rounding>,
    /// Those of them that are constants whose stored numbers are not rounded yet.
    pub unrounded: HashSet<String>,
    /// Element types of constants that stand in attributes.
    pub stored: HashMap<String, Encoding>,
    constants: HashMap<String, ValueId>,
    /// Memory that worked out values may still take.
    left: usize,
    /// Names that `computed` may not take.
    taken: HashSet<String>,
}

/// A node with what its inputs stand for.
pub(super) struct Call<'n> {
    pub node: &'n OnnxNode,
    /// Path of the graph node that gives the output.
    pub path: String,
}

impl<'a> Context<'a> {
    pub(super) fn new(file: &'a Checkpoint, opset: i64, bindings: Bindings) -> Self {
        Self {
            file,
            builder: GraphBuilder::new("model", "f32"),
            opset,
            entries: HashMap::new(),
            left: MEMORY,
            names: Names::default(),
            bindings,
            exprs: BTreeMap::new(),
            computed: Vec::new(),
            known: BTreeMap::new(),
            quantized: HashMap::new(),
            rounded: HashMap::new(),
            unrounded: HashSet::new(),
            stored: HashMap::new(),
            constants: HashMap::new(),
            taken: file.names().map(str::to_owned).collect(),
        }
    }

    pub(super) fn entry(&self, name: &str) -> Lower<&Entry> {
        match self.entries.get(name) {
            Some(e) => Ok(e),
            None => unsupported(format!("reads `{name}`, which nothing makes")),
        }
    }

    /// The name of the i-th input, where it is there.
    pub(super) fn name<'n>(&self, c: &Call<'n>, i: usize) -> Option<&'n str> {
        c.node.inputs.get(i).map(String::as_str).filter(|n| !n.is_empty())
    }

    /// The i-th input where it is known, small tensors of the file included.
    pub(super) fn host(&self, c: &Call<'_>, i: usize) -> Option<Host> {
        self.host_of(self.name(c, i)?)
    }

    /// Counts what a worked out value takes; false where it would be too much.
    pub(super) fn afford(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    pub(super) fn host_of(&self, name: &str) -> Option<Host> {
        match self.entries.get(name)? {
            Entry::Host(h) => Some(h.clone()),
            Entry::Weight(w) if w.elements() <= LIMIT => self.read(w),
            _ => None,
        }
    }

    /// Whether a name is known without running anything.
    pub(super) fn is_constant(&self, name: &str) -> bool {
        matches!(self.entries.get(name), Some(Entry::Host(_) | Entry::Weight(_)))
    }

    /// All elements of a tensor of the file, however large.
    pub(super) fn floats(&self, w: &Weight) -> Option<Vec<f32>> {
        crate::recipe_exec::materialise(&w.expr, Some(self.file)).ok()
    }

    /// Stored type of a constant.
    pub(super) fn encoding_of(&self, name: &str) -> Option<Encoding> {
        match self.entries.get(name)? {
            Entry::Weight(w) => Some(w.encoding),
            _ => self.stored.get(name).copied(),
        }
    }

    /// A tensor of computed numbers, which joins the checkpoint.
    pub(super) fn computed_floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Lower<Weight> {
        let name = self.free_name(&format!("{name}.dequantized"));
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.computed.push(OnnxTensor {
            name: name.clone(),
            element: element::FLOAT,
            shape: shape.iter().map(|d| *d as i64).collect(),
            data: OnnxData::Bytes(bytes),
        });
        Ok(Weight { expr: Expr::copy(&name), name, shape: shape.to_vec(), encoding: Encoding::F32 })
    }

    fn read(&self, w: &Weight) -> Option<Host> {
        let Expr::Copy { name } = &w.expr else {
            let values = crate::recipe_exec::materialise(&w.expr, Some(self.file)).ok()?;
            return Some(host_of_floats(w, values));
        };
        let info = self.file.get(name)?;
        Some(host_of_bytes(w.encoding, &w.shape, self.file.bytes(info).ok()?))
    }

    /// A small tensor of an attribute. Its shape may be left out for a single element.
    pub(super) fn small(&self, t: &OnnxTensor, encoding: Encoding, shape: &[usize]) -> Option<Host> {
        let needed = usize::try_from(encoding.bytes_for(shape).ok()?).ok()?;
        let bytes = match &t.data {
            OnnxData::Bytes(b) => b.get(..needed)?,
            OnnxData::Here { offset, len } => {
                let info = TensorInfo {
                    name: String::new(),
                    shape: shape.to_vec(),
                    encoding,
                    file: self.file.path().to_owned(),
                    offset: *offset,
                    len: *len,
                };
                self.file.bytes(&info).ok()?.get(..needed)?
            }
            OnnxData::None if needed == 0 => &[],
            _ => return None,
        };
        Some(host_of_bytes(encoding, shape, bytes))
    }

    pub(super) fn weight(&self, c: &Call<'_>, i: usize) -> Option<Weight> {
        match self.entries.get(self.name(c, i)?)? {
            Entry::Weight(w) => Some(w.clone()),
            _ => None,
        }
    }

    /// The i-th input as a tensor of the file; a known value becomes one.
    pub(super) fn need_weight(&mut self, c: &Call<'_>, i: usize) -> Lower<Weight> {
        let Some(name) = self.name(c, i) else { return unsupported(format!("has no input {i}")) };
        match self.entry(name)?.clone() {
            Entry::Weight(w) => Ok(w),
            Entry::Host(h) => self.computed_weight(&c.path, &h),
            _ => unsupported(format!("input {i} (`{name}`) is computed: a constant was expected")),
        }
    }

    /// A tensor of a known value, which joins the checkpoint.
    pub(super) fn computed_weight(&mut self, path: &str, host: &Host) -> Lower<Weight> {
        let mut bytes = Vec::new();
        let encoding = match &host.data {
            Data::Ints(_) => {
                host.i64s()?.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
                Encoding::I64
            }
            Data::Floats(v) => {
                v.iter().for_each(|v| bytes.extend((*v as f32).to_le_bytes()));
                Encoding::F32
            }
            Data::Bools(v) => {
                bytes.extend(v.iter().map(|b| u8::from(*b)));
                Encoding::Bool
            }
        };
        let name = self.free_name(&format!("{path}.constant"));
        let tensor = OnnxTensor {
            name: name.clone(),
            element: element::of(encoding).unwrap_or_default(),
            shape: host.shape.iter().map(|d| *d as i64).collect(),
            data: OnnxData::Bytes(bytes),
        };
        self.computed.push(tensor);
        Ok(Weight { expr: Expr::copy(&name), name, shape: host.shape.clone(), encoding })
    }

    /// A name that no tensor of the file has.
    pub(super) fn free_name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = 1;
        while !self.taken.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}_{n}");
        }
        name
    }

    /// Registers a tensor of a node. The same tensor in the same layout is one, with several uses.
    pub(super) fn tensor(&mut self, path: &str, slot: &str, w: &Weight, role: Role) -> Lower<TensorId> {
        // The kernels take widened numbers; the recipe keeps what the file has.
        let wanted = if is_anonymous(&w.name) { format!("{path}.{slot}") } else { w.name.clone() };
        let mut name = wanted.clone();
        let mut n = 1;
        while self.exprs.get(&name).is_some_and(|e| *e != w.expr) {
            n += 1;
            name = format!("{wanted}.{n}");
        }
        if let Some((known, _)) = self.exprs.iter().find(|(k, e)| **e == w.expr && k.starts_with(&wanted)) {
            name.clone_from(known);
        }
        let id = self.builder.tensor(&name, &w.shape, w.encoding.name(), role)?;
        self.exprs.insert(name, w.expr.clone());
        Ok(id)
    }

    /// Keeps a small tensor's numbers for the patterns that depend on them.
    pub(super) fn remember(&mut self, id: TensorId, w: &Weight) {
        let computed = self.computed.iter().find(|t| t.name == w.name && w.expr == Expr::copy(&t.name));
        let values = match computed.map(|t| &t.data) {
            Some(OnnxData::Bytes(b)) => host_of_bytes(w.encoding, &w.shape, b)
                .f64s()
                .ok()
                .map(|v| v.into_iter().map(|x| x as f32).collect()),
            _ => self.floats(w),
        };
        if w.elements() <= SMALL
            && let (Some(values), Some(name)) = (values, self.builder.tensor_name(id))
        {
            self.known.insert(name.to_owned(), values);
        }
    }

    pub(super) fn parameter(&mut self, path: &str, slot: &str, w: &Weight) -> Lower<TensorId> {
        self.tensor(path, slot, w, Role::Parameter)
    }

    /// A name as a value of the graph; constants become nodes.
    pub(super) fn value_of(&mut self, name: &str) -> Lower<ValueId> {
        match self.entry(name)?.clone() {
            Entry::Value(v) => Ok(v),
            Entry::Unknown => unsupported(format!("reads `{name}`, which could not be read")),
            Entry::Weight(w) => {
                if let Some(v) = self.constants.get(name) {
                    return Ok(*v);
                }
                let role = if w.ty() == ValueType::Float && w.elements() > 1 {
                    Role::Parameter
                } else {
                    Role::Constant
                };
                let v = self.constant(&w, role)?;
                self.constants.insert(name.to_owned(), v);
                Ok(v)
            }
            Entry::Host(h) => {
                if let Some(v) = self.constants.get(name) {
                    return Ok(*v);
                }
                let v = self.host_value(name, &h)?;
                self.constants.insert(name.to_owned(), v);
                Ok(v)
            }
        }
    }

    /// A known value as a node.
    pub(super) fn host_value(&mut self, name: &str, h: &Host) -> Lower<ValueId> {
        let base = self.names.module(name);
        if let Data::Ints(dims) = &h.data
            && dims.iter().any(|d| d.as_int().is_none())
        {
            return self.size_values(&base, dims, &h.shape);
        }
        let w = self.computed_weight(&base, h)?;
        self.constant(&w, Role::Constant)
    }

    /// Symbolic sizes as a value: the last element of `0 ..= size`, for each of them.
    fn size_values(&mut self, path: &str, dims: &[Dim], shape: &[usize]) -> Lower<ValueId> {
        let mut parts = Vec::with_capacity(dims.len());
        for d in dims {
            let end = d.checked_add(&1.into())?;
            let all = self.part(path, "range", Op::Range { end: end.clone() }, &[])?;
            let last = Op::Slice { axis: 0, start: d.clone(), end, step: 1 };
            parts.push(self.part(path, "size", last, &[all])?);
        }
        let x = match parts.as_slice() {
            [one] => *one,
            _ => self.part(path, "sizes", Op::Concat { axis: 0 }, &parts)?,
        };
        self.reshape(path, x, shape.iter().map(|n| (*n).into()).collect())
    }

    fn constant(&mut self, w: &Weight, role: Role) -> Lower<ValueId> {
        let path = self.names.unique(&super::names::tidy(&w.name));
        let id = self.tensor(&path, "value", w, role)?;
        Ok(self.builder.node(&path, Op::Constant {}, &[], &[(Slot::Weight, id)])?)
    }

    /// The i-th input as a value.
    pub(super) fn value(&mut self, c: &Call<'_>, i: usize) -> Lower<ValueId> {
        match self.name(c, i) {
            Some(name) => self.value_of(name),
            None => unsupported(format!("has no input {i}")),
        }
    }

    pub(super) fn shape(&self, v: ValueId) -> Shape {
        self.builder.shape(v).to_vec()
    }

    pub(super) fn ty(&self, v: ValueId) -> ValueType {
        self.builder.ty(v)
    }

    /// Shape of a name, whatever it stands for.
    pub(super) fn shape_of(&self, name: &str) -> Lower<Shape> {
        let of = |s: &[usize]| s.iter().map(|d| Dim::from(*d)).collect();
        match self.entry(name)? {
            Entry::Host(h) => Ok(of(&h.shape)),
            Entry::Weight(w) => Ok(of(&w.shape)),
            Entry::Value(v) => Ok(self.shape(*v)),
            Entry::Unknown => unsupported(format!("reads `{name}`, which could not be read")),
        }
    }

    /// Adds the node that gives the output.
    pub(super) fn add(
        &mut self,
        path: &str,
        op: Op,
        inputs: &[ValueId],
        weights: &[(Slot, TensorId)],
    ) -> Lower<ValueId> {
        Ok(self.builder.node(path, op, inputs, weights)?)
    }

    /// Adds a node without weights at `path.part`.
    pub(super) fn part(&mut self, path: &str, part: &str, op: Op, inputs: &[ValueId]) -> Lower<ValueId> {
        let path = self.names.unique(&format!("{path}.{part}"));
        self.add(&path, op, inputs, &[])
    }

    pub(super) fn reshape(&mut self, path: &str, x: ValueId, shape: Shape) -> Lower<ValueId> {
        if self.builder.shape(x) == shape {
            return Ok(x);
        }
        self.part(path, "reshape", Op::Reshape { shape }, &[x])
    }

    pub(super) fn transposed(&mut self, path: &str, x: ValueId, axes: Vec<usize>) -> Lower<ValueId> {
        if axes.iter().enumerate().all(|(i, a)| i == *a) {
            return Ok(x);
        }
        self.part(path, "transpose", Op::Transpose { axes }, &[x])
    }
}

fn is_anonymous(name: &str) -> bool {
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    name.starts_with("onnx::") || name.strip_prefix("val_").is_some_and(number) || number(name)
}

fn host_of_bytes(encoding: Encoding, shape: &[usize], bytes: &[u8]) -> Host {
    if encoding == Encoding::I64 {
        let int = |b: &[u8]| b.try_into().map_or(0, i64::from_le_bytes);
        return Host::ints(shape.to_vec(), bytes.chunks_exact(8).map(|b| Dim::from(int(b))).collect());
    }
    let mut values = vec![0.0; shape.iter().product()];
    decode(encoding, bytes, &mut values);
    let weight = Weight { name: String::new(), expr: Expr::copy(""), shape: shape.to_vec(), encoding };
    host_of_floats(&weight, values)
}

fn host_of_floats(w: &Weight, values: Vec<f32>) -> Host {
    let data = match w.ty() {
        ValueType::Float => Data::Floats(values.into_iter().map(f64::from).collect()),
        ValueType::Int => Data::Ints(values.into_iter().map(|v| Dim::from(v as i64)).collect()),
        ValueType::Bool => Data::Bools(values.into_iter().map(|v| v != 0.0).collect()),
    };
    Host { shape: w.shape.clone(), data }
}

impl Call<'_> {
    pub(super) fn attribute(&self, name: &str) -> Option<&OnnxValue> {
        self.node.attributes.iter().find(|a| a.name == name).map(|a| &a.value)
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            OnnxValue::Int(v) => Some(*v),
            _ => None,
        }
    }

    pub(super) fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    pub(super) fn float_or(&self, name: &str, default: f64) -> f64 {
        match self.attribute(name) {
            Some(OnnxValue::Float(v)) => shortest(*v),
            _ => default,
        }
    }

    pub(super) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        match self.attribute(name)? {
            OnnxValue::Ints(v) => Some(v.clone()),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.attribute(name)? {
            OnnxValue::Text(v) => Some(v),
            _ => None,
        }
    }
}

/// The shortest decimal that is this f32: 1e-5, not 9.999999747378752e-6.
pub(super) fn shortest(v: f32) -> f64 {
    format!("{v:e}").parse().unwrap_or(f64::from(v))
}

/// An axis from 0, of a rank.
pub(super) fn axis(axis: i64, rank: usize) -> Lower<usize> {
    let at = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    match at.and_then(|a| usize::try_from(a).ok()).filter(|a| *a < rank) {
        Some(a) => Ok(a),
        None => unsupported(format!("axis {axis} of {rank} axes")),
    }
}
