//! Which tensors an output has, under which names and types, and how each is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pomona_graph::{Expr, Graph, Op, Recipe, RecipeOutput, Slot, Term};
use pomona_store::onnx::{OnnxModel, element};
use pomona_store::{Checkpoint, Encoding, Format, TensorSpec};

use crate::error::{Result, tensor_error};
use crate::families::Family;
use crate::gguf::RowOrder;
use crate::model::{Component, Model, flipped};
use crate::recipe_exec::{WriteItem, result_of, sources};
use crate::stock::StockForm;
use crate::{ModelError, gguf, onnx};

use super::SaveOptions;

/// The tensors of an output.
pub(crate) struct Planned {
    /// In the order of writing.
    pub items: Vec<WriteItem>,
    /// How the edited graph's tensors come back from the output's.
    pub import: Recipe,
    /// Encoding of each graph tensor in the output.
    pub dtypes: BTreeMap<String, String>,
    /// The nodes, where the output is an ONNX file.
    pub onnx: Option<OnnxModel>,
}

struct Planner<'a> {
    path: PathBuf,
    checkpoint: Option<&'a Checkpoint>,
    planned: Planned,
}

impl<'a> Planner<'a> {
    fn new(path: &Path, checkpoint: Option<&'a Checkpoint>) -> Self {
        let planned =
            Planned { items: Vec::new(), import: Recipe::default(), dtypes: BTreeMap::new(), onnx: None };
        Self { path: path.to_owned(), checkpoint, planned }
    }

    /// The expression in its output type, simplified, as an item.
    fn item(
        &mut self,
        name: String,
        expr: Expr,
        choose: impl Fn(Encoding, &[usize]) -> Encoding,
    ) -> Result<&WriteItem> {
        let (shape, encoding) = result_of(&expr, self.checkpoint)?;
        let target = choose(encoding, &shape);
        let expr = if target == encoding { expr } else { expr.cast(target.name()) };
        let one = Recipe { outputs: vec![RecipeOutput { name: name.clone(), shape: shape.clone(), expr }] };
        let expr = one.simplified(&sources(self.checkpoint)).outputs.remove(0).expr;
        let spec = TensorSpec { name, encoding: target, shape };
        self.planned.items.push(WriteItem { spec, expr });
        let at = self.planned.items.len() - 1;
        Ok(&self.planned.items[at])
    }

    fn record(&mut self, tensor: &str, shape: &[usize], encoding: Encoding, import: Expr) {
        self.planned.dtypes.insert(tensor.to_owned(), encoding.name().to_owned());
        let output = RecipeOutput { name: tensor.to_owned(), shape: shape.to_vec(), expr: import };
        self.planned.import.outputs.push(output);
    }

    /// Items in the order in which their sources lie in the files, so that neighbours are copied as one range.
    fn finish(mut self) -> Planned {
        if let Some(file) = self.checkpoint {
            self.planned.items.sort_by_cached_key(|item| {
                let mut first = None;
                item.expr.visit_sources(&mut |n| first = first.or(file.get(n)));
                first.map(|t| (t.file.clone(), t.offset))
            });
        }
        self.planned
    }
}

fn expr_of<'a>(path: &Path, whole: &'a Recipe, tensor: &str) -> Result<&'a Expr> {
    let made = whole.output(tensor).map(|o| &o.expr);
    made.ok_or_else(|| tensor_error(path, tensor, "of the edited graph is not made by its recipe"))
}

/// Whether the numbers are real ones that another floating type can hold: integers and truth values never change.
fn is_float(encoding: Encoding) -> bool {
    encoding.is_plain_float() || encoding.safetensors_name().is_none() || encoding.name().starts_with('f')
}

