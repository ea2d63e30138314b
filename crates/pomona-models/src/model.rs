//! An open model: its graph, how its tensors come from the files, and the files.

use std::path::{Path, PathBuf};

use pomona_graph::{Expr, Graph, Plan, Recipe, SourceTensor};
use pomona_store::Checkpoint;
use serde_json::Value;

use crate::error::{ModelError, Result, not_a_model, tensor_error};
use crate::families::{self, Family};
use crate::recipe_exec;

/// What kind of files a model was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory with a config.json and safetensors, as transformers writes it.
    HuggingFace,
    /// A GGUF file.
    Gguf,
    /// A config.json without weights.
    Config,
    /// A directory that this program wrote (`pomona.json`).
    Pomona,
}

/// A network of the model and how its tensors are made from the source's.
#[derive(Clone, Debug)]
pub struct Component {
    /// `model` where there is only one.
    pub name: String,
    /// The graph. Without nodes where the architecture is not known (see [`Model::is_opaque`]).
    pub graph: Graph,
    /// One output for each tensor of the graph, in the graph's order, over the checkpoint's tensors.
    pub import: Recipe,
}

/// A model: graphs, files and what is known about where it came from.
#[derive(Debug)]
pub struct Model {
    /// `model_type` (`llama`, `qwen2`, ...), also where the source was GGUF.
    pub architecture: String,
    /// What was read.
    pub source: SourceKind,
    /// The path as it was given.
    pub path: PathBuf,
    /// The config in the layout of transformers; made from the metadata where the source was GGUF.
    pub config: Value,
    /// Networks; a language model has one.
    pub components: Vec<Component>,
    /// The weights; none for a bare config.
    pub checkpoint: Option<Checkpoint>,
    /// Plans that led here from the original model, oldest first.
    pub lineage: Vec<Plan>,
    /// Tensors of the checkpoint that the graph does not read.
    pub unused: Vec<String>,
}

impl Model {
    /// The only component's graph.
    ///
    /// # Errors
    /// [`ModelError::NotAModel`] where there are several components; name one then.
    pub fn graph(&self) -> Result<&Graph> {
        Ok(&self.only()?.graph)
    }

    /// The only component.
    ///
    /// # Errors
    /// As [`Model::graph`].
    pub fn only(&self) -> Result<&Component> {
        match self.components.as_slice() {
            [one] => Ok(one),
            many => {
                let names: Vec<_> = many.iter().map(|c| c.name.as_str()).collect();
                Err(not_a_model(&self.path, format!("has the components {}: name one", names.join(", "))))
            }
        }
    }

    /// The component of a name, or the only one.
    ///
    /// # Errors
    /// [`ModelError::NotAModel`] where there is no such component.
    pub fn component(&self, name: Option<&str>) -> Result<&Component> {
        let Some(name) = name else { return self.only() };
        self.components.iter().find(|c| c.name == name).ok_or_else(|| {
            let names: Vec<_> = self.components.iter().map(|c| c.name.as_str()).collect();
            not_a_model(&self.path, format!("has no component `{name}`; it has {}", names.join(", ")))
        })
    }

    /// Whether only tensors are known, no computation: such a model can be inspected, cut by blocks and saved, not run.
    pub fn is_opaque(&self) -> bool {
        self.components.iter().any(|c| c.graph.nodes.is_empty())
    }

    pub(crate) fn family(&self) -> Option<&'static Family> {
        families::by_model_type(&self.architecture)
    }

    /// The checkpoint, or an error that says that `action` needs one.
    ///
    /// # Errors
    /// [`ModelError::NoWeights`] for a bare config.
    pub fn weights(&self, action: &str) -> Result<&Checkpoint> {
        self.checkpoint
            .as_ref()
            .ok_or_else(|| ModelError::NoWeights { path: self.path.clone(), action: action.to_owned() })
    }

    /// The expression that makes a graph tensor of the only component from the checkpoint.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] where the graph has no such tensor.
    pub fn import_of(&self, tensor: &str) -> Result<&Expr> {
        let made = self.components.iter().find_map(|c| c.import.output(tensor));
        made.map(|o| &o.expr).ok_or_else(|| tensor_error(&self.path, tensor, "is not in the graph"))
    }

    /// A graph tensor as f32, row-major in the graph's shape.
    ///
    /// # Errors
    /// Where there are no weights, or the encoding cannot be decoded.
    pub fn materialise(&self, tensor: &str) -> Result<Vec<f32>> {
        let expr = self.import_of(tensor)?;
        recipe_exec::materialise(expr, Some(self.weights("reading weights")?))
    }

    /// Slices `rows` of the first axis of a graph tensor as f32.
    ///
    /// # Errors
    /// As [`Model::materialise`], and where the rows lie outside the tensor.
    pub fn materialise_rows(&self, tensor: &str, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let expr = self.import_of(tensor)?;
        recipe_exec::materialise_rows(expr, Some(self.weights("reading weights")?), rows)
    }

    /// Files that are read: an output may be none of them.
    pub fn source_paths(&self) -> Vec<PathBuf> {
        let mut out = vec![self.path.clone()];
        out.extend(self.checkpoint.iter().flat_map(Checkpoint::files).map(Path::to_owned));
        out
    }
}

/// The checkpoint's tensors as recipes ask for them.
pub(crate) fn source_of(checkpoint: Option<&Checkpoint>, name: &str) -> Option<SourceTensor> {
    let info = checkpoint?.get(name)?;
    Some(SourceTensor::new(info.shape.clone(), info.encoding.name()))
}

/// A recipe that copies every tensor of the graph from a checkpoint with the same names and shapes; the graph's tensors
/// get the checkpoint's encodings. `file_name` maps a graph tensor to its name there.
pub(crate) fn import_by_name(
    path: &Path,
    graph: &mut Graph,
    checkpoint: &Checkpoint,
    file_name: &dyn Fn(&str) -> String,
) -> Result<Recipe> {
    let mut outputs = Vec::with_capacity(graph.tensors.len());
    for t in &mut graph.tensors {
        let names = std::iter::once(&t.name).chain(&t.aliases).map(|n| file_name(n));
        let found = names.into_iter().find_map(|n| checkpoint.get(&n));
        let info = found.ok_or_else(|| {
            let hint = "is not in the checkpoint, and the config asks for it: do config and weights belong together?";
            tensor_error(path, &file_name(&t.name), hint)
        })?;
        if info.shape != t.shape {
            let message =
                format!("has shape {:?} in the file; the config asks for {:?}", info.shape, t.shape);
            return Err(tensor_error(&info.file, &info.name, message));
        }
        t.dtype = info.encoding.name().to_owned();
        outputs.push(pomona_graph::RecipeOutput {
            name: t.name.clone(),
            shape: t.shape.clone(),
            expr: Expr::copy(&info.name),
        });
    }
    Ok(Recipe { outputs })
}
