//! What stages came to, so that nothing is done twice: `run.json` in the recipe's folder.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::context::open_model;

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

/// Identity of a model.
pub fn hash_model(path: &Path) -> Result<String> {
    Ok(open_model(path)?.fingerprint()?)
}

/// Identity of data: a file's content; of a directory (pictures and the like) every name below it, with its size.
pub fn hash_data(path: &Path) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    if path.is_dir() {
        let mut entries = Vec::new();
        list(path, &mut entries)?;
        entries.sort();
        entries.iter().for_each(|e| _ = hash.update(e.as_bytes()));
    } else {
        let mut file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        std::io::copy(&mut file, &mut hash).with_context(|| path.display().to_string())?;
    }
    Ok(hash.finalize().to_hex().to_string())
}

fn list(folder: &Path, entries: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let about = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
        if about.is_dir() {
            list(&path, entries)?;
        } else {
            entries.push(format!("{path:?} {}\n", about.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn data_are_known_by_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("class")).unwrap();
        let of = || (hash_data(dir.path()).unwrap(), hash_data(&dir.path().join("a.txt")).unwrap());
        write("a.txt", "one");
        let first = of();
        assert_eq!(first, of());
        write("a.txt", "two");
        assert!(of().1 != first.1 && of().0 == first.0);
        write("class/b.jpg", "x");
        assert_ne!(of().0, first.0);
    }
}
