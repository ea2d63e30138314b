//! Architectures: from a config.json to a network. One file a family of decoders, one folder a kind of other networks.

mod common;
pub(crate) mod diffusers;
mod falcon;
pub(crate) mod gan;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod llama;
mod mistral;
mod mixtral;
mod network;
mod olmo2;
mod opt;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen_moe;
mod resize;
mod rope;
mod stablelm;
pub(crate) mod vision;
mod windows;

use pomona_graph::Graph;
use serde_json::Value;

use crate::config::Fields;
use crate::decoder::{Decoder, Names};
use crate::error::Result;
use crate::gguf::Layout;
pub(crate) use common::Reading;
pub(crate) use network::{Key, Network};

/// An architecture that is known by its `model_type`.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// Class of the language model in transformers.
    pub class: &'static str,
    /// Keys of its config, and what its files and modules call the parts.
    pub keys: &'static Reading,
    /// Ends of the names of matrices that files hold transposed.
    pub transposed: &'static [&'static str],
    /// Without `layer_types`, a block's number says whether it has a window.
    pub windows_by_number: bool,
    /// How GGUF lays it out; none where llama.cpp does not know it, or it is not built yet.
    pub gguf: Option<Layout>,
    read: fn(&Fields<'_>) -> Result<Decoder>,
}

const FAMILIES: &[Family] = &[
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    gemma::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    phi3::FAMILY,
    olmo2::FAMILY,
    stablelm::FAMILY,
    opt::FAMILY,
    falcon::FAMILY,
    mixtral::FAMILY,
    qwen_moe::QWEN2,
    qwen_moe::QWEN3,
];

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.model_type)
    }
}

impl Family {
    const fn decoder(
        model_type: &'static str,
        class: &'static str,
        keys: &'static Reading,
        read: fn(&Fields<'_>) -> Result<Decoder>,
    ) -> Family {
        Family { model_type, class, keys, transposed: &[], windows_by_number: false, gguf: None, read }
    }

    /// What its files and modules call the parts.
    pub(crate) fn names(&self) -> &'static Names {
        self.keys.names
    }

    /// The network that a config describes.
    pub(crate) fn describe(&self, config: &Fields<'_>) -> Result<Decoder> {
        (self.read)(config)
    }

    /// A base model without its head is saved without the outer prefix; heads have had other names.
    fn other_names(&self, tensor: &str) -> Vec<String> {
        let names = self.names();
        let outer = names.model.split('.').next().unwrap_or_default();
        let bare = tensor.strip_prefix(outer).and_then(|t| t.strip_prefix('.')).map(str::to_owned);
        let head = tensor.strip_prefix(names.head).filter(|_| !names.old_head.is_empty());
        bare.into_iter().chain(head.map(|end| format!("{}{end}", names.old_head))).collect()
    }

    /// The graph of a config, every tensor in the config's own type.
    pub(crate) fn graph(&self, config: &Fields<'_>) -> Result<Graph> {
        let dtype = common::dtype(config)?;
        Ok(self.describe(config)?.graph(dtype)?)
    }
}

/// What is known about a config.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    /// A language model of the shared decoder.
    Decoder(&'static Family),
    /// Any other network.
    Network(&'static Network),
}

impl Known {
    /// The graph of a config, every tensor in the config's own type.
    pub(crate) fn graph(self, config: &Fields<'_>) -> Result<Graph> {
        let graph = match self {
            Known::Decoder(family) => family.graph(config),
            Known::Network(network) => (network.build)(config),
        };
        graph.map_err(|e| config.refused(e))
    }

    /// Names that a tensor may have in a file instead of its own.
    pub(crate) fn other_names(self, tensor: &str) -> Vec<String> {
        match self {
            Known::Decoder(family) => family.other_names(tensor),
            Known::Network(network) => (network.other_names)(tensor),
        }
    }

    /// Whether stock files hold a tensor transposed.
    pub(crate) fn transposed(self, tensor: &str) -> bool {
        match self {
            Known::Decoder(family) => family.transposed.iter().any(|end| tensor.ends_with(end)),
            Known::Network(_) => false,
        }
    }

    /// Stem of the weight file in a stock directory.
    pub(crate) fn file_stem(self) -> &'static str {
        match self {
            Known::Decoder(_) => "model",
            Known::Network(network) => network.file_stem(),
        }
    }

    /// Whether the config says the type of the weights.
    pub(crate) fn config_has_dtype(self) -> bool {
        match self {
            Known::Decoder(_) => true,
            Known::Network(network) => network.key == Key::ModelType,
        }
    }
}

fn networks() -> impl Iterator<Item = &'static Network> {
    [diffusers::NETWORKS, vision::NETWORKS, gan::NETWORKS].into_iter().flatten()
}

/// State dicts of wrapped models have a prefix.
pub(crate) fn wrapped(name: &str) -> Vec<String> {
    vec![format!("module.{name}"), format!("model.{name}")]
}

/// The family of a `model_type`.
pub(crate) fn by_model_type(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.model_type == model_type)
}

/// The family that reads a GGUF architecture, and how that is laid out.
pub(crate) fn by_gguf(architecture: &str) -> Option<(&'static Family, Layout)> {
    FAMILIES.iter().find_map(|f| Some((f, f.gguf.filter(|l| l.architecture == architecture)?)))
}

/// The GGUF architectures that are read, sorted.
pub(crate) fn gguf_names() -> Vec<&'static str> {
    let mut names: Vec<_> = FAMILIES.iter().filter_map(|f| f.gguf.map(|l| l.architecture)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a config describes, and the name by which it does.
pub(crate) fn of_config(config: &Value) -> Option<(Known, &'static str)> {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    if let Some(family) = text("model_type").and_then(by_model_type) {
        return Some((Known::Decoder(family), family.model_type));
    }
    networks().find_map(|n| {
        let value = text(n.key.name())?;
        let name = n.names.iter().find(|name| **name == value)?;
        Some((Known::Network(n), *name))
    })
}

/// The name by which a config calls its network, known or not.
pub(crate) fn name_in(config: &Value) -> Option<&str> {
    let keys = [Key::ModelType, Key::ClassName, Key::Architecture];
    keys.iter().find_map(|key| config.get(key.name()).and_then(Value::as_str))
}

/// The key under which a config names its network; `model_type` where it has none.
pub(crate) fn key_in(config: &Value) -> Key {
    let keys = [Key::ModelType, Key::ClassName, Key::Architecture];
    keys.into_iter()
        .find(|key| config.get(key.name()).is_some_and(Value::is_string))
        .unwrap_or(Key::ModelType)
}

/// The known names under one key, sorted.
pub(crate) fn known_under(key: Key) -> Vec<&'static str> {
    let others = networks().filter(|n| n.key == key).flat_map(|n| n.names.iter().copied());
    let families = FAMILIES.iter().map(|f| f.model_type).filter(|_| key == Key::ModelType);
    let mut names: Vec<_> = families.chain(others).collect();
    names.sort_unstable();
    names
}

/// Every network whose graph is known, by the name that its config has for it, sorted.
pub fn known_types() -> Vec<&'static str> {
    let others = networks().flat_map(|n| n.names.iter().copied());
    let mut names: Vec<_> = FAMILIES.iter().map(|f| f.model_type).chain(others).collect();
    names.sort_unstable();
    names
}
