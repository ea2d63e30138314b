//! Importers and exporters between model files and graphs.
//!
//! [`open`] reads a model: config and headers become a graph, and a recipe says how each tensor of the graph comes from the
//! files. [`save`] writes an edited one: recipes compose, what importer and exporter did cancels out, and untouched tensors
//! are copied byte for byte whatever their encoding.

mod config;
mod config_edit;
mod decoder;
mod error;
mod families;
mod fingerprint;
mod gguf;
mod init;
mod manifest;
mod model;
mod onnx;
mod opaque;
mod open;
mod pipeline;
pub mod recipe_exec;
mod save;
mod state_dict;
mod stock;
pub mod tokenizer;
mod trained;
mod verify;

pub use error::{ModelError, Result};
pub use families::known_types;
pub use init::{InitOptions, init};
pub use model::{Component, Model, SourceKind};
pub use open::open;
pub use save::{
    Figure, OutputFormat, SaveOptions, SavedReport, check_format, check_unused, representable, save,
    stock_names,
};
pub use trained::Change;
pub use verify::verify_output;
