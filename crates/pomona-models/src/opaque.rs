//! Models of an unknown `model_type`: tensors without a computation. Whole blocks can be cut out by number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pomona_graph::{Expr, Graph, Recipe, RecipeOutput, Role, TensorDef};
use pomona_store::Checkpoint;
use serde_json::Value;

use crate::error::{ModelError, Result};
use crate::families;
use crate::model::Component;

/// The refusal of a config whose network is not known, where there are no weights to take shapes from.
pub(crate) fn unknown(path: &Path, config: &Value) -> ModelError {
    let key = families::key_in(config);
    let known = families::known_under(key).join(", ");
    let message = match families::name_in(config) {
        Some(t) => format!(
            "is \"{t}\", which is not known, and without weights there are no shapes; known are {known}"
        ),
        None => format!("is missing (and _class_name and architecture are too); known are {known}"),
    };
    ModelError::Config { path: path.to_owned(), key: key.name().to_owned(), message }
}

/// Opens tensors only.
pub(crate) fn open(
    dir: &Path,
    folder: &str,
    name: &str,
    config_path: &Path,
    config: Value,
    file: Checkpoint,
) -> Result<Component> {
    let Some(architecture) = families::name_in(&config).map(str::to_owned) else {
        return Err(unknown(config_path, &config));
    };
    let mut graph = Graph::new(name);
    let mut outputs = Vec::with_capacity(file.tensors().len());
    for t in file.tensors() {
        graph.tensors.push(TensorDef {
            name: t.name.clone(),
            shape: t.shape.clone(),
            dtype: t.encoding.name().to_owned(),
            role: role(t.encoding.is_plain_float(), &t.name),
            aliases: Vec::new(),
        });
        let expr = Expr::copy(&t.name);
        outputs.push(RecipeOutput { name: t.name.clone(), shape: t.shape.clone(), expr });
    }
    for prefix in block_lists(&graph) {
        for i in numbers(&graph, &prefix) {
            graph.modules.insert(format!("{prefix}.{i}"), "Block".to_owned());
        }
    }
    graph.validate()?;
    let import = Recipe { outputs };
    Ok(Component {
        name: name.to_owned(),
        architecture,
        folder: folder.to_owned(),
        path: dir.to_owned(),
        config,
        graph,
        import,
        checkpoint: Some(file),
        unused: Vec::new(),
    })
}

/// Integers and running statistics are not trained.
fn role(float: bool, name: &str) -> Role {
    let last = name.rsplit('.').next().unwrap_or(name);
    let buffer = matches!(last, "running_mean" | "running_var" | "inv_freq" | "position_ids");
    if float && !buffer { Role::Parameter } else { Role::Buffer }
}

/// Every number that stands after `prefix.` in a tensor's name.
pub(crate) fn numbers(graph: &Graph, prefix: &str) -> BTreeSet<usize> {
    let number = |t: &TensorDef| number_after(&t.name, prefix);
    graph.tensors.iter().filter_map(number).collect()
}

pub(crate) fn number_after(name: &str, prefix: &str) -> Option<usize> {
    let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
    rest.split('.').next()?.parse().ok()
}

/// Name within a block, and shape, of each of its tensors.
type Contents = BTreeSet<(String, Vec<usize>)>;

/// Prefixes of numbered modules that look like a stack of blocks: outermost numbers only, at least one tensor of the same
/// name and shape in every block, so that stacks with a few blocks of another kind count too.
pub(crate) fn block_lists(graph: &Graph) -> Vec<String> {
    let mut lists: BTreeMap<String, BTreeMap<usize, Contents>> = BTreeMap::new();
    for t in &graph.tensors {
        let parts: Vec<&str> = t.name.split('.').collect();
        let Some(at) = parts.iter().position(|p| p.parse::<usize>().is_ok()) else { continue };
        let Ok(i) = parts[at].parse() else { continue };
        let inside = (parts[at + 1..].join("."), t.shape.clone());
        lists.entry(parts[..at].join(".")).or_default().entry(i).or_default().insert(inside);
    }
    let stack = |blocks: &BTreeMap<usize, Contents>| {
        let Some(first) = blocks.values().next() else { return false };
        let shared = first.iter().any(|t| blocks.values().all(|b| b.contains(t)));
        blocks.len() > 1 && blocks.values().all(|b| b.len() > 1) && shared
    };
    lists.into_iter().filter(|(p, b)| !p.is_empty() && stack(b)).map(|(p, _)| p).collect()
}
