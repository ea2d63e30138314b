//! An open model: its graph, how its tensors come from the files, and the files.

use std::path::{Path, PathBuf};

use pomona_graph::{Expr, Graph, Plan, Recipe, SourceTensor};
use pomona_store::Checkpoint;
use serde_json::Value;

use crate::error::{ModelError, Result, not_a_model, tensor_error};
use crate::families::{self, Family, Known};
use crate::recipe_exec;

/// What kind of files a model was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory with a config.json and safetensors, as transformers writes it.
    HuggingFace,
    /// A GGUF file.
    Gguf,
    /// An ONNX file.
    Onnx,
    /// A directory with a model_index.json and a folder for each component, as diffusers writes it.
    Pipeline,
    /// A PyTorch file, with a config beside it or without one.
    StateDict,
    /// A config.json without weights.
    Config,
    /// A directory that this program wrote (`pomona.json`).
    Pomona,
}

/// A network of the model and how its tensors are made from the source's.
#[derive(Debug)]
pub struct Component {
    /// `model` where there is only one, else the pipeline's name for it (`unet`).
    pub name: String,
    /// What the config calls the network: `llama`, `UNet2DConditionModel`, `resnet50`.
    pub architecture: String,
    /// Its folder in the model's directory; empty where there is only one component.
    pub folder: String,
    /// Its directory or file.
    pub path: PathBuf,
    /// Its config; made from the metadata where the source was GGUF.
    pub config: Value,
    /// The graph. Without nodes where the architecture is not known (see [`Component::is_opaque`]).
    pub graph: Graph,
    /// One output for each tensor of the graph, in the graph's order, over the checkpoint's tensors.
    pub import: Recipe,
    /// The weights; none for a bare config.
    pub checkpoint: Option<Checkpoint>,
    /// Tensors of the checkpoint that the graph does not read.
    pub unused: Vec<String>,
}

/// A model: graphs, files and what is known about where it came from.
#[derive(Debug)]
pub struct Model {
    /// What the config calls it: `llama`, `UNet2DConditionModel`, `StableDiffusionPipeline`.
    pub architecture: String,
    /// What was read.
    pub source: SourceKind,
    /// The path as it was given.
    pub path: PathBuf,
    /// config.json or model_index.json; made from the metadata where the source was GGUF.
    pub config: Value,
    /// Networks; a pipeline has several.
    pub components: Vec<Component>,
    /// Plans that led here from the original model, oldest first.
    pub lineage: Vec<Plan>,
    /// What it was trained on and how since the original model, oldest first.
    pub training: Vec<Value>,
}

impl Component {
    /// The directory that it is or lies in.
    pub fn directory(&self) -> &Path {
        match self.path.is_dir() {
            true => &self.path,
            false => self.path.parent().unwrap_or(Path::new(".")),
        }
    }

    /// Whether only tensors are known, no computation: such a model can be inspected, cut by blocks and saved, not run.
    pub fn is_opaque(&self) -> bool {
        self.graph.nodes.is_empty()
    }

    /// A file's name from the model's directory.
    pub(crate) fn in_folder(&self, file: &str) -> String {
        if self.folder.is_empty() { file.to_owned() } else { format!("{}/{file}", self.folder) }
    }

    /// What is known about its config.
    pub(crate) fn known(&self) -> Option<Known> {
        let by_name = || families::by_model_type(&self.architecture).map(Known::Decoder);
        families::of_config(&self.config).map(|(known, _)| known).or_else(by_name)
    }

    /// Tensors of the checkpoint that the graph does not read, that no operator of the graph carries along, and that are no
    /// tables which loaders compute anyway: an output without them is not the whole source.
    pub fn left_over(&self) -> Vec<&str> {
        let carried: Vec<&str> = crate::save::carried(self, &self.graph).collect();
        let unused = self.unused.iter().map(String::as_str);
        unused.filter(|n| !is_computed(n) && !carried.contains(n)).collect()
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

    /// The expression that makes a graph tensor from the checkpoint.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] where the graph has no such tensor.
    pub fn import_of(&self, tensor: &str) -> Result<&Expr> {
        let made = self.import.output(tensor);
        made.map(|o| &o.expr).ok_or_else(|| tensor_error(&self.path, tensor, "is not in the graph"))
    }

    /// The file that a graph tensor is made from; the first, where there are several.
    pub fn file_of(&self, tensor: &str) -> PathBuf {
        let mut file = None;
        if let Ok(expr) = self.import_of(tensor) {
            expr.visit_sources(&mut |name| {
                let found = self.checkpoint.as_ref().and_then(|c| c.get(name));
                file = file.take().or_else(|| found.map(|info| info.file.clone()));
            });
        }
        file.unwrap_or_else(|| self.path.clone())
    }

    /// A graph tensor as f32, row-major in the graph's shape.
    ///
    /// # Errors
    /// Where there are no weights, or the encoding cannot be decoded.
    pub fn materialise(&self, tensor: &str) -> Result<Vec<f32>> {
        let expr = self.import_of(tensor)?;
        recipe_exec::materialise(expr, Some(self.weights("reading weights")?))
    }

    /// A graph tensor as its file stores it, where that is 16-bit floats or Q8_0 in the graph's order.
    ///
    /// # Errors
    /// As [`Component::materialise`].
    pub fn narrow(&self, tensor: &str) -> Result<Option<(&[u8], pomona_store::Encoding)>> {
        let expr = self.import_of(tensor)?;
        recipe_exec::narrow(expr, Some(self.weights("reading weights")?))
    }

    /// Slices `rows` of the first axis of a graph tensor as f32.
    ///
    /// # Errors
    /// As [`Component::materialise`], and where the rows lie outside the tensor.
    pub fn materialise_rows(&self, tensor: &str, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let expr = self.import_of(tensor)?;
        recipe_exec::materialise_rows(expr, Some(self.weights("reading weights")?), rows)
    }
}

impl Model {
    /// A model of one component, which has the model's path and config.
    pub(crate) fn single(source: SourceKind, mut component: Component, lineage: Vec<Plan>) -> Model {
        component.graph.name.clone_from(&component.name);
        Model {
            architecture: component.architecture.clone(),
            source,
            path: component.path.clone(),
            config: component.config.clone(),
            components: vec![component],
            lineage,
            training: Vec::new(),
        }
    }

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