/// Tensors for safetensors; under stock names where there is a stock form.
pub(super) fn safetensors(
    component: &Component,
    edited: &Graph,
    whole: &Recipe,
    form: Option<&StockForm>,
    dtype: Option<Encoding>,
) -> Result<Planned> {
    let mut planner = Planner::new(&component.path, component.checkpoint.as_ref());
    let known = component.known();
    for t in &edited.tensors {
        let expr = expr_of(&planner.path, whole, &t.name)?.clone();
        let name = form.map_or_else(|| t.name.clone(), |f| f.numbers.apply(&t.name));
        let turned = form.is_some() && known.is_some_and(|k| k.transposed(&t.name));
        let expr = if turned { flipped(decoded(expr, planner.checkpoint)?) } else { expr };
        let shift = form.and_then(|f| f.shifts.get(&t.name)).copied().unwrap_or(0.0);
        let expr = shifted(expr, &t.shape, shift);
        let keep = |e: Encoding| if e.safetensors_name().is_some() { e } else { Encoding::F32 };
        let choose = |e: Encoding, _: &[usize]| if is_float(e) { dtype.unwrap_or(keep(e)) } else { e };
        let encoding = planner.item(name.clone(), expr, choose)?.spec.encoding;
        let back = if turned { flipped(Expr::copy(name)) } else { Expr::copy(name) };
        planner.record(&t.name, &t.shape, encoding, back);
    }
    for name in carried(component, edited) {
        let stock = form.map_or_else(|| name.to_owned(), |f| f.numbers.apply(name));
        planner.item(stock, Expr::copy(name), |e, _| e)?;
    }
    Ok(planner.finish())
}

/// Plain numbers: blocks of a quantised encoding cannot be turned.
fn decoded(expr: Expr, checkpoint: Option<&Checkpoint>) -> Result<Expr> {
    let encoding = result_of(&expr, checkpoint)?.1;
    Ok(if encoding.is_plain_float() { expr } else { Expr::Decode { of: Box::new(expr) } })
}

/// Tensors that the graph does not read but stock loaders may ask for: counters and index tables beside the weights of an
/// operator that is still there.
pub(crate) fn carried<'a>(component: &'a Component, edited: &'a Graph) -> impl Iterator<Item = &'a str> {
    let stays = |name: &str| {
        let module = name.rsplit_once('.').map_or("", |(module, _)| module);
        edited.nodes.iter().any(|n| n.path == module)
    };
    component.unused.iter().map(String::as_str).filter(move |n| !component.is_opaque() && stays(n))
}

/// Tensors for GGUF.
pub(super) fn gguf(
    model: &Model,
    component: &Component,
    edited: &Graph,
    whole: &Recipe,
    form: &StockForm,
    dtype: Option<Encoding>,
) -> Result<Planned> {
    let from_gguf = component.checkpoint.as_ref().is_some_and(|c| c.format() == Format::Gguf);
    let mut planner = Planner::new(&component.path, component.checkpoint.as_ref());
    let family = model.family();
    let names = family.map_or(&crate::decoder::LLAMA, Family::names);
    let offsets = norm_offsets(edited);
    // llama.cpp's kernels take norms and biases as f32 only; a file that it wrote itself stays as it is.
    let choose = |e: Encoding, shape: &[usize]| match dtype {
        _ if !is_float(e) => e,
        None if from_gguf => e,
        _ if shape.len() < 2 => Encoding::F32,
        Some(d) => d,
        None if e.ggml_type().is_some() => e,
        None => Encoding::F32,
    };
    for t in &edited.tensors {
        let expr = expr_of(&planner.path, whole, &t.name)?.clone();
        let name = gguf::file_name(names, &form.numbers.apply(&t.name))
            .ok_or_else(|| tensor_error(&planner.path, &t.name, "has no name in GGUF"))?;
        let order = family.map_or(RowOrder::Same, |f| row_order(f, edited, &t.name));
        let import = order.to_graph(Expr::copy(&name));
        let offset = offsets.get(t.name.as_str()).copied().unwrap_or(0.0);
        let expr = shifted(order.to_file(expr), &t.shape, offset);
        let encoding = planner.item(name, expr, choose)?.spec.encoding;
        planner.record(&t.name, &t.shape, encoding, import);
    }
    if let Some(divisors) = gguf::rope_divisors(model, edited) {
        planner.item(gguf::ROPE_FREQS.to_owned(), divisors, |e, _| e)?;
    }
    Ok(planner.finish())
}

