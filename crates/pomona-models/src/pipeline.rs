//! A diffusers pipeline: model_index.json names the components, each in a folder of its own.
//!
//! Networks become components of the model. Tokenizers, schedulers and processors have no weights: their folders are
//! carried over as they are.

use std::path::Path;

use serde_json::Value;

use crate::config::read_object;
use crate::error::{Result, file_error, not_a_model};
use crate::families;
use crate::model::{Component, Model, SourceKind};
use crate::open::{CONFIG, open_folder, open_shapes};

/// The file that names the components.
pub(crate) const INDEX: &str = "model_index.json";
/// Far more components than any pipeline has.
const MAX_COMPONENTS: usize = 64;

/// Opens every network of a pipeline. One whose folder has a config of a known network but no weights is opened as shapes.
pub(crate) fn open(dir: &Path) -> Result<Model> {
    let path = dir.join(INDEX);
    let config = read_object(&path)?;
    let names = component_names(&config);
    if names.len() > MAX_COMPONENTS {
        let message = format!("names {} components; at most {MAX_COMPONENTS} are read", names.len());
        return Err(file_error(&path, message));
    }
    let mut components = Vec::new();
    for name in names {
        let folder = dir.join(&name);
        if let Some(component) = open_component(&folder, &name)? {
            components.push(component);
        }
    }
    if components.is_empty() {
        return Err(not_a_model(dir, format!("{INDEX} names no folder with a config.json of a network")));
    }
    let class = config.get("_class_name").and_then(Value::as_str).unwrap_or("pipeline").to_owned();
    Ok(Model {
        architecture: class,
        source: SourceKind::Pipeline,
        path: dir.to_owned(),
        config,
        components,
        lineage: Vec::new(),
        training: Vec::new(),
    })
}

/// Entries `name: [library, class]`, in the order of the file.
fn component_names(config: &Value) -> Vec<String> {
    let entries = config.as_object().into_iter().flatten();
    let is_component =
        |v: &Value| matches!(v.as_array().map(Vec::as_slice), Some([Value::String(_), Value::String(_)]));
    let plain = |k: &str| !k.starts_with('_') && !k.contains(['/', '\\']) && k != ".." && k != ".";
    entries.filter(|(k, v)| plain(k) && is_component(v)).map(|(k, _)| k.clone()).collect()
}

/// None for a folder without a network: a tokenizer, a scheduler.
fn open_component(folder: &Path, name: &str) -> Result<Option<Component>> {
    let config_path = folder.join(CONFIG);
    if !config_path.is_file() {
        return Ok(None);
    }
    if has_weights(folder)? {
        return open_folder(folder, name, name).map(Some);
    }
    let config = read_object(&config_path)?;
    match families::of_config(&config) {
        Some(_) => open_shapes(&config_path, name, name).map(Some),
        None => Ok(None),
    }
}

/// Whether a folder holds a weight file of any usual format.
pub(crate) fn has_weights(folder: &Path) -> Result<bool> {
    let entries =
        std::fs::read_dir(folder).map_err(|e| file_error(folder, format!("cannot be listed: {e}")))?;
    let weights = [".safetensors", ".bin", ".pt", ".pth", ".ckpt"];
    Ok(entries.flatten().any(|e| {
        let name = e.file_name().to_string_lossy().to_lowercase();
        weights.iter().any(|w| name.ends_with(w))
    }))
}
