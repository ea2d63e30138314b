//! One pass over the nodes: folding, lowering, and the list of what cannot be read.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use pomona_graph::{Bindings, Dim, Graph, Shape, ValueType};
use pomona_store::Checkpoint;
use pomona_store::onnx::{OnnxDim, OnnxGraph, OnnxNode, OnnxPort, OnnxTensor, OnnxValue};

use super::context::{Call, Context, Entry, Fault, Lower, Weight, unsupported};
use super::{Draft, args, default_size, fold, ops, refused, rounding};
use crate::error::ModelError;

/// Most nodes that a message names of an operator.
const SHOWN: usize = 4;
/// Most operators that a message names.
const SHOWN_OPERATORS: usize = 100;
/// Branches in branches.
const MAX_DEPTH: usize = 16;

/// Why a walk ended early.
pub(super) enum Stop {
    /// This symbol must have a size.
    Bind(String),
    Error(ModelError),
}

impl From<ModelError> for Stop {
    fn from(e: ModelError) -> Self {
        Stop::Error(e)
    }
}

/// Refuses operators that are not read at all, all of them at once.
pub(super) fn refuse_unknown(path: &Path, graph: &OnnxGraph) -> Result<(), ModelError> {
    let mut missing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for node in graph.nodes.iter().filter(|n| !ops::is_known(&n.domain, &n.op)) {
        let op =
            if node.domain.is_empty() { node.op.clone() } else { format!("{}.{}", node.domain, node.op) };
        missing.entry(op).or_default().push(label(node));
    }
    if let Some(kind) = graph.unread.first() {
        missing.entry(kind.clone()).or_default().extend(graph.unread.iter().skip(1).map(String::as_str));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let lines = missing.iter().take(SHOWN_OPERATORS).map(|(op, nodes)| format!("{op} ({})", some(nodes)));
    let message = format!(
        "has {} operators that are not read: {}; replace them before the export, or export with another operator set",
        missing.len(),
        lines.collect::<Vec<_>>().join("; ")
    );
    Err(refused(path, message))
}

/// Refuses values that are made twice: which of them a reader means would be anybody's guess.
pub(super) fn refuse_twice(path: &Path, graph: &OnnxGraph) -> Result<(), ModelError> {
    let mut made: HashSet<&str> = graph.inputs.iter().map(|p| p.name.as_str()).collect();
    for name in graph.nodes.iter().flat_map(|n| &n.outputs).filter(|n| !n.is_empty()) {
        if !made.insert(name) {
            return Err(refused(path, format!("makes the value `{name}` twice")));
        }
    }
    Ok(())
}

fn some(nodes: &[impl AsRef<str>]) -> String {
    let mut out =
        nodes.iter().map(AsRef::as_ref).take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if nodes.len() > SHOWN {
        out += &format!(" and {} more", nodes.len() - SHOWN);
    }
    out
}

fn label(node: &OnnxNode) -> &str {
    if node.name.is_empty() { node.outputs.first().map_or("", String::as_str) } else { &node.name }
}

/// What a walk could not read: operator, node, why.
#[derive(Default)]
struct Refused(Vec<(String, String, String)>);

/// The graph of these nodes, and tensors that the checkpoint must take up.
pub(super) fn walk(
    file: &Checkpoint,
    graph: &OnnxGraph,
    opset: i64,
    bindings: &Bindings,
) -> Result<(Draft, Vec<OnnxTensor>), Stop> {
    let path = file.path();
    let mut ctx = Context::new(file, opset, bindings.clone());
    for t in &graph.initializers {
        let Some(info) = file.get(&t.name) else { continue };
        let weight = Weight {
            name: t.name.clone(),
            expr: pomona_graph::Expr::copy(&t.name),
            shape: info.shape.clone(),
            encoding: info.encoding,
        };
        ctx.entries.insert(t.name.clone(), Entry::Weight(weight));
    }
    for port in graph.inputs.iter().filter(|p| file.get(&p.name).is_none()) {
        input(&mut ctx, port).map_err(|e| stop(path, &port.name, e))?;
    }
    let mut refused_nodes = Refused::default();
    nodes(&mut ctx, &graph.nodes, 0, &mut refused_nodes)?;
    if !refused_nodes.0.is_empty() {
        return Err(report(path, &refused_nodes).into());
    }
    let mut outputs = Vec::with_capacity(graph.outputs.len());
    for port in &graph.outputs {
        outputs.push((&port.name, ctx.value_of(&port.name).map_err(|e| stop(path, &port.name, e))?));
    }
    for (name, value) in &outputs {
        let alone = outputs.iter().filter(|(_, v)| v == value).count() == 1;
        let value = rounding::output(&mut ctx, name, *value, alone).map_err(|e| stop(path, name, e))?;
        ctx.builder.output(name, value);
    }
    let (computed, exprs) = (std::mem::take(&mut ctx.computed), std::mem::take(&mut ctx.exprs));
    let known = std::mem::take(&mut ctx.known);
    let graph: Graph = ctx.builder.finish().map_err(ModelError::from)?;
    Ok((Draft { graph, exprs, known }, computed))
}

fn stop(path: &Path, name: &str, fault: Fault) -> Stop {
    match fault {
        Fault::Bind(symbols) => Stop::Bind(symbols.into_iter().next().unwrap_or_default()),
        Fault::Unsupported(why) => Stop::Error(refused(path, format!("`{name}` {why}"))),
        Fault::Graph(e) => Stop::Error(e.into()),
    }
}

fn report(path: &Path, all: &Refused) -> ModelError {
    let mut grouped: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (op, node, why) in &all.0 {
        grouped.entry((op, why)).or_default().push(node.clone());
    }
    let lines = grouped
        .iter()
        .take(SHOWN_OPERATORS)
        .map(|((op, why), nodes)| format!("{op} ({}) {why}", some(nodes)));
    refused(path, format!("cannot be read: {}", lines.collect::<Vec<_>>().join("; ")))
}

/// A name that dimension expressions can hold.
pub(super) fn symbol(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if plain.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') { plain } else { format!("d{plain}") }
}

fn input(ctx: &mut Context<'_>, port: &OnnxPort) -> Lower<()> {
    let ty = match port.element {
        0 => ValueType::Float,
        e => ops::tables::value_type(e.into())?,
    };
    let Some(dims) = &port.shape else { return unsupported("has no shape: run shape inference on the file") };
    let mut shape = Shape::new();
    for (axis, d) in dims.iter().enumerate() {
        let name = match d {
            // Some exporters write 0 for a size that is not known.
            OnnxDim::Size(n) if *n > 0 => {
                shape.push((*n).into());
                continue;
            }
            OnnxDim::Name(n) => symbol(n),
            _ => symbol(&format!("{}_{axis}", port.name)),
        };
        match ctx.bindings.get(&name) {
            Some(size) => shape.push((*size).into()),
            None => {
                let size = if axis == 0 { 1 } else { default_size(&name) };
                ctx.builder.default_size(&name, size as usize);
                shape.push(Dim::symbol(&name));
            }
        }
    }
    let value = ctx.builder.input(&port.name, shape, ty);
    ctx.entries.insert(port.name.clone(), Entry::Value(value));
    Ok(())
}

fn nodes(ctx: &mut Context<'_>, all: &[OnnxNode], depth: usize, refused: &mut Refused) -> Result<(), Stop> {
    for node in all {
        match one(ctx, node, depth, refused) {
            Ok(()) => {}
            Err(Stop::Bind(s)) => return Err(Stop::Bind(s)),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn one(ctx: &mut Context<'_>, node: &OnnxNode, depth: usize, refused: &mut Refused) -> Result<(), Stop> {
    let lost = |n: &String| matches!(ctx.entries.get(n), Some(Entry::Unknown));
    if node.inputs.iter().any(lost) {
        // What it lacks is on the list already.
        node.outputs.iter().for_each(|o| {
            ctx.entries.insert(o.clone(), Entry::Unknown);
        });
        return Ok(());
    }
    let result = if node.op == "If" && node.domain.is_empty() {
        return branch(ctx, node, depth, refused);
    } else {
        read(ctx, node)
    };
    match result {
        Ok(entries) => {
            for (name, entry) in node.outputs.iter().zip(entries) {
                if !name.is_empty() {
                    ctx.entries.insert(name.clone(), entry);
                }
            }
        }
        Err(Fault::Bind(symbols)) => {
            let open = symbols.into_iter().find(|s| !ctx.bindings.contains_key(s));
            return Err(Stop::Bind(open.unwrap_or_default()));
        }
        Err(Fault::Unsupported(why)) => lose(ctx, node, why, refused),
        Err(Fault::Graph(e)) => lose(ctx, node, e.to_string(), refused),
    }
    Ok(())
}

fn lose(ctx: &mut Context<'_>, node: &OnnxNode, why: String, refused: &mut Refused) {
    refused.0.push((node.op.clone(), label(node).to_owned(), why));
    node.outputs.iter().for_each(|o| {
        ctx.entries.insert(o.clone(), Entry::Unknown);
    });
}

fn read(ctx: &mut Context<'_>, node: &OnnxNode) -> Lower<Vec<Entry>> {
    let known = Call { node, path: String::new() };
    let first = ctx.builder.nodes().len();
    let source = node.op == "Constant" || node.op.starts_with("Random");
    if node.inputs.is_empty() && !source {
        return unsupported("has no input");
    }
    if !matches!(node.op.as_str(), "QuantizeLinear" | "DequantizeLinear")
        && let Some(entries) = fold::fold(ctx, &known)?
    {
        rounding::note(ctx, &known, &entries, first)?;
        return Ok(entries);
    }
    let path = ctx.names.path(node, ops::weight_name(ctx, node));
    for (module, class) in node.scopes.iter().zip(&node.classes).rev().skip(1).filter(|(m, _)| !m.is_empty())
    {
        let class = class.rsplit('.').next().unwrap_or(class);
        ctx.builder.module(&super::names::tidy(module), class);
    }
    let call = Call { node, path };
    let entries = ops::lower(ctx, &call)?;
    rounding::note(ctx, &call, &entries, first)?;
    Ok(entries)
}

/// A branch whose condition is known is written out; a live one is refused.
fn branch(ctx: &mut Context<'_>, node: &OnnxNode, depth: usize, refused: &mut Refused) -> Result<(), Stop> {
    let call = Call { node, path: String::new() };
    let condition = ctx.host(&call, 0).and_then(|h| h.scalar());
    let Some(condition) = condition else {
        lose(
            ctx,
            node,
            "decides while it runs; a graph is one step without control flow".to_owned(),
            refused,
        );
        return Ok(());
    };
    let name = if condition != 0.0 { "then_branch" } else { "else_branch" };
    let Some(OnnxValue::Graph(inner)) = call.attribute(name) else {
        lose(ctx, node, format!("has no {name}"), refused);
        return Ok(());
    };
    if depth > MAX_DEPTH {
        lose(ctx, node, format!("nests more than {MAX_DEPTH} branches"), refused);
        return Ok(());
    }
    for t in &inner.initializers {
        let name = t.name.clone();
        let mut tensor = t.clone();
        tensor.name = ctx.free_name(&name);
        match args::attribute_tensor(ctx, tensor) {
            Ok(entry) => {
                ctx.entries.insert(name, entry);
            }
            Err(_) => lose(ctx, node, format!("`{name}` in its branch is not read"), refused),
        }
    }
    let unknown = inner.nodes.iter().find(|n| !ops::is_known(&n.domain, &n.op));
    if let Some(n) = unknown {
        lose(ctx, node, format!("uses {} in its branch", n.op), refused);
        return Ok(());
    }
    nodes(ctx, &inner.nodes, depth + 1, refused)?;
    for (outer, port) in node.outputs.iter().zip(&inner.outputs) {
        let entry = ctx.entries.get(&port.name).cloned().unwrap_or(Entry::Unknown);
        ctx.entries.insert(outer.clone(), entry);
    }
    Ok(())
}
