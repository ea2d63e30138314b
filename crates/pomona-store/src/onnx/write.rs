//! Writes an ONNX file, its tensors one at a time: within the file, or in one beside it.

use std::path::Path;

use super::proto::{
    OnnxAttribute, OnnxData, OnnxDim, OnnxGraph, OnnxModel, OnnxNode, OnnxPort, OnnxTensor, OnnxValue,
    element,
};
use super::wire::Message;
use crate::encoding::Encoding;
use crate::error::{Result, StoreError, tensor_error};
use crate::output::{OutputDir, PlannedFile, Stream, TensorSink, TensorSpec};

/// Protocol buffers hold less than this in one message.
const MAX_MESSAGE: u64 = i32::MAX as u64 - (64 << 20);
/// Run times map external tensors of some size from page boundaries.
const PAGE: u64 = 4096;
const LARGE: u64 = 1 << 20;
const ALIGNMENT: u64 = 64;

/// A small tensor that stands in the header: shapes, axes, scalars.
pub fn small_tensor(name: &str, encoding: Encoding, shape: &[usize], bytes: Vec<u8>) -> OnnxTensor {
    OnnxTensor {
        name: name.to_owned(),
        element: element::of(encoding).unwrap_or_default(),
        shape: shape.iter().map(|d| *d as i64).collect(),
        data: OnnxData::Bytes(bytes),
    }
}

/// Streams the tensors of the list, in its order, as initializers of `BASE.onnx`; with more than `inline_limit` bytes (or
/// more than a message holds) into `BASE.onnx.data` beside it.
pub struct OnnxWriter<'a> {
    /// The file that refers to the data, where they are outside.
    model: Option<(String, Vec<u8>)>,
    stream: Stream<'a>,
}

impl<'a> OnnxWriter<'a> {
    /// Lays out the files. Initializers that the model has already must be [`small_tensor`]s.
    ///
    /// # Errors
    /// Where ONNX does not have a tensor's encoding, or the nodes alone are larger than a file may be.
    pub fn new(
        out: &'a mut OutputDir,
        base: &str,
        model: &OnnxModel,
        specs: Vec<TensorSpec>,
        inline_limit: u64,
    ) -> Result<Self> {
        let path = out.path().join(format!("{base}.onnx"));
        let mut sizes = Vec::with_capacity(specs.len());
        for s in &specs {
            if element::of(s.encoding).is_none() {
                let message = format!("is {}, which ONNX does not have: decode it", s.encoding);
                return Err(tensor_error(&path, &s.name, message));
            }
            sizes.push(s.encoding.bytes_for(&s.shape).map_err(|e| tensor_error(&path, &s.name, e))?);
        }
        let total = sizes.iter().fold(0_u64, |n, s| n.saturating_add(*s));
        let nodes = graph(&model.graph);
        let outside = total > inline_limit || total.saturating_add(nodes.0.len() as u64) > MAX_MESSAGE;
        if nodes.0.len() as u64 > MAX_MESSAGE {
            return Err(StoreError::Format {
                path,
                message: "its nodes alone are larger than 2 GB".to_owned(),
            });
        }
        let name = format!("{base}.onnx");
        let (file, written) = if outside {
            let data = format!("{name}.data");
            let (planned, places) = external(&data, &sizes);
            let location = data.rsplit('/').next().unwrap_or(&data).to_owned();
            let mut graph = nodes;
            for ((s, size), place) in specs.iter().zip(&sizes).zip(&places) {
                let mut t = tensor_head(s);
                for (key, value) in [
                    ("location", location.clone()),
                    ("offset", place.to_string()),
                    ("length", size.to_string()),
                ] {
                    let mut entry = Message::default();
                    entry.text(1, key);
                    entry.text(2, &value);
                    t.bytes(13, &entry.0);
                }
                t.int(14, 1);
                graph.bytes(5, &t.0);
            }
            let mut head = model_head(model);
            head.bytes(7, &graph.0);
            (planned, Some((name, head.0)))
        } else {
            (inline(name, model, nodes, &specs, &sizes), None)
        };
        Ok(Self { model: written, stream: Stream::new(out, specs, sizes, vec![file]) })
    }
}

impl TensorSink for OnnxWriter<'_> {
    fn begin(&mut self, index: usize) -> Result<bool> {
        self.stream.begin(index)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write(bytes)
    }

    fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()> {
        self.stream.copy(source, offset, len)
    }

    fn end(&mut self) -> Result<()> {
        self.stream.end()
    }

    fn finish(&mut self) -> Result<()> {
        self.stream.finish()?;
        if let Some((name, bytes)) = self.model.take() {
            self.stream.out().write(&name, &bytes)?;
        }
        Ok(())
    }
}