/// Tensors for ONNX: those that every node reads, in the layouts that ONNX's operators have.
pub(super) fn onnx(
    component: &Component,
    edited: &Graph,
    whole: &Recipe,
    options: &SaveOptions,
) -> Result<Planned> {
    let mut planner = Planner::new(&component.path, component.checkpoint.as_ref());
    let choose = |e: Encoding, _: &[usize]| match e {
        _ if is_float(e) && options.dtype.is_some() => options.dtype.unwrap_or(Encoding::F32),
        Encoding::F64 => Encoding::F32,
        _ if is_float(e) && !matches!(e, Encoding::F32 | Encoding::F16 | Encoding::Bf16) => Encoding::F32,
        _ if element::of(e).is_none() => Encoding::F32,
        _ => e,
    };
    let mut encodings = BTreeMap::new();
    for t in &edited.tensors {
        let (shape, found) = result_of(expr_of(&planner.path, whole, &t.name)?, planner.checkpoint)?;
        encodings.insert(t.name.clone(), choose(found, &shape));
    }
    let exported = onnx::write_graph(component, edited, options.opset, &encodings);
    let exported = exported.map_err(|reasons| ModelError::Unrepresentable {
        format: "ONNX".to_owned(),
        reasons,
        instead: "--format pomona holds every graph".to_owned(),
    })?;
    for t in &edited.tensors {
        let plain = onnx::export::Stored::plain(&t.name);
        let stored = exported.tensors.iter().find(|s| s.tensor == t.name).unwrap_or(&plain);
        let expr = stored.write(expr_of(&planner.path, whole, &t.name)?.clone(), &t.shape);
        let encoding = planner.item(stored.name.clone(), expr, choose)?.spec.encoding;
        planner.record(&t.name, &t.shape, encoding, stored.read(&t.shape));
    }
    let mut planned = planner.finish();
    planned.onnx = Some(exported.model);
    Ok(planned)
}

/// How the rows of a tensor lie in GGUF: by the attention of its block, whose heads may be fewer than the config's.
fn row_order(family: &Family, graph: &Graph, tensor: &str) -> RowOrder {
    let names = family.names();
    let inside = tensor.strip_prefix(names.blocks).and_then(|r| r.strip_prefix('.'));
    let Some((block, _)) = inside.and_then(|r| r.split_once('.')) else { return RowOrder::Same };
    let at = |name: &str| format!("{}.{block}.{}.{name}", names.blocks, names.attention);
    let Some(node) = graph.find_node(&at("attention")) else { return RowOrder::Same };
    let Op::Attention(a) = &graph.node(node).op else { return RowOrder::Same };
    let width = graph.node(node).inputs.first().and_then(|v| graph.value(*v).shape.last()?.as_int());
    let head = width.and_then(|w| usize::try_from(w).ok()).map_or(0, |w| w / a.heads.max(1));
    RowOrder::of(family, tensor, (a.heads, a.kv_heads, head))
}

/// What is added to the stored weights of RMSNorms, by tensor, where it is not zero.
pub(crate) fn norm_offsets(graph: &Graph) -> BTreeMap<&str, f64> {
    let mut out = BTreeMap::new();
    for n in &graph.nodes {
        if let (Op::RmsNorm { offset, .. }, Some(t)) = (&n.op, n.weights.get(&Slot::Weight))
            && *offset != 0.0
        {
            out.insert(graph.tensor(*t).name.as_str(), *offset);
        }
    }
    out
}

/// `expr + by`, of a vector, in f32: rounding to the source's type would lose what it keeps beside a large number.
fn shifted(expr: Expr, shape: &[usize], by: f64) -> Expr {
    if by == 0.0 {
        return expr;
    }
    let values = vec![by as f32; shape.iter().product()];
    let term = |e| Term { weight: 1.0, product: vec![e] };
    Expr::WeightedSum { terms: vec![term(expr), term(Expr::Literal { values, shape: shape.to_vec() })] }
}

/// The encoding that holds most bytes: what the output calls its type.
pub(crate) fn main_encoding(planned: &Planned) -> Option<Encoding> {
    let mut bytes: BTreeMap<Encoding, u64> = BTreeMap::new();
    for item in &planned.items {
        *bytes.entry(item.spec.encoding).or_default() +=
            item.spec.encoding.bytes_for(&item.spec.shape).unwrap_or(0);
    }
    bytes.into_iter().max_by_key(|(_, n)| *n).map(|(e, _)| e)
}
