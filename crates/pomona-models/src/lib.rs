//! Importers and exporters between model files and graphs.

mod config;
mod decoder;
mod error;
mod families;
mod gguf;
mod manifest;
mod model;
mod opaque;
mod open;
pub mod recipe_exec;
pub mod tokenizer;

pub use error::{ModelError, Result};
pub use families::known_types;
pub use model::{Component, Model, SourceKind};
pub use open::open;