/// One file: the graph's fields, then each tensor's header right before its data.
fn inline(
    name: String,
    model: &OnnxModel,
    nodes: Message,
    specs: &[TensorSpec],
    sizes: &[u64],
) -> PlannedFile {
    let mut leads = Vec::with_capacity(specs.len());
    let mut len = nodes.0.len() as u64;
    for (s, size) in specs.iter().zip(sizes) {
        let mut inner = tensor_head(s);
        inner.head(9, *size);
        let mut lead = Message::default();
        lead.head(5, inner.0.len() as u64 + size);
        lead.0.extend(inner.0);
        len += lead.0.len() as u64 + size;
        leads.push(lead.0);
    }
    let mut header = model_head(model);
    header.head(7, len);
    header.0.extend(nodes.0);
    let mut at = header.0.len() as u64;
    let mut places = Vec::with_capacity(specs.len());
    for (lead, size) in leads.iter().zip(sizes) {
        at += lead.len() as u64;
        places.push(at);
        at += size;
    }
    PlannedFile { name, header: header.0, tensors: 0..specs.len(), places, leads, total: at }
}

fn external(name: &str, sizes: &[u64]) -> (PlannedFile, Vec<u64>) {
    let mut places = Vec::with_capacity(sizes.len());
    let mut at = 0_u64;
    for size in sizes {
        at = at.next_multiple_of(if *size >= LARGE { PAGE } else { ALIGNMENT });
        places.push(at);
        at += size;
    }
    let file = PlannedFile {
        name: name.to_owned(),
        header: Vec::new(),
        tensors: 0..sizes.len(),
        places: places.clone(),
        leads: Vec::new(),
        total: at,
    };
    (file, places)
}

fn model_head(model: &OnnxModel) -> Message {
    let mut out = Message::default();
    out.int(1, model.ir_version);
    out.text(2, &model.producer);
    for (domain, version) in &model.opsets {
        let mut m = Message::default();
        m.text(1, domain);
        m.int(2, *version);
        out.bytes(8, &m.0);
    }
    out
}

/// Shape, type and name of a tensor, without data.
fn tensor_head(spec: &TensorSpec) -> Message {
    let mut out = Message::default();
    spec.shape.iter().for_each(|d| out.int(1, *d as i64));
    out.int(2, element::of(spec.encoding).unwrap_or_default().into());
    out.text(8, &spec.name);
    out
}

fn tensor(t: &OnnxTensor) -> Message {
    let mut out = Message::default();
    t.shape.iter().for_each(|d| out.int(1, *d));
    out.int(2, t.element.into());
    if !t.name.is_empty() {
        out.text(8, &t.name);
    }
    if let OnnxData::Bytes(b) = &t.data {
        out.bytes(9, b);
    }
    out
}

fn graph(g: &OnnxGraph) -> Message {
    let mut out = Message::default();
    for n in &g.nodes {
        out.bytes(1, &node(n).0);
    }
    out.text(2, &g.name);
    g.initializers.iter().for_each(|t| out.bytes(5, &tensor(t).0));
    g.inputs.iter().for_each(|p| out.bytes(11, &port(p).0));
    g.outputs.iter().for_each(|p| out.bytes(12, &port(p).0));
    out
}

fn node(n: &OnnxNode) -> Message {
    let mut out = Message::default();
    n.inputs.iter().for_each(|i| out.text(1, i));
    n.outputs.iter().for_each(|o| out.text(2, o));
    out.text(3, &n.name);
    out.text(4, &n.op);
    n.attributes.iter().for_each(|a| out.bytes(5, &attribute(a).0));
    if !n.domain.is_empty() {
        out.text(7, &n.domain);
    }
    out
}

fn attribute(a: &OnnxAttribute) -> Message {
    let mut out = Message::default();
    out.text(1, &a.name);
    let kind = match &a.value {
        OnnxValue::Float(v) => {
            out.float(2, *v);
            1
        }
        OnnxValue::Int(v) => {
            out.int(3, *v);
            2
        }
        OnnxValue::Text(v) => {
            out.text(4, v);
            3
        }
        OnnxValue::Tensor(t) => {
            out.bytes(5, &tensor(t).0);
            4
        }
        OnnxValue::Graph(g) => {
            out.bytes(6, &graph(g).0);
            5
        }
        OnnxValue::Floats(v) => {
            v.iter().for_each(|x| out.float(7, *x));
            6
        }
        OnnxValue::Ints(v) => {
            v.iter().for_each(|x| out.int(8, *x));
            7
        }
        OnnxValue::Texts(v) => {
            v.iter().for_each(|x| out.text(9, x));
            8
        }
        OnnxValue::Reference(_) | OnnxValue::Other => 0,
    };
    out.int(20, kind);
    out
}

fn port(p: &OnnxPort) -> Message {
    let mut shape = Message::default();
    for d in p.shape.iter().flatten() {
        let mut m = Message::default();
        match d {
            OnnxDim::Size(n) => m.int(1, *n),
            OnnxDim::Name(n) => m.text(2, n),
            OnnxDim::Unknown => {}
        }
        shape.bytes(1, &m.0);
    }
    let mut kind = Message::default();
    kind.int(1, p.element.into());
    if p.shape.is_some() {
        kind.bytes(2, &shape.0);
    }
    let mut ty = Message::default();
    ty.bytes(1, &kind.0);
    let mut out = Message::default();
    out.text(1, &p.name);
    out.bytes(2, &ty.0);
    out
}
