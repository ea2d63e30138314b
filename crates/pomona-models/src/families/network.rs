//! Networks that are a function from a config to a graph: one table entry each, found by a key of config.json.

use pomona_graph::Graph;
use serde_json::Value;

use crate::config::Fields;
use crate::error::Result;
use crate::stock::Renumbering;

/// The key of config.json that names a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// transformers: `model_type`.
    ModelType,
    /// diffusers: `_class_name`.
    ClassName,
    /// timm and plain state dicts with a config: `architecture`.
    Architecture,
}

impl Key {
    /// The key as it stands in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Key::ModelType => "model_type",
            Key::ClassName => "_class_name",
            Key::Architecture => "architecture",
        }
    }
}

/// A config and names, if the format has such a config at all; else why not, a sentence each.
pub(crate) type Stock = std::result::Result<(Value, Renumbering), Vec<String>>;

/// A network that is known by its config. Add one with `Network { .., ..Network::new(key, names, build) }`.
#[derive(Clone, Copy)]
pub(crate) struct Network {
    /// The key that selects it.
    pub key: Key,
    /// The values of that key that mean this network.
    pub names: &'static [&'static str],
    /// The graph of a config, every tensor in the config's own type. Node paths are the state dict's module names.
    pub build: fn(&Fields<'_>) -> Result<Graph>,
    /// Names that a tensor of the graph may have in a file instead of its own, most usual first.
    pub other_names: fn(&str) -> Vec<String>,
    /// The config and the names under which stock loaders could hold an edited graph: `(config, graph before, graph
    /// after)`. Whether they can is found out by building the graph of that config and comparing.
    pub stock: fn(&Value, &Graph, &Graph) -> Stock,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.names.join("|"))
    }
}

impl Network {
    /// A network whose files have the graph's names and whose config cannot say that a part is missing.
    pub(crate) const fn new(
        key: Key,
        names: &'static [&'static str],
        build: fn(&Fields<'_>) -> Result<Graph>,
    ) -> Network {
        Network { key, names, build, other_names: no_other_names, stock: unchanged }
    }

    /// Stem of its weight file.
    pub(crate) fn file_stem(&self) -> &'static str {
        match self.key {
            Key::ClassName => "diffusion_pytorch_model",
            Key::ModelType | Key::Architecture => "model",
        }
    }
}

fn no_other_names(_: &str) -> Vec<String> {
    Vec::new()
}

/// The same config and names: right where every removed part shows in the config's own sizes, or nothing was removed.
fn unchanged(config: &Value, _: &Graph, _: &Graph) -> Stock {
    Ok((config.clone(), Renumbering::default()))
}
