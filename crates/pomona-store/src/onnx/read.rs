//! From bytes to [`OnnxModel`]. Tensor data stay in the map wherever they lie there as they are in memory.

use std::cell::Cell;
use std::ops::Range;

use super::proto::{
    OnnxAttribute, OnnxData, OnnxDim, OnnxFunction, OnnxGraph, OnnxModel, OnnxNode, OnnxPort, OnnxTensor,
    OnnxValue, element,
};
use super::wire::{Fields, Wire, packed_ints};

type Read<T> = Result<T, String>;

/// Graphs in graphs: no model nests deeper, and recursion must stay bounded on hostile files.
const MAX_DEPTH: usize = 16;

/// Memory that the description of any network may take.
const FREE_MEMORY: usize = 16 << 20;
/// Bytes of memory for each byte of the file: nodes with names take about five, a row of empty ones a hundred.
const MEMORY_PER_BYTE: usize = 4;

/// The file, and the memory that was taken for what stands in it. Tensor data stay in the file.
struct File<'a> {
    bytes: &'a [u8],
    taken: Cell<usize>,
}

impl File<'_> {
    /// Counts what something takes, refusing more than a file of this length may ask for.
    fn take(&self, bytes: usize) -> Read<()> {
        let (taken, length) = (self.taken.get().saturating_add(bytes), self.bytes.len());
        let worth = FREE_MEMORY.saturating_add(length.saturating_mul(MEMORY_PER_BYTE));
        self.taken.set(taken);
        if taken > worth {
            return Err(format!("takes more memory than {length} bytes are worth ({worth} bytes)"));
        }
        Ok(())
    }
}

/// Parses a `ModelProto`.
pub(super) fn model(bytes: &[u8]) -> Read<OnnxModel> {
    let data = &File { bytes, taken: Cell::new(0) };
    let mut out = OnnxModel::default();
    let mut fields = Fields::new(bytes, 0..bytes.len());
    let mut graphs = 0;
    while let Some(f) = fields.next()? {
        match f.number {
            1 => out.ir_version = f.value.int()?,
            2 => out.producer = text(data, &f.value)?,
            7 => {
                graph(data, f.value.range()?, 0, &mut out.graph)?;
                graphs += 1;
            }
            8 => out.opsets.push(opset(data, f.value.range()?)?),
            25 => out.functions.push(function(data, f.value.range()?)?),
            _ => {}
        }
    }
    if graphs == 0 {
        return Err("holds no graph: is this an ONNX file?".to_owned());
    }
    Ok(out)
}

fn text(data: &File<'_>, value: &Wire) -> Read<String> {
    let bytes = &data.bytes[value.range()?];
    data.take(size_of::<String>() + bytes.len())?;
    // Names are compared and printed, never interpreted: bytes that are no text become replacement characters.
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn opset(data: &File<'_>, range: Range<usize>) -> Read<(String, i64)> {
    data.take(32)?;
    let (mut domain, mut version) = (String::new(), 0);
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match f.number {
            1 => domain = text(data, &f.value)?,
            2 => version = f.value.int()?,
            _ => {}
        }
    }
    if domain == "ai.onnx" {
        domain.clear();
    }
    Ok((domain, version))
}

