//! Functions that a file defines itself are written out where they are called.

use std::collections::HashMap;

use pomona_store::onnx::{OnnxFunction, OnnxGraph, OnnxModel, OnnxNode, OnnxValue};

/// Calls in calls: no file nests deeper, and a function that calls itself must end.
const MAX_DEPTH: usize = 32;
/// Nodes after inlining: a small hostile file must not grow without bound.
const MAX_NODES: usize = 1 << 20;

/// The main graph without calls of the file's own functions.
pub(super) fn functions(model: &OnnxModel) -> Result<OnnxGraph, String> {
    let mut out = model.graph.clone();
    if model.functions.is_empty() {
        return Ok(out);
    }
    let known: HashMap<(&str, &str), &OnnxFunction> =
        model.functions.iter().map(|f| ((domain(&f.domain), f.name.as_str()), f)).collect();
    let mut nodes = Vec::with_capacity(out.nodes.len());
    for node in std::mem::take(&mut out.nodes) {
        expand(&known, node, 0, &mut nodes)?;
    }
    out.nodes = nodes;
    Ok(out)
}

fn domain(d: &str) -> &str {
    if d == "ai.onnx" { "" } else { d }
}

fn expand(
    known: &HashMap<(&str, &str), &OnnxFunction>,
    call: OnnxNode,
    depth: usize,
    out: &mut Vec<OnnxNode>,
) -> Result<(), String> {
    let Some(function) = known.get(&(call.domain.as_str(), call.op.as_str())) else {
        if out.len() >= MAX_NODES {
            return Err(format!("has more than {MAX_NODES} nodes once its functions are written out"));
        }
        out.push(call);
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
