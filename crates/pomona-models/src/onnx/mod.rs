//! ONNX: files to graphs ([`import()`]) and graphs to files ([`export`]).
//!
//! The importer walks the nodes once. What is known without data (shapes, axes, scalars; symbolic sizes too) is folded
//! while it goes, everything else becomes an operator of the graph; then decomposed operators are fused. What the graph has
//! no operator for is collected, so that one message lists all of it.

mod args;
mod clean;
mod context;
pub(crate) mod export;
mod fold;
mod fuse;
mod homes;
mod host;
mod inline;
mod names;
mod ops;
mod rounding;
mod walk;

use std::collections::{BTreeMap, HashSet};

use pomona_graph::{Bindings, Expr, Graph, Recipe, RecipeOutput};
use pomona_store::onnx::{OnnxGraph, element};
use pomona_store::{Checkpoint, Encoding};
use serde_json::{Value, json};

use crate::error::{ModelError, Result, file_error};
use crate::model::Component;

/// Where the config of a model that came as ONNX says so.
pub(crate) const CONFIG_KEY: &str = "onnx";
/// Operator sets that are read.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=22;
/// Operator sets that are written.
const WRITTEN: std::ops::RangeInclusive<i64> = 17..=22;
/// Sizes of symbols that a file's shape arithmetic needs: those of usual networks.
const IMAGE: i64 = 224;
const TOKENS: i64 = 128;
/// Rounds of binding: each binds a symbol.
const MAX_BOUND: usize = 16;

/// What an ONNX file means.
pub(crate) struct Imported {
    pub config: Value,
    pub graph: Graph,
    pub import: Recipe,
}

/// A graph under construction: its tensors are made by these expressions.
pub(crate) struct Draft {
    pub graph: Graph,
    pub exprs: BTreeMap<String, Expr>,
    /// Numbers of small tensors that decide what a pattern is.
    pub known: BTreeMap<String, Vec<f32>>,
}

/// Reads the nodes of an opened file into a graph. Constants that are computed on the way join the checkpoint.
///
/// # Errors
/// Every operator that the graph has none for, with its nodes; a damaged file.
pub(crate) fn import(file: &mut Checkpoint) -> Result<Imported> {
    let path = file.path().to_owned();
    let Some(mut model) = file.take_onnx() else { return Err(file_error(&path, "is no ONNX file")) };
    let opset = model.opsets.iter().find(|(d, _)| d.is_empty()).map_or(1, |(_, v)| *v);
    if !OPSETS.contains(&opset) {
        let message = format!(
            "has operator set {opset}; {} to {} are read: convert it with onnx.version_converter",
            OPSETS.start(),
            OPSETS.end()
        );
        return Err(file_error(&path, message));
    }
    if model.ir_version < 3 {
        return Err(file_error(&path, format!("has IR version {}; 3 and later are read", model.ir_version)));
    }
    walk::refuse_twice(&path, &model.graph)?;
    let inlined = inline::functions(&mut model).map_err(|e| file_error(&path, e))?;
    walk::refuse_unknown(&path, &inlined)?;
    let mut bound = Bindings::new();
    let (draft, computed) = loop {
        match walk::walk(file, &inlined, opset, &bound) {
            Ok(done) => break done,
            Err(walk::Stop::Bind(symbol)) if bound.len() < MAX_BOUND => {
                let size = default_size(&symbol);
                bound.insert(symbol, size);
            }
            Err(walk::Stop::Bind(symbol)) => {
                return Err(file_error(
                    &path,
                    format!("computes with `{symbol}` and other open sizes: fix them"),
                ));
            }
            Err(walk::Stop::Error(e)) => return Err(e),
        }
    };
    for tensor in &computed {
        file.insert(tensor)?;
    }
    let mut draft = fuse::fuse(clean::clean(draft)?)?;
    homes::settle(&mut draft);
    let outputs = draft.graph.tensors.iter().map(|t| {
        let expr = draft.exprs.get(&t.name).cloned();
        let expr = expr.ok_or_else(|| file_error(&path, format!("tensor `{}` is not made", t.name)))?;
        Ok(RecipeOutput { name: t.name.clone(), shape: t.shape.clone(), expr })
    });
    let import = Recipe { outputs: outputs.collect::<Result<_>>()? };
    import.check(&|name| crate::model::source_of(Some(file), name))?;
    let config = json!({
        CONFIG_KEY: {"ir_version": model.ir_version, "opset": opset, "producer": model.producer,
            "graph": inlined.name, "bound": bound, "ports": ports(&inlined)},
    });
    Ok(Imported { config, graph: draft.graph, import })
}

/// Element types of inputs and outputs that are not what values of a graph are written as.
fn ports(graph: &OnnxGraph) -> BTreeMap<String, i32> {
    let initializers: HashSet<&str> = graph.initializers.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.inputs.iter().filter(|p| !initializers.contains(p.name.as_str()));
    let all = inputs.chain(&graph.outputs);
    let usual = [0, element::FLOAT, element::INT64, element::BOOL];
    all.filter(|p| !usual.contains(&p.element)).map(|p| (p.name.clone(), p.element)).collect()
}

/// A component's graph as ONNX: in the operator set that is asked for, or the oldest that holds it. Ports keep the types that its
/// source had.
///
/// # Errors
/// The nodes that cannot be written, each with the reason.
pub(crate) fn write_graph(
    component: &Component,
    graph: &Graph,
    opset: Option<u32>,
    encodings: &BTreeMap<String, Encoding>,
) -> std::result::Result<export::Exported, Vec<String>> {
    let found = component.config.get(CONFIG_KEY).and_then(|c| c.get("ports")).and_then(Value::as_object);
    let number = |v: &Value| v.as_i64().and_then(|n| i32::try_from(n).ok());
    let ports = found.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), number(v)?))).collect();
    let mut options = export::ExportOptions { opset: 0, ports, encodings: encodings.clone() };
    let mut reasons = Vec::new();
    for set in opset.map_or(WRITTEN, |n| n.into()..=n.into()) {
        options.opset = set;
        match export::export(graph, &options) {
            Ok(written) => return Ok(written),
            Err(found) => reasons = found,
        }
    }
    Err(reasons)
}

/// A usual size of a symbol.
fn default_size(symbol: &str) -> i64 {
    let name = symbol.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|p| name.contains(p));
    if has(&["seq", "tok", "len", "time", "frames"]) {
        TOKENS
    } else if has(&["height", "width"]) || matches!(name.as_str(), "h" | "w") {
        IMAGE
    } else {
        1
    }
}

/// An error of this file.
fn refused(path: &std::path::Path, message: String) -> ModelError {
    file_error(path, message)
}
