//! `pomona.json`: what an output is. Graphs, how the file's tensors make theirs, and where the model came from.

use std::path::Path;

use pomona_graph::{Expr, Graph, GraphError, Plan, Recipe};
use pomona_store::Checkpoint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Result, file_error, read_text, tensor_error};
use crate::model::{Component, Model, SourceKind, source_of};
use crate::open::MANIFEST;

/// Version of the manifest that this crate writes and reads.
pub(crate) const VERSION: u32 = 1;
/// Graphs of the largest models are some megabytes.
const MAX_MANIFEST: u64 = 512 << 20;

/// The whole manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub version: u32,
    pub tool: String,
    pub architecture: String,
    /// Format of the weights beside it: `hf`, `gguf` or `pomona`.
    pub format: String,
    /// What the output was made from.
    pub source: Origin,
    /// Plans from the original model to this one, oldest first.
    pub lineage: Vec<Plan>,
    /// Trainings since the original model, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub training: Vec<Value>,
    pub config: Value,
    pub components: Vec<Part>,
}

/// The model that an output was made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Name of its file or directory.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// A component.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its folder in a pipeline; empty where there is only one component.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub folder: String,
    /// What its config calls it, where there are several components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Its config, where there are several components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Node paths and tensor names are the original model's.
    pub graph: Graph,
    /// How the graph's tensors come from the file's: new names and, for GGUF, row order.
    pub import: Recipe,
}

impl Manifest {
    pub(crate) fn to_json(&self) -> Result<String> {
        // A manifest is read by people too, but a recipe's index lists make a pretty one endless.
        let text = serde_json::to_string(self).map_err(|e| GraphError::Plan(e.to_string()))?;
        Ok(text + "\n")
    }
}

/// Reads the manifest of an output directory.
pub(crate) fn read(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    let text = read_text(&path, MAX_MANIFEST)?;
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let bad = |e: serde_json::Error| file_error(&path, format!("is not a manifest: {e}"));
    let head: Head = serde_json::from_str(&text).map_err(bad)?;
    if head.version != VERSION {
        let message = format!(
            "has version {}; this program reads version {VERSION}: make the output again",
            head.version
        );
        return Err(file_error(&path, message));
    }
    serde_json::from_str(&text).map_err(bad)
}

/// Opens an output directory of this program.
pub(crate) fn open(dir: &Path) -> Result<Model> {
    let Manifest { architecture, config, lineage, training, components: parts, .. } = read(dir)?;
    let mut components = Vec::with_capacity(parts.len());
    for part in parts {
        let one: Component = component(dir, part, &architecture, &config)?;
        if components.iter().any(|c: &Component| c.name == one.name) {
            let message = format!("has the component `{}` twice", one.name);
            return Err(file_error(&dir.join(MANIFEST), message));
        }
        components.push(one);
    }
    if components.is_empty() {
        return Err(file_error(&dir.join(MANIFEST), "has no component"));
    }
    let path = dir.to_owned();
    Ok(Model { architecture, source: SourceKind::Pomona, path, config, components, lineage, training })
}

fn component(dir: &Path, part: Part, architecture: &str, config: &Value) -> Result<Component> {
    let path = dir.join(MANIFEST);
    let Part { folder, graph, import, .. } = part;
    if !folder.is_empty()
        && !Path::new(&folder).components().all(|c| matches!(c, std::path::Component::Normal(_)))
    {
        return Err(file_error(
            &path,
            format!("has a component in `{folder}`, which is not inside the directory"),
        ));
    }
    let own = if folder.is_empty() { dir.to_owned() } else { dir.join(&folder) };
    let checkpoint = Checkpoint::open(&own)?;
    graph.validate()?;
    if let Some(o) = import.outputs.iter().find(|o| !only_rearranges(&o.expr)) {
        return Err(tensor_error(
            &path,
            &o.name,
            "is made from more than the files' tensors, which no output is",
        ));
    }
    import.check(&|name| source_of(Some(&checkpoint), name))?;
    for t in &graph.tensors {
        let made = import.output(&t.name).filter(|o| o.shape == t.shape);
        if made.is_none() {
            let message = format!("of shape {:?} is not made from the files", t.shape);
            return Err(tensor_error(&path, &t.name, message));
        }
    }
    Ok(Component {
        name: graph.name.clone(),
        architecture: part.architecture.unwrap_or_else(|| architecture.to_owned()),
        folder,
        path: own,
        config: part.config.unwrap_or_else(|| config.clone()),
        graph,
        import,
        checkpoint: Some(checkpoint),
        unused: Vec::new(),
    })
}

/// What an import does. Operations that make tensors larger than their sources are never in a manifest: a damaged one
/// must not ask for more memory than its files have elements.
fn only_rearranges(expr: &Expr) -> bool {
    match expr {
        Expr::Copy { .. } => true,
        Expr::Gather { of, .. }
        | Expr::Split { of, .. }
        | Expr::Transpose { of, .. }
        | Expr::Reshape { of, .. }
        | Expr::Cast { of, .. }
        | Expr::Decode { of } => only_rearranges(of),
        Expr::Concat { of, .. } => of.iter().all(only_rearranges),
        Expr::Tile { .. } | Expr::WeightedSum { .. } | Expr::Initialise { .. } | Expr::Literal { .. } => {
            false
        }
    }
}
