//! An edited model to disk: weights by recipe, config, tokenizer, card and manifest, complete or not at all.

mod card;
mod options;
mod side;
mod weights;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pomona_graph::{Graph, Op, Recipe, Slot, compose};
use pomona_store::{
    GgufWriter, OnnxWriter, OutputDir, OutputOptions, SafetensorsWriter, TensorSink, TensorSpec,
};
use serde_json::Value;

use crate::error::{ModelError, Result};
use crate::families::Known;
use crate::manifest::{self, Manifest, Origin, VERSION};
use crate::model::{Component, Model};
use crate::open::MANIFEST;
use crate::recipe_exec::{Progress, sources, write_recipe};
use crate::stock::{Loader, StockForm, stock_form};
use crate::verify::verify_output;
use crate::{gguf, onnx};
pub use options::{Figure, OutputFormat, SaveOptions, SavedReport};
pub(crate) use side::{pretty, set_dtype};
pub(crate) use weights::{Planned, carried, norm_offsets};

/// Room for headers and the index beside weights, side files and manifest.
const HEADER_BYTES: u64 = 16 << 20;
const GGUF_FILE: &str = "model.gguf";

/// Whether stock libraries (transformers, diffusers) can hold an edited graph of this model, and if not, why;
/// [`check_format`] asks for other formats.
///
/// # Errors
/// Where no component has the graph's name, or its config cannot be read.
pub fn representable(model: &Model, edited: &Graph) -> Result<std::result::Result<(), Vec<String>>> {
    let component = component_of(model, edited)?;
    Ok(stock_form(component, &model.lineage, edited, Loader::Transformers)?.map(|_| ()))
}

/// New prefixes of paths by the old ones, as a stock directory would have them; none where no stock library can hold the
/// graph. Paths that keep their name are not listed.
///
/// # Errors
/// As [`representable`].
pub fn stock_names(model: &Model, edited: &Graph) -> Result<Option<BTreeMap<String, String>>> {
    let component = component_of(model, edited)?;
    let form = stock_form(component, &model.lineage, edited, Loader::Transformers)?.ok();
    let changed = |f: StockForm| {
        // What follows from the new name of an outer module is not said again.
        let implied = |old: &str, new: &str| match old.rsplit_once('.') {
            Some((outer, last)) => format!("{}.{last}", f.numbers.apply(outer)) == new,
            None => old == new,
        };
        let pairs = f.numbers.map().iter().filter(|(old, new)| !implied(old, new));
        pairs.map(|(old, new)| (old.clone(), new.clone())).collect()
    };
    Ok(form.map(changed))
}

/// The component that a graph is an edit of.
fn component_of<'a>(model: &'a Model, edited: &Graph) -> Result<&'a Component> {
    match model.components.as_slice() {
        [one] => Ok(one),
        _ => model.component(Some(&edited.name)),
    }
}

/// The format in which `Auto` would save, or an error where the asked format cannot hold the graph. Costs nothing: said
/// before any work.
///
/// # Errors
/// [`ModelError::Unrepresentable`] with the reasons and the format that would do.
pub fn check_format(model: &Model, edited: &Graph, format: OutputFormat) -> Result<OutputFormat> {
    Ok(choose(model, component_of(model, edited)?, edited, format, None)?.0)
}

/// Refuses to leave out tensors that nobody said may go. Costs nothing: said before any work.
///
/// # Errors
/// [`ModelError::Tensor`] with the first of [`Component::left_over`] and their number.
pub fn check_unused(model: &Model, drop_unused: bool) -> Result<()> {
    for component in model.components.iter().filter(|_| !drop_unused) {
        let left_over = component.left_over();
        let Some(first) = left_over.first() else { continue };
        let more = match left_over.len() - 1 {
            0 => String::new(),
            n => format!("(and {n} more, which `pomona inspect` lists) "),
        };
        let message = format!(
            "{more}is not one that `{}` has: the output would lack what it does; --drop-unused leaves it out",
            component.architecture
        );
        let info = component.checkpoint.as_ref().and_then(|c| c.get(first));
        let file = info.map_or(component.path.as_path(), |t| t.file.as_path());
        return Err(crate::error::tensor_error(file, first, message));
    }
    Ok(())
}

