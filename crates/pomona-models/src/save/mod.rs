//! An edited model to disk: weights by recipe, config, tokenizer, card and manifest, complete or not at all.

mod card;
mod options;
mod side;
mod weights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pomona_graph::{Graph, Recipe, compose};
use pomona_store::{GgufWriter, OutputDir, OutputOptions, SafetensorsWriter, TensorSink, TensorSpec};
use serde_json::Value;

use crate::error::{ModelError, Result};
use crate::gguf;
use crate::manifest::{Manifest, Origin, Part, VERSION};
use crate::model::Model;
use crate::open::MANIFEST;
use crate::recipe_exec::{Progress, sources, write_recipe};
use crate::stock::{Loader, StockForm, stock_form};
use crate::verify::verify_output;
pub use options::{Figure, OutputFormat, SaveOptions, SavedReport};
pub(crate) use side::{pretty, set_dtype};
pub(crate) use weights::Planned;

/// Room for headers and the index beside weights, side files and manifest.
const HEADER_BYTES: u64 = 16 << 20;
const GGUF_FILE: &str = "model.gguf";

/// Whether transformers can hold an edited graph of this model, and if not, why; [`check_format`] asks for other formats.
///
/// # Errors
/// Where the model has several components or its config cannot be read.
pub fn representable(model: &Model, edited: &Graph) -> Result<std::result::Result<(), Vec<String>>> {
    Ok(stock_form(model, edited, Loader::Transformers)?.map(|_| ()))
}

/// The format in which `Auto` would save, or an error where the asked format cannot hold the graph. Costs nothing: said
/// before any work.
///
/// # Errors
/// [`ModelError::Unrepresentable`] with the reasons and the format that would do.
pub fn check_format(model: &Model, edited: &Graph, format: OutputFormat) -> Result<OutputFormat> {
    Ok(choose(model, edited, format)?.0)
}

fn choose(model: &Model, edited: &Graph, format: OutputFormat) -> Result<(OutputFormat, Option<StockForm>)> {
    let loader = if format == OutputFormat::Gguf { Loader::LlamaCpp } else { Loader::Transformers };
    let form = stock_form(model, edited, loader)?;
    let refuse = |name: &str, reasons: Vec<String>| ModelError::Unrepresentable {
        format: name.to_owned(),
        reasons,
        instead: "without --format it is saved as safetensors with pomona.json, which every command reads"
            .to_owned(),
    };
    match (format, form) {
        (OutputFormat::Pomona, _) => Ok((OutputFormat::Pomona, None)),
        (OutputFormat::Auto | OutputFormat::Hf, Ok(form)) => Ok((OutputFormat::Hf, Some(form))),
        (OutputFormat::Auto, Err(_)) => Ok((OutputFormat::Pomona, None)),
        (OutputFormat::Hf, Err(reasons)) => Err(refuse("a transformers directory", reasons)),
        (OutputFormat::Gguf, Err(reasons)) => Err(refuse("GGUF", reasons)),
        (OutputFormat::Gguf, Ok(form)) => {
            let reasons = gguf::refusals(model);
            if reasons.is_empty() {
                Ok((OutputFormat::Gguf, Some(form)))
            } else {
                Err(refuse("GGUF", reasons))
            }
        }
    }
}

/// Writes an edited model.
///
/// `edited` is the model's graph after the edits, `recipe` makes its tensors from those of the model's graph (for an
/// unchanged graph: [`Recipe::identity`]). Everything goes into a hidden sibling of `out`, is reopened and shape-checked
/// there, and gets its name last. An interrupted run with the same work continues.
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
    let checkpoint = model.weights("saving")?;
    let (format, form) = choose(model, edited, options.format)?;
    let whole = compose(recipe, &model.only()?.import)?.simplified(&sources(Some(checkpoint)));
    let planned = match (&form, format) {
        (Some(form), OutputFormat::Gguf) => weights::gguf(model, edited, &whole, form, options.dtype)?,
        (form, _) => weights::safetensors(model, edited, &whole, form.as_ref(), options.dtype)?,
    };
    let fingerprint = model.fingerprint()?;
    let side = side::collect(model, format, form.as_ref(), &planned, options)?;
    let manifest = manifest(model, edited, form.as_ref(), &planned, format, options, fingerprint.clone())?;
    let mut key = blake3::Hasher::new();
    for part in [fingerprint.as_str(), &manifest, &format!("{:?} {}", format, options.shard_size)] {
        key.update(part.as_bytes());
    }
    let sizes = planned.items.iter().map(|i| i.spec.encoding.bytes_for(&i.spec.shape).unwrap_or(0));
    let bytes: u64 = sizes.sum();
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
    write_weights(&mut dir, &planned, format, options, &side.gguf, Some(checkpoint), progress)?;
    for (name, content) in &side.files {
        dir.write(name, content)?;
    }
    dir.write(MANIFEST, manifest.as_bytes())?;
    verify_output(dir.path())?;
    let path = dir.commit()?;
    Ok(SavedReport { path, format, bytes, tensors: planned.items.len(), notes: side.notes })
}

pub(crate) fn write_weights(
    dir: &mut OutputDir,
    planned: &Planned,
    format: OutputFormat,
    options: &SaveOptions,
    metadata: &[(String, pomona_store::GgufValue)],
    checkpoint: Option<&pomona_store::Checkpoint>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let specs: Vec<TensorSpec> = planned.items.iter().map(|i| i.spec.clone()).collect();
    let mut run = |sink: &mut dyn TensorSink| write_recipe(&planned.items, checkpoint, sink, progress);
    if format == OutputFormat::Gguf {
        run(&mut GgufWriter::new(dir, GGUF_FILE, metadata, specs)?)
    } else {
        let own = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        run(&mut SafetensorsWriter::new(dir, "model", specs, options.shard_size.max(1), &own)?)
    }
}

fn manifest(
    model: &Model,
    edited: &Graph,
    form: Option<&StockForm>,
    planned: &Planned,
    format: OutputFormat,
    options: &SaveOptions,
    fingerprint: String,
) -> Result<String> {
    let mut graph = edited.clone();
    for t in &mut graph.tensors {
        if let Some(dtype) = planned.dtypes.get(&t.name) {
            t.dtype.clone_from(dtype);
        }
    }
    let mut lineage = model.lineage.clone();
    lineage.extend(options.plan.clone());
    let mut config = form.map_or_else(|| model.config.clone(), |f| f.config.clone());
    set_dtype(&mut config, planned);
    let manifest = Manifest {
        version: VERSION,
        tool: concat!("pomona ", env!("CARGO_PKG_VERSION")).to_owned(),
        architecture: model.architecture.clone(),
        format: format.name().to_owned(),
        source: Origin { name: source_name(model), fingerprint },
        lineage,
        config,
        components: vec![Part { graph, import: planned.import.clone() }],
    };
    manifest.to_json()
}

/// The last part of the source's path, or of a hub snapshot's repository.
pub(crate) fn source_name(model: &Model) -> String {
    let named = model.config.get("_name_or_path").and_then(Value::as_str).filter(|n| !n.is_empty());
    let real: PathBuf = model.path.canonicalize().unwrap_or_else(|_| model.path.clone());
    let file = real.file_name().map(|n| n.to_string_lossy().into_owned());
    named.filter(|n| !n.starts_with(['/', '.'])).map(str::to_owned).or(file).unwrap_or_default()
}
