//! What stages came to, so that nothing is done twice: `run.json` in the recipe's folder.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A stage that was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Hash of its words, its inputs and the stages before it.
    pub key: String,
    /// The command.
    pub words: Vec<String>,
    /// Whether it came to its end.
    pub done: bool,
    /// How long it took.
    pub seconds: f64,
}

/// All of them, by label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kept(pub BTreeMap<String, Record>);

const FILE: &str = "run.json";

impl Kept {
    /// Of a folder; empty where nothing was done in it.
    pub fn read(folder: &Path) -> Result<Kept> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(Kept::default());
        }
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{}: is no record of stages", path.display()))
    }

    /// Puts it into the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(pomona_store::write_atomic(folder.join(FILE), text.as_bytes())?)
    }
}

/// Identity of an input: a model's fingerprint, or a file's content.
pub fn hash_input(path: &Path) -> Result<String> {
    let weights = [".gguf", ".safetensors", ".onnx", ".pth", ".pt", ".bin", ".ckpt", ".th"];
    let name = path.to_string_lossy().to_lowercase();
    if path.is_dir() || weights.iter().any(|w| name.ends_with(w)) {
        if let Ok(model) = pomona_models::open(path) {
            return Ok(model.fingerprint()?);
        }
        if path.is_dir() {
            // Pictures and the like: names and sizes.
            let mut entries: Vec<String> = std::fs::read_dir(path)
                .with_context(|| path.display().to_string())?
                .flatten()
                .map(|e| format!("{:?} {}", e.file_name(), e.metadata().map_or(0, |m| m.len())))
                .collect();
            entries.sort();
            return Ok(blake3::hash(entries.join("\n").as_bytes()).to_hex().to_string());
        }
    }
    let mut hash = blake3::Hasher::new();
    let mut file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    std::io::copy(&mut file, &mut hash).with_context(|| path.display().to_string())?;
    Ok(hash.finalize().to_hex().to_string())
}
