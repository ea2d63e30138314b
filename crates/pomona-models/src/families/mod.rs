//! Architectures: from a config.json to a description of the network. One file a family.

mod common;
mod llama;
mod mistral;
mod qwen2;
mod rope;

use pomona_graph::Graph;
use serde_json::Value;

use crate::config::Fields;
use crate::decoder::{BLOCKS, Decoder};
use crate::error::Result;

/// An architecture that is known by its `model_type`.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// Class of the language model in transformers.
    pub class: &'static str,
    /// `general.architecture` in GGUF.
    pub gguf: &'static str,
    /// Whether GGUF stores the rows of q and k in pairs (its "normal" rotary order).
    pub gguf_pairs: bool,
    /// Path under which the blocks stand.
    pub blocks: &'static str,
    /// The config's key for the number of blocks.
    pub depth_key: &'static str,
    read: fn(&Fields<'_>) -> Result<Decoder>,
}

const FAMILIES: &[Family] = &[llama::FAMILY, mistral::FAMILY, qwen2::FAMILY];

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.model_type)
    }
}

impl Family {
    const fn decoder(
        model_type: &'static str,
        class: &'static str,
        read: fn(&Fields<'_>) -> Result<Decoder>,
    ) -> Family {
        Family {
            model_type,
            class,
            gguf: "llama",
            gguf_pairs: true,
            blocks: BLOCKS,
            depth_key: "num_hidden_layers",
            read,
        }
    }

    /// The network that a config describes.
    pub(crate) fn describe(&self, config: &Fields<'_>) -> Result<Decoder> {
        (self.read)(config)
    }

    /// The graph of a config, every tensor in the config's own type.
    pub(crate) fn graph(&self, config: &Fields<'_>) -> Result<Graph> {
        let dtype = common::dtype(config)?;
        Ok(self.describe(config)?.graph(dtype)?)
    }
}

/// The family of a `model_type`.
pub(crate) fn by_model_type(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.model_type == model_type)
}

/// The family of a config.
pub(crate) fn of_config(config: &Value) -> Option<&'static Family> {
    config.get("model_type").and_then(Value::as_str).and_then(by_model_type)
}

/// Every `model_type` whose graph is known, sorted.
pub fn known_types() -> Vec<&'static str> {
    let mut names: Vec<_> = FAMILIES.iter().map(|f| f.model_type).collect();
    names.sort_unstable();
    names
}