fn choose(
    model: &Model,
    component: &Component,
    edited: &Graph,
    format: OutputFormat,
    opset: Option<u32>,
) -> Result<(OutputFormat, Option<StockForm>)> {
    let loader = if format == OutputFormat::Gguf { Loader::LlamaCpp } else { Loader::Transformers };
    let form = stock_form(component, &model.lineage, edited, loader)?;
    let refuse = |name: &str, reasons: Vec<String>| ModelError::Unrepresentable {
        format: name.to_owned(),
        reasons,
        instead: "without --format it is saved as safetensors with pomona.json, which every command reads"
            .to_owned(),
    };
    // What came as ONNX goes out as ONNX, where every operator of the edited graph can be written.
    let other = || match component.config.get(onnx::CONFIG_KEY) {
        Some(_) if onnx_trial(component, edited, opset).is_ok() => OutputFormat::Onnx,
        _ => OutputFormat::Pomona,
    };
    match (format, form) {
        (OutputFormat::Onnx, _) => match onnx_trial(component, edited, opset) {
            Ok(_) => Ok((OutputFormat::Onnx, None)),
            Err(reasons) => Err(refuse("ONNX", reasons)),
        },
        (OutputFormat::Pomona, _) => Ok((OutputFormat::Pomona, None)),
        (OutputFormat::Auto | OutputFormat::Hf, Ok(form)) => Ok((OutputFormat::Hf, Some(form))),
        (OutputFormat::Auto, Err(_)) => Ok((other(), None)),
        (OutputFormat::Hf, Err(reasons)) => Err(refuse("a stock directory", reasons)),
        (OutputFormat::Gguf, Err(reasons)) => Err(refuse("GGUF", reasons)),
        (OutputFormat::Gguf, Ok(form)) => {
            let reasons = gguf::refusals(model, &form);
            if reasons.is_empty() {
                Ok((OutputFormat::Gguf, Some(form)))
            } else {
                Err(refuse("GGUF", reasons))
            }
        }
    }
}

/// Whether every operator of a graph can be written as ONNX; if not, which cannot.
fn onnx_trial(
    component: &Component,
    edited: &Graph,
    opset: Option<u32>,
) -> std::result::Result<(), Vec<String>> {
    if edited.nodes.is_empty() {
        return Err(vec!["its computation is not known, only its tensors".to_owned()]);
    }
    onnx::write_graph(component, edited, opset, &BTreeMap::new()).map(|_| ())
}

/// A component of an output: what it is, and what is written for it.
pub(crate) struct Part<'a> {
    pub component: &'a Component,
    pub graph: Cow<'a, Graph>,
    pub form: Option<StockForm>,
    pub planned: Planned,
}

/// Writes an edited model.
///
/// `edited` is a component's graph after the edits (found by its name where there are several; the others are written as
/// they are), `recipe` makes its tensors from those of the component's graph (for an unchanged graph:
/// [`Recipe::identity`]). Everything goes into a hidden sibling of `out`, is reopened and shape-checked there, and gets its
/// name last. An interrupted run with the same work continues.
///
/// # Errors
/// Without weights, where the format cannot hold the graph, where `out` exists without `force` or is a source, on a full
/// disk, and where a tensor cannot be made.
pub fn save(
    model: &Model,
    edited: &Graph,
    recipe: &Recipe,
    options: &SaveOptions,
    out: impl AsRef<Path>,
    progress: &mut Progress<'_>,
) -> Result<SavedReport> {
    check_unused(model, options.drop_unused)?;
    let target = component_of(model, edited)?;
    let (format, form) = choose(model, target, edited, options.format, options.opset)?;
    let mut parts = Vec::with_capacity(model.components.len());
    let mut form = Some(form);
    for component in &model.components {
        let part = if std::ptr::eq(component, target) {
            plan_part(
                model,
                component,
                Cow::Borrowed(edited),
                Cow::Borrowed(recipe),
                form.take().flatten(),
                format,
                options,
            )?
        } else {
            let graph = &component.graph;
            let copies =
                Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
            let form = match format {
                OutputFormat::Onnx => None,
                _ => stock_form(component, &model.lineage, graph, Loader::Transformers)?.ok(),
            };
            plan_part(model, component, Cow::Borrowed(graph), Cow::Owned(copies), form, format, options)?
        };
        parts.push(part);
    }
    let fingerprint = model.fingerprint()?;
    let side = side::collect(model, format, &parts, options)?;
    let manifest = manifest(model, &parts, format, options, fingerprint.clone())?;
    let mut key = blake3::Hasher::new();
    for part in [fingerprint.as_str(), &manifest, &format!("{:?} {}", format, options.shard_size)] {
        key.update(part.as_bytes());
    }
    let items = || parts.iter().flat_map(|p| &p.planned.items);
    let bytes: u64 = items().map(|i| i.spec.encoding.bytes_for(&i.spec.shape).unwrap_or(0)).sum();
    let beside = side.files.iter().map(|(_, c)| c.len() as u64).sum::<u64>() + manifest.len() as u64;
    let mut dir = OutputDir::create(
        out.as_ref(),
        &OutputOptions {
            force: options.force,
            needed: bytes + beside + HEADER_BYTES,
            sources: model.source_paths(),
            resume_key: Some(key.finalize().to_hex().to_string()),
        },
    )?;
    let mut before = 0;
    for part in &parts {
        let stem = match format {
            OutputFormat::Onnx => "model",
            _ => part.component.known().map_or("model", Known::file_stem),
        };
        let stem = part.component.in_folder(stem);
        let checkpoint = Some(part.component.weights("saving")?);
        let mut done = before;
        let mut told = |n: u64, _: u64| {
            done = before + n;
            progress(done, bytes);
        };
        write_weights(&mut dir, &stem, &part.planned, format, options, &side.gguf, checkpoint, &mut told)?;
        before = done;
    }
    for (name, content) in &side.files {
        dir.write(name, content)?;
    }
    dir.write(MANIFEST, manifest.as_bytes())?;
    verify_output(dir.path())?;
    let tensors = items().count();
    let path = dir.commit()?;
    Ok(SavedReport { path, format, bytes, tensors, notes: side.notes })
}

