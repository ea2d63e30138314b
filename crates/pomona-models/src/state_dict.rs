//! A bare PyTorch file: weights by name, and a config where one stands beside it.

use std::path::{Path, PathBuf};

use pomona_store::Checkpoint;
use serde_json::{Value, json};

use crate::config::read_object;
use crate::error::Result;
use crate::families;
use crate::model::{Component, Model, SourceKind};
use crate::opaque;
use crate::open::{CONFIG, known, parent};

/// Endings of the files that are read as PyTorch's.
pub(crate) const ENDINGS: [&str; 5] = [".pth", ".pt", ".th", ".bin", ".ckpt"];
/// What a state dict without a config is called.
const ARCHITECTURE: &str = "state dict";

/// Opens a file of weights with the config beside it ([`config_beside`]); without one, its tensors only.
pub(crate) fn open(path: &Path) -> Result<Model> {
    let checkpoint = Checkpoint::open(path)?;
    let component = match config_beside(path) {
        Some(config_path) => {
            let config = read_object(&config_path)?;
            match families::of_config(&config) {
                Some(found) => known(path, ("", "model"), (&config_path, config), checkpoint, found)?,
                None => opaque::open(path, "", "model", &config_path, config, checkpoint)?,
            }
        }
        None => without_config(path, checkpoint)?,
    };
    Ok(Model::single(SourceKind::StateDict, component, Vec::new()))
}

/// `net.json` beside `net.pth`; else config.json, where it names a network.
fn config_beside(path: &Path) -> Option<PathBuf> {
    let own = path.with_extension("json");
    let shared = parent(path).join(CONFIG);
    if own.is_file() {
        return Some(own);
    }
    // A config.json of another tool's is no reason not to open the tensors.
    let names = |p: &Path| read_object(p).is_ok_and(|c| families::name_in(&c).is_some());
    Some(shared).filter(|p| p.is_file() && names(p))
}

fn without_config(path: &Path, checkpoint: Checkpoint) -> Result<Component> {
    let named = json!({"architecture": ARCHITECTURE});
    let mut found = opaque::open(path, "", "model", path, named, checkpoint)?;
    found.config = Value::Object(serde_json::Map::new());
    Ok(found)
}