    /// Whether the computation of a component is not known.
    pub fn is_opaque(&self) -> bool {
        self.components.iter().any(Component::is_opaque)
    }

    /// The decoder family of the only component.
    pub(crate) fn family(&self) -> Option<&'static Family> {
        match self.only().ok()?.known()? {
            Known::Decoder(family) => Some(family),
            Known::Network(_) => None,
        }
    }

    /// The only component's checkpoint; none for a bare config.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.only().ok()?.checkpoint.as_ref()
    }

    /// The only component's checkpoint, or an error that says that `action` needs one.
    ///
    /// # Errors
    /// [`ModelError::NoWeights`] for a bare config.
    pub fn weights(&self, action: &str) -> Result<&Checkpoint> {
        self.only()?.weights(action)
    }

    /// [`Component::materialise`] of the only component.
    ///
    /// # Errors
    /// As there.
    pub fn materialise(&self, tensor: &str) -> Result<Vec<f32>> {
        self.only()?.materialise(tensor)
    }

    /// [`Component::materialise_rows`] of the only component.
    ///
    /// # Errors
    /// As there.
    pub fn materialise_rows(&self, tensor: &str, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        self.only()?.materialise_rows(tensor, rows)
    }

    /// [`Component::left_over`] of every component.
    pub fn left_over(&self) -> Vec<&str> {
        self.components.iter().flat_map(Component::left_over).collect()
    }

    /// Files that are read: an output may be none of them.
    pub fn source_paths(&self) -> Vec<PathBuf> {
        let mut out = vec![self.path.clone()];
        let files = self.components.iter().filter_map(|c| c.checkpoint.as_ref());
        out.extend(files.flat_map(Checkpoint::files).map(Path::to_owned));
        out
    }
}

/// Whether a tensor of this name is a table that loaders make themselves: rotary frequencies, masks, positions.
pub(crate) fn is_computed(name: &str) -> bool {
    const TABLES: [&str; 8] = [
        "rotary_emb.inv_freq",
        "rope_freqs.weight",
        "position_ids",
        "attn.bias",
        "attn.masked_bias",
        "num_batches_tracked",
        "attention.bias",
        "attention.masked_bias",
    ];
    TABLES.iter().any(|t| name.strip_suffix(t).is_some_and(|head| head.is_empty() || head.ends_with('.')))
}

/// The checkpoint's tensors as recipes ask for them.
pub(crate) fn source_of(checkpoint: Option<&Checkpoint>, name: &str) -> Option<SourceTensor> {
    let info = checkpoint?.get(name)?;
    Some(SourceTensor::new(info.shape.clone(), info.encoding.name()))
}

/// A recipe that copies every tensor of the graph from a checkpoint with the same names and shapes; the graph's tensors
/// get the checkpoint's encodings. `other_names` gives names that a tensor may have there instead of its own, `transposed`
/// says which matrices lie the other way round in the file.
pub(crate) fn import_by_name(
    path: &Path,
    graph: &mut Graph,
    checkpoint: &Checkpoint,
    other_names: &dyn Fn(&str) -> Vec<String>,
    transposed: &dyn Fn(&str) -> bool,
) -> Result<Recipe> {
    let mut outputs = Vec::with_capacity(graph.tensors.len());
    for t in &mut graph.tensors {
        let own = std::iter::once(&t.name).chain(&t.aliases);
        let found = own.clone().find_map(|n| checkpoint.get(n));
        let found = found.or_else(|| own.flat_map(|n| other_names(n)).find_map(|n| checkpoint.get(&n)));
        let info = found.ok_or_else(|| {
            let hint = "is not in the checkpoint, and the config asks for it: do config and weights belong together?";
            tensor_error(path, &t.name, hint)
        })?;
        let turned = transposed(&t.name);
        let mut wanted = t.shape.clone();
        if turned {
            wanted.reverse();
        }
        if info.shape != wanted {
            let message = format!("has shape {:?} in the file; the config asks for {:?}", info.shape, wanted);
            return Err(tensor_error(&info.file, &info.name, message));
        }
        t.dtype = info.encoding.name().to_owned();
        outputs.push(pomona_graph::RecipeOutput {
            name: t.name.clone(),
            shape: t.shape.clone(),
            expr: if turned { flipped(Expr::copy(&info.name)) } else { Expr::copy(&info.name) },
        });
    }
    Ok(Recipe { outputs })
}

/// A matrix the other way round.
pub(crate) fn flipped(of: Expr) -> Expr {
    Expr::Transpose { axes: vec![1, 0], of: Box::new(of) }
}