fn plan_part<'a>(
    model: &Model,
    component: &'a Component,
    graph: Cow<'a, Graph>,
    recipe: Cow<'_, Recipe>,
    form: Option<StockForm>,
    format: OutputFormat,
    options: &SaveOptions,
) -> Result<Part<'a>> {
    let checkpoint = component.weights("saving")?;
    let whole = compose(&recipe, &component.import)?.simplified(&sources(Some(checkpoint)));
    let planned = match (&form, format) {
        (Some(form), OutputFormat::Gguf) => {
            weights::gguf(model, component, &graph, &whole, form, options.dtype)?
        }
        (_, OutputFormat::Onnx) => weights::onnx(component, &graph, &whole, options)?,
        (form, _) => weights::safetensors(component, &graph, &whole, form.as_ref(), options.dtype)?,
    };
    Ok(Part { component, graph, form, planned })
}

#[expect(clippy::too_many_arguments, reason = "what is written, where, and how")]
pub(crate) fn write_weights(
    dir: &mut OutputDir,
    stem: &str,
    planned: &Planned,
    format: OutputFormat,
    options: &SaveOptions,
    metadata: &[(String, pomona_store::GgufValue)],
    checkpoint: Option<&pomona_store::Checkpoint>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let specs: Vec<TensorSpec> = planned.items.iter().map(|i| i.spec.clone()).collect();
    let mut run = |sink: &mut dyn TensorSink| write_recipe(&planned.items, checkpoint, sink, progress);
    if let Some(model) = &planned.onnx {
        run(&mut OnnxWriter::new(dir, stem, model, specs, options.shard_size)?)
    } else if format == OutputFormat::Gguf {
        run(&mut GgufWriter::new(dir, GGUF_FILE, metadata, specs)?)
    } else {
        let own = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        run(&mut SafetensorsWriter::new(dir, stem, specs, options.shard_size.max(1), &own)?)
    }
}

fn manifest(
    model: &Model,
    parts: &[Part<'_>],
    format: OutputFormat,
    options: &SaveOptions,
    fingerprint: String,
) -> Result<String> {
    let several = parts.len() > 1;
    let mut config = model.config.clone();
    let mut components = Vec::with_capacity(parts.len());
    for part in parts {
        let mut graph = part.graph.clone().into_owned();
        as_stored(&mut graph, part, format);
        for t in &mut graph.tensors {
            if let Some(dtype) = part.planned.dtypes.get(&t.name) {
                t.dtype.clone_from(dtype);
            }
        }
        let mut own = part.form.as_ref().map_or_else(|| part.component.config.clone(), |f| f.config.clone());
        if part.component.known().is_none_or(Known::config_has_dtype) {
            set_dtype(&mut own, &part.planned);
        }
        let (mut architecture, mut component_config) = (None, None);
        if several {
            architecture = Some(part.component.architecture.clone());
            component_config = Some(own);
        } else {
            config = own;
        }
        components.push(manifest::Part {
            folder: part.component.folder.clone(),
            architecture,
            config: component_config,
            graph,
            import: part.planned.import.clone(),
        });
    }
    let mut lineage = model.lineage.clone();
    lineage.extend(options.plan.clone());
    let mut training = model.training.clone();
    training.extend(options.training.clone());
    let manifest = Manifest {
        version: VERSION,
        tool: concat!("pomona ", env!("CARGO_PKG_VERSION")).to_owned(),
        architecture: model.architecture.clone(),
        format: format.name().to_owned(),
        source: Origin { name: source_name(model), fingerprint },
        lineage,
        training,
        config,
        components,
    };
    manifest.to_json()
}

/// Norms add to their weights what the output's files leave out.
fn as_stored(graph: &mut Graph, part: &Part<'_>, format: OutputFormat) {
    let names: Vec<String> = graph.tensors.iter().map(|t| t.name.clone()).collect();
    let shifts = part.form.as_ref().map(|f| &f.shifts);
    for node in &mut graph.nodes {
        let Op::RmsNorm { offset, .. } = &mut node.op else { continue };
        let name = node.weights.get(&Slot::Weight).and_then(|t| names.get(t.0 as usize));
        match (format, name) {
            (OutputFormat::Gguf, _) => *offset = 0.0,
            (OutputFormat::Hf, Some(name)) => *offset -= shifts.and_then(|s| s.get(name)).unwrap_or(&0.0),
            _ => {}
        }
    }
}

/// The last part of the source's path, or of a hub snapshot's repository.
pub(crate) fn source_name(model: &Model) -> String {
    let named = model.config.get("_name_or_path").and_then(Value::as_str).filter(|n| !n.is_empty());
    let real: PathBuf = model.path.canonicalize().unwrap_or_else(|_| model.path.clone());
    let file = real.file_name().map(|n| n.to_string_lossy().into_owned());
    named.filter(|n| !n.starts_with(['/', '.'])).map(str::to_owned).or(file).unwrap_or_default()
}
