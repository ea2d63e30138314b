//! Functions that a file defines itself are written out where they are called.

use std::collections::HashMap;

use pomona_store::onnx::{OnnxAttribute, OnnxData, OnnxFunction, OnnxGraph, OnnxModel, OnnxNode, OnnxValue};

/// Calls in calls: no file nests deeper, and a function that calls itself must end.
const MAX_DEPTH: usize = 32;
/// Bytes of nodes after inlining: a small hostile file must not grow without bound.
const MAX_BYTES: usize = 32 << 20;

/// The main graph without calls of the file's own functions.
pub(super) fn functions(model: &mut OnnxModel) -> Result<OnnxGraph, String> {
    let mut out = std::mem::take(&mut model.graph);
    if model.functions.is_empty() {
        return Ok(out);
    }
    let known: HashMap<(&str, &str), &OnnxFunction> =
        model.functions.iter().map(|f| ((domain(&f.domain), f.name.as_str()), f)).collect();
    let mut nodes = Nodes { all: Vec::with_capacity(out.nodes.len()), written: 0 };
    for node in std::mem::take(&mut out.nodes) {
        expand(&known, node, 0, &mut nodes)?;
    }
    out.nodes = nodes.all;
    Ok(out)
}

fn domain(d: &str) -> &str {
    if d == "ai.onnx" { "" } else { d }
}

/// The nodes so far, and about how many bytes those of functions take.
struct Nodes {
    all: Vec<OnnxNode>,
    written: usize,
}

/// A name takes its allocation and its place.
const NAME: usize = 40;

fn bytes(node: &OnnxNode) -> usize {
    let names = node.inputs.iter().chain(&node.outputs).chain([&node.name, &node.op, &node.domain]);
    let text: usize = names.map(|n| n.len() + NAME).sum();
    let lists = node.attributes.iter().map(|a| match &a.value {
        OnnxValue::Ints(v) => 8 * v.len(),
        OnnxValue::Floats(v) => 4 * v.len(),
        OnnxValue::Tensor(t) => match &t.data {
            OnnxData::Bytes(b) => b.len(),
            _ => 0,
        },
        _ => 0,
    });
    size_of::<OnnxNode>() + text + node.attributes.len() * size_of::<OnnxAttribute>() + lists.sum::<usize>()
}

fn expand(
    known: &HashMap<(&str, &str), &OnnxFunction>,
    call: OnnxNode,
    depth: usize,
    out: &mut Nodes,
) -> Result<(), String> {
    let Some(function) = known.get(&(call.domain.as_str(), call.op.as_str())) else {
        if depth > 0 {
            out.written += bytes(&call);
        }
        if out.written > MAX_BYTES {
            return Err(format!("takes more than {MAX_BYTES} bytes once its functions are written out"));
        }
        out.all.push(call);
        return Ok(());
    };
    if depth > MAX_DEPTH {
        return Err(format!("function `{}` nests more than {MAX_DEPTH} calls", call.op));
    }
    let label = if call.name.is_empty() {
        call.outputs.first().cloned().unwrap_or_default()
    } else {
        call.name.clone()
    };
    let mut names: HashMap<&str, String> = HashMap::new();
    for (i, name) in function.inputs.iter().enumerate() {
        names.insert(name, call.inputs.get(i).cloned().unwrap_or_default());
    }
    for (name, outer) in function.outputs.iter().zip(&call.outputs) {
        names.insert(name, outer.clone());
    }
    let map = |name: &String| match names.get(name.as_str()) {
        _ if name.is_empty() => String::new(),
        Some(outer) => outer.clone(),
        None => format!("{label}/{name}"),
    };
    for inner in &function.nodes {
        let mut node = inner.clone();
        node.inputs = inner.inputs.iter().map(map).collect();
        node.outputs = inner.outputs.iter().map(map).collect();
        node.name = if inner.name.is_empty() { String::new() } else { format!("{label}/{}", inner.name) };
        node.attributes.retain_mut(|a| {
            let OnnxValue::Reference(outer) = &a.value else { return true };
            let given = call.attributes.iter().chain(&function.defaults).find(|x| x.name == *outer);
            given.is_some_and(|x| {
                a.value = x.value.clone();
                true
            })
        });
        expand(known, node, depth + 1, out)?;
    }
    Ok(())
}
