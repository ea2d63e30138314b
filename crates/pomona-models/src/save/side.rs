//! Files beside the weights: config, generation config, tokenizer, whatever else a stock directory has.

use std::path::Path;

use pomona_store::{Encoding, Format, GgufValue};
use serde_json::{Value, json};

use super::Part;
use super::card;
use super::options::{OutputFormat, SaveOptions};
use super::weights::{Planned, carried, main_encoding};
use crate::error::{Result, file_error};
use crate::families::Known;
use crate::gguf;
use crate::model::{Model, is_computed};
use crate::open::{CONFIG, MANIFEST};
use crate::pipeline::has_weights;
use crate::tokenizer::Tokenizer;

/// Files larger than this are not side files.
const MAX_SIDE_FILE: u64 = 32 << 20;
/// Ends of names that hold weights, in any of the usual formats, or lists of them.
const WEIGHTS: &[&str] = &[
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".gguf",
    ".onnx",
    ".onnx.data",
    ".onnx_data",
    ".h5",
    ".msgpack",
    ".ot",
    ".index.json",
    ".ckpt",
    ".npz",
    ".tflite",
];
/// Files that are made anew.
const OURS: &[&str] = &["config.json", "README.md", MANIFEST];

/// What goes beside the weights.
pub(super) struct Side {
    pub files: Vec<(String, Vec<u8>)>,
    /// Metadata of a GGUF output.
    pub gguf: Vec<(String, GgufValue)>,
    pub notes: Vec<String>,
}

/// Files of the whole output: tokenizer, licence, card, and of a pipeline the folders without a network.
pub(super) fn collect(
    model: &Model,
    format: OutputFormat,
    parts: &[Part<'_>],
    options: &SaveOptions,
) -> Result<Side> {
    let mut side = Side { files: Vec::new(), gguf: Vec::new(), notes: Vec::new() };
    side.notes.extend(parts.iter().filter_map(|part| left_out(part, format)));
    if format == OutputFormat::Hf {
        side.notes.extend(parts.iter().filter_map(|part| part.form.as_ref()).flat_map(|f| f.notes.clone()));
    }
    if let (OutputFormat::Gguf, [part]) = (format, parts)
        && let Some(form) = &part.form
    {
        let main = main_encoding(&part.planned);
        side.gguf = gguf::metadata(model, form, options.dtype, main, &mut side.notes)?;
        return Ok(side);
    }
    let from_gguf = model.checkpoint().is_some_and(|c| c.format() == Format::Gguf);
    if from_gguf {
        rebuilt(model, &mut side)?;
    } else if model.path.is_dir() {
        copied(&model.path, "", &mut side.files)?;
        if model.config.get("_class_name").is_some() && model.components.iter().any(|c| !c.folder.is_empty())
        {
            folders(&model.path, &mut side.files)?;
        }
    }
    for part in parts {
        let Some(form) = &part.form else { continue };
        let mut config = form.config.clone();
        if part.component.known().is_none_or(Known::config_has_dtype) {
            set_dtype(&mut config, &part.planned);
        }
        side.files.push((part.component.in_folder("config.json"), pretty(&config)));
    }
    side.files.push(("README.md".to_owned(), card::readme(model, format, options).into_bytes()));
    Ok(side)
}

/// Tensors that the graph does not read are not part of the output.
fn left_out(part: &Part<'_>, format: OutputFormat) -> Option<String> {
    let carries = format != OutputFormat::Gguf;
    let carried: Vec<&str> = carried(part.component, &part.graph).filter(|_| carries).collect();
    let unused = part.component.unused.iter().map(String::as_str);
    let left: Vec<&str> = unused.filter(|n| !is_computed(n) && !carried.contains(n)).collect();
    let more = if left.len() > 3 { ", ..." } else { "" };
    let names = left.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let what = if left.len() == 1 { "1 tensor" } else { &format!("{} tensors", left.len()) };
    (!left.is_empty()).then(|| format!("{what} that the model does not read left out: {names}{more}"))
}

pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Says the type of the weights where the config names one, under the key that it uses.
pub(crate) fn set_dtype(config: &mut Value, planned: &Planned) {
    let name = match main_encoding(planned) {
        Some(Encoding::F32) => "float32",
        Some(Encoding::F16) => "float16",
        Some(Encoding::Bf16) => "bfloat16",
        _ => return,
    };
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    config[key] = json!(name);
}

/// Files of a pipeline's folders: tokenizers and schedulers as they are, networks without config and weights.
fn folders(dir: &Path, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let entries = std::fs::read_dir(dir).map_err(|e| file_error(dir, format!("cannot be listed: {e}")))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || !entry.path().is_dir() {
            continue;
        }
        let network = has_weights(&entry.path())?;
        copied(&entry.path(), &name, files)?;
        let config = entry.path().join(CONFIG);
        if !network && config.is_file() {
            let bytes =
                std::fs::read(&config).map_err(|e| file_error(&config, format!("cannot be read: {e}")))?;
            files.push((format!("{name}/{CONFIG}"), bytes));
        }
    }
    Ok(())
}

/// Every small file of a source directory that does not hold weights: tokenizer, licence, generation config.
fn copied(dir: &Path, folder: &str, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let io = |path: &Path, e: std::io::Error| file_error(path, format!("cannot be read: {e}"));
    for entry in std::fs::read_dir(dir).map_err(|e| io(dir, e))? {
        let entry = entry.map_err(|e| io(dir, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let lower = name.to_lowercase();
        let other = name.starts_with('.')
            || OURS.contains(&name.as_str())
            || WEIGHTS.iter().any(|w| lower.ends_with(w));
        // Through links: a hub snapshot consists of them.
        let Ok(kind) = std::fs::metadata(entry.path()) else { continue };
        if other || !kind.is_file() || kind.len() > MAX_SIDE_FILE {
            continue;
        }
        let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        files.push((name, std::fs::read(entry.path()).map_err(|e| io(&entry.path(), e))?));
    }
    files.sort();
    Ok(())
}

/// Tokenizer and generation config from GGUF metadata.
fn rebuilt(model: &Model, side: &mut Side) -> Result<()> {
    let Some(file) = model.checkpoint() else { return Ok(()) };
    if file.gguf("tokenizer.ggml.model").is_none() {
        side.notes.push("no tokenizer is written: the GGUF file has none".to_owned());
    } else {
        match Tokenizer::from_gguf(file.gguf_metadata()).and_then(|t| t.hf_files()) {
            Ok(files) => side.files.extend(files),
            Err(e) => side.notes.push(format!("no tokenizer is written: {e}")),
        }
    }
    let mut generation = serde_json::Map::new();
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(id) = model.config.get(key) {
            generation.insert(key.to_owned(), id.clone());
        }
    }
    let has = side.files.iter().any(|(n, _)| n == "generation_config.json");
    if !generation.is_empty() && !has {
        side.files.push(("generation_config.json".to_owned(), pretty(&Value::Object(generation))));
    }
    Ok(())
}
