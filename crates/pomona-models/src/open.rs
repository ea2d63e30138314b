//! From a path to a model.

use std::path::Path;

use pomona_store::{Checkpoint, Format};
use serde_json::Value;

use crate::config::{Fields, read_object};
use crate::error::{Result, not_a_model};
use crate::families::{self, Known};
use crate::model::{Component, Model, SourceKind, import_by_name};
use crate::{gguf, manifest, onnx, opaque, pipeline, state_dict};

/// The file in which this program describes an output.
pub(crate) const MANIFEST: &str = "pomona.json";
pub(crate) const CONFIG: &str = "config.json";
const READ: &str = "a directory with config.json and weights, a diffusers pipeline, a .gguf, an .onnx, a .pth, or a config.json is read";

/// Opens a Hugging Face directory (a hub cache's snapshot too; a whole diffusers pipeline too), a `.gguf`, an `.onnx`, a
/// PyTorch file (`.pth`, `.pt`, `.th`, `.bin`, `.ckpt`), a bare `config.json`, or an output of this program. Only headers
/// are read.
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
    if name.ends_with(".onnx") {
        return open_onnx(path);
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
    if state_dict::ENDINGS.iter().any(|end| name.ends_with(end)) {
        return state_dict::open(path);
    }
    let kind = name.rsplit_once('.').map_or(name.as_str(), |(_, e)| e);
    Err(not_a_model(path, format!("`.{kind}` files are not read by this version: {READ}")))
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_directory(dir: &Path) -> Result<Model> {
    if dir.join(MANIFEST).is_file() {
        return manifest::open(dir);
    }
    if dir.join(CONFIG).is_file() {
        let component = open_folder(dir, "", "model")?;
        return Ok(Model::single(SourceKind::HuggingFace, component, Vec::new()));
    }
    if dir.join(pipeline::INDEX).is_file() {
        return pipeline::open(dir);
    }
    match Checkpoint::open(dir) {
        Ok(file) if file.format() == Format::Gguf => {
            let real = file.path().to_owned();
            open_gguf(&real)
        }
        Ok(file) if file.format() == Format::Onnx => {
            let real = file.path().to_owned();
            open_onnx(&real)
        }
        Ok(file) if file.format() == Format::Torch && file.files().count() == 1 => {
            state_dict::open(file.path())
        }
        _ => Err(not_a_model(dir, format!("holds no {CONFIG}: {READ}"))),
    }
}

/// The network in a folder with a config.json and weights; `folder` is its name in the model's directory.
pub(crate) fn open_folder(dir: &Path, folder: &str, name: &str) -> Result<Component> {
    let config_path = dir.join(CONFIG);
    let config = read_object(&config_path)?;
    let checkpoint = Checkpoint::open(dir)?;
    match families::of_config(&config) {
        Some(found) => known(dir, (folder, name), (&config_path, config), checkpoint, found),
        None => opaque::open(dir, folder, name, &config_path, config, checkpoint),
    }
}

/// The network of a config that is known, with the weights of a checkpoint. `path` is the component's, `folder` its name in
/// the model's directory.
pub(crate) fn known(
    path: &Path,
    (folder, name): (&str, &str),
    (config_path, config): (&Path, Value),
    checkpoint: Checkpoint,
    (known, architecture): (Known, &str),
) -> Result<Component> {
    let architecture = architecture.to_owned();
    let mut graph = known.graph(&Fields::new(config_path, &config)?)?;
    name.clone_into(&mut graph.name);
    let import =
        import_by_name(path, &mut graph, &checkpoint, &|n| known.other_names(n), &|n| known.transposed(n))?;
    let mut read = std::collections::HashSet::new();
    for t in &graph.tensors {
        read.extend(std::iter::once(&t.name).chain(&t.aliases).cloned());
    }
    for output in &import.outputs {
        output.expr.visit_sources(&mut |n| {
            read.insert(n.to_owned());
        });
    }
    let unused = checkpoint.names().filter(|n| !read.contains(*n)).map(str::to_owned).collect();
    Ok(Component {
        name: name.to_owned(),
        architecture,
        folder: folder.to_owned(),
        path: path.to_owned(),
        config,
        graph,
        import,
        checkpoint: Some(checkpoint),
        unused,
    })
}

fn open_config(path: &Path) -> Result<Model> {
    if path.file_name().is_some_and(|n| n == pipeline::INDEX) {
        return pipeline::open(parent(path));
    }
    let component = open_shapes(path, "", "model")?;
    Ok(Model::single(SourceKind::Config, component, Vec::new()))
}

/// The network that a config describes, without weights.
pub(crate) fn open_shapes(path: &Path, folder: &str, name: &str) -> Result<Component> {
    let config = read_object(path)?;
    let fields = Fields::new(path, &config)?;
    let (known, architecture) = families::of_config(&config).ok_or_else(|| opaque::unknown(path, &config))?;
    let mut graph = known.graph(&fields)?;
    name.clone_into(&mut graph.name);
    let shapes = graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice()));
    let import = pomona_graph::Recipe::identity(shapes);
    Ok(Component {
        name: name.to_owned(),
        architecture: architecture.to_owned(),
        folder: folder.to_owned(),
        path: path.to_owned(),
        graph,
        import,
        config,
        checkpoint: None,
        unused: Vec::new(),
    })
}

fn open_onnx(path: &Path) -> Result<Model> {
    let mut file = Checkpoint::open(path)?;
    let found = onnx::import(&mut file)?;
    let component = Component {
        name: "model".to_owned(),
        architecture: "onnx".to_owned(),
        folder: String::new(),
        path: path.to_owned(),
        config: found.config,
        graph: found.graph,
        import: found.import,
        checkpoint: Some(file),
        unused: Vec::new(),
    };
    Ok(Model::single(SourceKind::Onnx, component, Vec::new()))
}

fn open_gguf(path: &Path) -> Result<Model> {
    let file = Checkpoint::open(path)?;
    let found = gguf::import(&file)?;
    let component = Component {
        name: "model".to_owned(),
        architecture: found.family.model_type.to_owned(),
        folder: String::new(),
        path: path.to_owned(),
        config: found.config,
        graph: found.graph,
        import: found.import,
        checkpoint: Some(file),
        unused: found.unused,
    };
    Ok(Model::single(SourceKind::Gguf, component, Vec::new()))
}