fn graph(data: &File<'_>, range: Range<usize>, depth: usize, out: &mut OnnxGraph) -> Read<()> {
    if depth > MAX_DEPTH {
        return Err(format!("nests more than {MAX_DEPTH} graphs"));
    }
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match f.number {
            1 => out.nodes.push(node(data, f.value.range()?, depth)?),
            2 => out.name = text(data, &f.value)?,
            5 => out.initializers.push(tensor(data, f.value.range()?)?),
            11 => out.inputs.push(port(data, f.value.range()?)?),
            12 => out.outputs.push(port(data, f.value.range()?)?),
            15 => out.unread.push("sparse_initializer".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

fn node(data: &File<'_>, range: Range<usize>, depth: usize) -> Read<OnnxNode> {
    data.take(size_of::<OnnxNode>())?;
    let mut out = OnnxNode::default();
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match f.number {
            1 => out.inputs.push(text(data, &f.value)?),
            2 => out.outputs.push(text(data, &f.value)?),
            3 => out.name = text(data, &f.value)?,
            4 => out.op = text(data, &f.value)?,
            5 => out.attributes.push(attribute(data, f.value.range()?, depth)?),
            7 => out.domain = text(data, &f.value)?,
            9 => {
                let (key, value) = entry(data, f.value.range()?)?;
                match key.as_str() {
                    "pkg.torch.onnx.name_scopes" => out.scopes = quoted(&value),
                    "pkg.torch.onnx.class_hierarchy" => out.classes = quoted(&value),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    if out.domain == "ai.onnx" {
        out.domain.clear();
    }
    Ok(out)
}

fn attribute(data: &File<'_>, range: Range<usize>, depth: usize) -> Read<OnnxAttribute> {
    data.take(size_of::<OnnxAttribute>())?;
    let mut fields = Fields::new(data.bytes, range);
    let (mut name, mut kind, mut found) = (String::new(), 0, OnnxValue::Other);
    let (mut floats, mut ints, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(f) = fields.next()? {
        match (f.number, &f.value) {
            (1, v) => name = text(data, v)?,
            (2, v) => found = OnnxValue::Float(v.float()?),
            (3, v) => found = OnnxValue::Int(v.int()?),
            (4, v) => found = OnnxValue::Text(text(data, v)?),
            (5, v) => found = OnnxValue::Tensor(tensor(data, v.range()?)?),
            (6, v) => {
                let mut inner = OnnxGraph::default();
                graph(data, v.range()?, depth + 1, &mut inner)?;
                found = OnnxValue::Graph(Box::new(inner));
            }
            (7, Wire::Bytes(r)) => floats.extend(packed_floats(data, r.clone())?),
            (7, v) => floats.push(v.float()?),
            (8, Wire::Bytes(r)) => ints.extend(numbers(data, r)?),
            (8, v) => ints.push(v.int()?),
            (9, v) => texts.push(text(data, v)?),
            (20, v) => kind = v.int()?,
            (21, v) => found = OnnxValue::Reference(text(data, v)?),
            _ => {}
        }
    }
    // A zero is not written where the writer follows proto3: the kind says what is meant.
    let value = match kind {
        _ if matches!(found, OnnxValue::Reference(_)) => found,
        1 if found == OnnxValue::Other => OnnxValue::Float(0.0),
        2 if found == OnnxValue::Other => OnnxValue::Int(0),
        3 if found == OnnxValue::Other => OnnxValue::Text(String::new()),
        6 => OnnxValue::Floats(floats),
        7 => OnnxValue::Ints(ints),
        8 => OnnxValue::Texts(texts),
        _ if found != OnnxValue::Other => found,
        _ if !ints.is_empty() => OnnxValue::Ints(ints),
        _ if !floats.is_empty() => OnnxValue::Floats(floats),
        _ if !texts.is_empty() => OnnxValue::Texts(texts),
        _ => OnnxValue::Other,
    };
    Ok(OnnxAttribute { name, value })
}

fn numbers(data: &File<'_>, range: &Range<usize>) -> Read<Vec<i64>> {
    // A number may be one byte in the file.
    data.take(8 * range.len())?;
    packed_ints(data.bytes, range.clone())
}

fn packed_floats(data: &File<'_>, range: Range<usize>) -> Read<Vec<f32>> {
    if !range.len().is_multiple_of(4) {
        return Err(format!("a list of floats has {} bytes", range.len()));
    }
    Ok(data.bytes[range].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn function(data: &File<'_>, range: Range<usize>) -> Read<OnnxFunction> {
    data.take(size_of::<OnnxFunction>())?;
    let mut out = OnnxFunction::default();
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match f.number {
            1 => out.name = text(data, &f.value)?,
            4 => out.inputs.push(text(data, &f.value)?),
            5 => out.outputs.push(text(data, &f.value)?),
            7 => out.nodes.push(node(data, f.value.range()?, 1)?),
            9 => out.opsets.push(opset(data, f.value.range()?)?),
            10 => out.domain = text(data, &f.value)?,
            11 => out.defaults.push(attribute(data, f.value.range()?, 1)?),
            _ => {}
        }
    }
    Ok(out)
}

fn port(data: &File<'_>, range: Range<usize>) -> Read<OnnxPort> {
    data.take(size_of::<OnnxPort>())?;
    let mut out = OnnxPort::default();
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match f.number {
            1 => out.name = text(data, &f.value)?,
            2 => {
                let mut kinds = Fields::new(data.bytes, f.value.range()?);
                while let Some(kind) = kinds.next()? {
                    if kind.number == 1 {
                        tensor_type(data, kind.value.range()?, &mut out)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

fn tensor_type(data: &File<'_>, range: Range<usize>, out: &mut OnnxPort) -> Read<()> {
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match f.number {
            1 => out.element = f.value.int()? as i32,
            2 => {
                let mut dims = Fields::new(data.bytes, f.value.range()?);
                let shape = out.shape.get_or_insert_default();
                while let Some(d) = dims.next()? {
                    if d.number == 1 {
                        shape.push(dim(data, d.value.range()?)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn dim(data: &File<'_>, range: Range<usize>) -> Read<OnnxDim> {
    data.take(size_of::<OnnxDim>())?;
    let mut out = OnnxDim::Unknown;
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match f.number {
            1 => out = OnnxDim::Size(f.value.int()?),
            2 => out = OnnxDim::Name(text(data, &f.value)?),
            _ => {}
        }
    }
    Ok(match out {
        OnnxDim::Name(n) if n.is_empty() => OnnxDim::Unknown,
        OnnxDim::Size(n) if n < 0 => OnnxDim::Unknown,
        other => other,
    })
}

/// Numbers of one of the typed lists.
#[derive(Default)]
struct Typed {
    ints: Vec<i64>,
    floats: Vec<f32>,
    doubles: Vec<f64>,
    /// Packed floats and doubles lie in the file as in memory.
    packed: Option<Range<usize>>,
}

fn tensor(data: &File<'_>, range: Range<usize>) -> Read<OnnxTensor> {
    data.take(size_of::<OnnxTensor>())?;
    let mut out = OnnxTensor::default();
    let mut typed = Typed::default();
    let mut raw = None;
    let (mut external, mut is_external) = (Vec::new(), false);
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match (f.number, &f.value) {
            (1, Wire::Bytes(r)) => out.shape.extend(numbers(data, r)?),
            (1, v) => out.shape.push(v.int()?),
            (2, v) => out.element = v.int()? as i32,
            (4 | 10, Wire::Bytes(r)) if typed.packed.is_none() => typed.packed = Some(r.clone()),
            (4, v) => typed.floats.push(v.float()?),
            (10, Wire::Fixed64(v)) => typed.doubles.push(f64::from_bits(*v)),
            (5 | 7 | 11, Wire::Bytes(r)) => typed.ints.extend(numbers(data, r)?),
            (5 | 7 | 11, v) => typed.ints.push(v.int()?),
            (6, _) => return Err("a tensor holds text, which no network computes with".to_owned()),
            (8, v) => out.name = text(data, v)?,
            (9, v) => raw = Some(v.range()?),
            (13, v) => external.push(entry(data, v.range()?)?),
            (14, v) => is_external = v.int()? == 1,
            _ => {}
        }
    }
    let here = |r: Range<usize>| OnnxData::Here { offset: r.start as u64, len: r.len() as u64 };
    out.data = match (is_external, raw, typed.packed.clone()) {
        (true, ..) => location(&external).map_err(|e| format!("tensor `{}`: {e}", out.name))?,
        (false, Some(r), _) => here(r),
        (false, None, Some(r)) => here(r),
        (false, None, None) => bytes_of(out.element, &typed)?,
    };
    Ok(out)
}

fn bytes_of(kind: i32, typed: &Typed) -> Read<OnnxData> {
    let mut out = Vec::new();
    if !typed.floats.is_empty() {
        typed.floats.iter().for_each(|v| out.extend(v.to_le_bytes()));
    } else if !typed.doubles.is_empty() {
        typed.doubles.iter().for_each(|v| out.extend(v.to_le_bytes()));
    } else {
        let Some(encoding) = element::encoding(kind) else {
            // Said with the tensor's name where it is used.
            return Ok(OnnxData::None);
        };
        let width = encoding.block_bytes().min(8);
        typed.ints.iter().for_each(|v| out.extend(&v.to_le_bytes()[..width]));
    }
    Ok(if out.is_empty() { OnnxData::None } else { OnnxData::Bytes(out) })
}

fn entry(data: &File<'_>, range: Range<usize>) -> Read<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    let mut fields = Fields::new(data.bytes, range);
    while let Some(f) = fields.next()? {
        match f.number {
            1 => key = text(data, &f.value)?,
            2 => value = text(data, &f.value)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The strings of a printed list: `['', 'encoder', 'encoder.0']`.
fn quoted(list: &str) -> Vec<String> {
    let inner = list.trim().trim_start_matches("['").trim_end_matches("']");
    if inner.is_empty() { Vec::new() } else { inner.split("', '").map(str::to_owned).collect() }
}

fn location(entries: &[(String, String)]) -> Read<OnnxData> {
    let find = |key: &str| entries.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let number = |key: &str| match find(key) {
        Some(v) => v.parse::<u64>().map(Some).map_err(|_| format!("its external {key} is `{v}`, no number")),
        None => Ok(None),
    };
    let location = find("location").ok_or("is stored outside the file, which does not say where")?;
    Ok(OnnxData::External {
        location: location.to_owned(),
        offset: number("offset")?.unwrap_or(0),
        len: number("length")?,
    })
}
