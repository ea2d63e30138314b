//! Files beside the weights: config, generation config, tokenizer, whatever else a stock directory has.

use std::path::Path;

use pomona_store::{Encoding, Format, GgufValue};
use serde_json::{Value, json};

use super::card;
use super::options::{OutputFormat, SaveOptions};
use super::weights::{Planned, main_encoding};
use crate::error::{Result, file_error};
use crate::gguf;
use crate::model::Model;
use crate::open::MANIFEST;
use crate::stock::StockForm;
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

pub(super) fn collect(
    model: &Model,
    format: OutputFormat,
    form: Option<&StockForm>,
    planned: &Planned,
    options: &SaveOptions,
) -> Result<Side> {
    let mut side = Side { files: Vec::new(), gguf: Vec::new(), notes: Vec::new() };
    if !model.unused.is_empty() && format != OutputFormat::Gguf {
        side.notes.push(left_out(model));
    }
    if let (OutputFormat::Gguf, Some(form)) = (format, form) {
        side.gguf = gguf::metadata(model, form, options.dtype, main_encoding(planned), &mut side.notes)?;
        return Ok(side);
    }
    let from_gguf = model.checkpoint.as_ref().is_some_and(|c| c.format() == Format::Gguf);
    if from_gguf {
        rebuilt(model, &mut side)?;
    } else if model.path.is_dir() {
        copied(&model.path, &mut side.files)?;
    }
    if let Some(form) = form {
        let mut config = form.config.clone();
        set_dtype(&mut config, planned);
        side.files.push(("config.json".to_owned(), pretty(&config)));
    }
    side.files.push(("README.md".to_owned(), card::readme(model, format, options).into_bytes()));
    Ok(side)
}

/// Tensors that the graph does not read are not part of the output.
fn left_out(model: &Model) -> String {
    let first: Vec<&str> = model.unused.iter().take(3).map(String::as_str).collect();
    let more = if model.unused.len() > first.len() { ", ..." } else { "" };
    format!(
        "{} tensors that the model does not read are left out: {}{more}",
        model.unused.len(),
        first.join(", ")
    )
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

/// Every small file of the source directory that does not hold weights: tokenizer, licence, generation config.
fn copied(dir: &Path, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
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
        files.push((name, std::fs::read(entry.path()).map_err(|e| io(&entry.path(), e))?));
    }
    files.sort();
    Ok(())
}

/// Tokenizer and generation config from GGUF metadata.
fn rebuilt(model: &Model, side: &mut Side) -> Result<()> {
    let Some(file) = &model.checkpoint else { return Ok(()) };
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
