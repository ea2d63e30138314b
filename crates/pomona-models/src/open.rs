//! From a path to a model.

use std::path::Path;

use pomona_store::{Checkpoint, Format};
use serde_json::Value;

use crate::config::{Fields, read_object};
use crate::error::{Result, not_a_model};
use crate::families;
use crate::model::{Component, Model, SourceKind, import_by_name};
use crate::{gguf, manifest, opaque};

/// The file in which this program describes an output.
pub(crate) const MANIFEST: &str = "pomona.json";
const CONFIG: &str = "config.json";
const READ: &str = "a directory with config.json and safetensors, a .gguf, or a config.json is read";

/// Opens a Hugging Face directory (a hub cache's snapshot too), a `.gguf`, a bare `config.json`, or an output of this
/// program. Only headers are read.
///
/// # Errors
/// Where the path holds none of these, a config value is missing or not supported, or the weights do not fit the config.
pub fn open(path: impl AsRef<Path>) -> Result<Model> {
    let path = path.as_ref();
    if path.is_dir() {
        return open_directory(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if !path.exists() {
        return Err(not_a_model(path, format!("does not exist: {READ}")));
    }
    if name.ends_with(".gguf") {
        return open_gguf(path);
    }
    if name == MANIFEST {
        return open_directory(parent(path));
    }
    if name.ends_with(".json") {
        return open_config(path);
    }
    if name.ends_with(".safetensors") {
        return Err(not_a_model(path, "has weights but no config: give the directory that holds both"));
    }
    let kind = name.rsplit_once('.').map_or(name.as_str(), |(_, e)| e);
    Err(not_a_model(path, format!("`.{kind}` files are not read by this version: {READ}")))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_directory(dir: &Path) -> Result<Model> {
    if dir.join(MANIFEST).is_file() {
        return manifest::open(dir);
    }
    let config_path = dir.join(CONFIG);
    if config_path.is_file() {
        let config = read_object(&config_path)?;
        return open_hf(dir, &config_path, config);
    }
    if dir.join("model_index.json").is_file() {
        return Err(not_a_model(
            dir,
            format!("is a diffusers pipeline, which this version does not read: {READ}"),
        ));
    }
    match Checkpoint::open(dir) {
        Ok(file) if file.format() == Format::Gguf => {
            let real = file.path().to_owned();
            open_gguf(&real)
        }
        _ => Err(not_a_model(dir, format!("holds no {CONFIG}: {READ}"))),
    }
}

fn open_hf(dir: &Path, config_path: &Path, config: Value) -> Result<Model> {
    let fields = Fields::new(config_path, &config)?;
    let checkpoint = Checkpoint::open(dir)?;
    let Some(family) = families::of_config(&config) else {
        return opaque::open(dir, config_path, config.clone(), checkpoint);
    };
    let mut graph = family.graph(&fields)?;
    // A base model without its head is saved without the outer prefix.
    let bare = checkpoint.get("embed_tokens.weight").is_some();
    let file_name =
        |n: &str| if bare { n.strip_prefix("model.").unwrap_or(n).to_owned() } else { n.to_owned() };
    let import = import_by_name(dir, &mut graph, &checkpoint, &file_name)?;
    let known =
        |n: &str| graph.tensors.iter().any(|t| file_name(&t.name) == n || t.aliases.iter().any(|a| a == n));
    let unused = checkpoint.tensors().iter().map(|t| &t.name).filter(|n| !known(n)).cloned().collect();
    Ok(Model {
        architecture: family.model_type.to_owned(),
        source: SourceKind::HuggingFace,
        path: dir.to_owned(),
        config,
        components: vec![Component { name: graph.name.clone(), graph, import }],
        checkpoint: Some(checkpoint),
        lineage: Vec::new(),
        unused,
    })
}

fn open_config(path: &Path) -> Result<Model> {
    let config = read_object(path)?;
    let fields = Fields::new(path, &config)?;
    let family = families::of_config(&config).ok_or_else(|| opaque::unknown(path, &config))?;
    let graph = family.graph(&fields)?;
    let shapes = graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice()));
    let import = pomona_graph::Recipe::identity(shapes);
    Ok(Model {
        architecture: family.model_type.to_owned(),
        source: SourceKind::Config,
        path: path.to_owned(),
        components: vec![Component { name: graph.name.clone(), graph, import }],
        config,
        checkpoint: None,
        lineage: Vec::new(),
        unused: Vec::new(),
    })
}

fn open_gguf(path: &Path) -> Result<Model> {
    let file = Checkpoint::open(path)?;
    let found = gguf::import(&file)?;
    Ok(Model {
        architecture: found.family.model_type.to_owned(),
        source: SourceKind::Gguf,
        path: path.to_owned(),
        config: found.config,
        components: vec![Component {
            name: found.graph.name.clone(),
            graph: found.graph,
            import: found.import,
        }],
        checkpoint: Some(file),
        lineage: Vec::new(),
        unused: found.unused,
    })
}
