//! Metadata of a GGUF file: checked reading, and cutting to a new depth.

use std::path::Path;

use pomona_store::{Checkpoint, GgufValue};

use crate::error::{ModelError, Result};

/// Largest size in the metadata, as in a config.
const MAX_SIZE: u64 = 1 << 31;

/// Reads `ARCHITECTURE.key` values; errors name file and key.
pub(super) struct Metadata<'a> {
    file: &'a Checkpoint,
    architecture: String,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(file: &'a Checkpoint) -> Result<Self> {
        let name = file.gguf("general.architecture").and_then(GgufValue::as_str);
        let architecture = name.ok_or_else(|| fault(file.path(), "general.architecture", "is missing"))?;
        Ok(Self { file, architecture: architecture.to_owned() })
    }

    pub(super) fn architecture(&self) -> &str {
        &self.architecture
    }

    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn fault(&self, key: &str, message: impl Into<String>) -> ModelError {
        fault(self.file.path(), &self.key(key), message)
    }

    fn get(&self, key: &str) -> Option<&'a GgufValue> {
        self.file.gguf(&self.key(key))
    }

    fn as_size(&self, key: &str, v: &GgufValue) -> Result<usize> {
        let n = v.as_u64().filter(|n| (1..=MAX_SIZE).contains(n)).and_then(|n| usize::try_from(n).ok());
        n.ok_or_else(|| self.fault(key, format!("is {}; a whole number from 1 was expected", show(v))))
    }

    pub(super) fn maybe_size(&self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|v| self.as_size(key, v)).transpose()
    }

    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.maybe_size(key)?.ok_or_else(|| self.fault(key, "is missing"))
    }

    /// A size for each block: one number for all, or an array with an entry a block.
    pub(super) fn sizes(&self, key: &str, blocks: usize) -> Result<Option<Vec<usize>>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        match v.as_array() {
            None => Ok(Some(vec![self.as_size(key, v)?; blocks])),
            Some(items) if items.len() == blocks => {
                items.iter().map(|v| self.as_size(key, v)).collect::<Result<_>>().map(Some)
            }
            Some(items) => Err(self.fault(
                key,
                format!("has {} entries; one for each of {blocks} blocks was expected", items.len()),
            )),
        }
    }

    pub(super) fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        let Some(v) = self.get(key) else { return Ok(default) };
        let n = v.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        n.ok_or_else(|| self.fault(key, format!("is {}; a number above 0 was expected", show(v))))
    }

    /// A truth value.
    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(v) = self.get(key) else { return Ok(default) };
        v.as_bool().ok_or_else(|| self.fault(key, format!("is {}; true or false was expected", show(v))))
    }

    /// A window: 0 means none.
    pub(super) fn window(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            Some(v) if v.as_u64() == Some(0) => Ok(None),
            _ => self.maybe_size(key),
        }
    }

    pub(super) fn text_or(&self, key: &str, default: &'static str) -> Result<&'a str> {
        let Some(v) = self.get(key) else { return Ok(default) };
        v.as_str().ok_or_else(|| self.fault(key, format!("is {}; a string was expected", show(v))))
    }
}

fn fault(path: &Path, key: &str, message: impl Into<String>) -> ModelError {
    ModelError::Config { path: path.to_owned(), key: key.to_owned(), message: message.into() }
}

fn show(v: &GgufValue) -> String {
    let text = format!("{v:?}");
    if text.len() > 80 { format!("{}...", text.chars().take(77).collect::<String>()) } else { text }
}

/// The metadata with these of `depth` blocks: `block_count` and every array that has an entry a block.
///
/// An array under `ARCHITECTURE.` of exactly `depth` entries is per block: llama.cpp refuses a file in which any such array
/// keeps its old length. The tokenizer's arrays stand under other keys and are never touched.
pub(crate) fn cut_metadata(
    metadata: &[(String, GgufValue)],
    depth: usize,
    kept: &[usize],
) -> Vec<(String, GgufValue)> {
    let architecture =
        metadata.iter().find(|(k, _)| k == "general.architecture").and_then(|(_, v)| v.as_str());
    let prefix = format!("{}.", architecture.unwrap_or_default());
    let cut = |(key, value): &(String, GgufValue)| {
        let own = key.strip_prefix(&prefix);
        let value = match (own, value) {
            (Some("block_count"), v) => with_number(v, kept.len()),
            (Some(_), GgufValue::Array(ty, items)) if items.len() == depth => {
                GgufValue::Array(*ty, kept.iter().filter_map(|i| items.get(*i)).cloned().collect())
            }
            _ => value.clone(),
        };
        (key.clone(), value)
    };
    metadata.iter().map(cut).collect()
}

/// The number in the type that the file used.
fn with_number(old: &GgufValue, n: usize) -> GgufValue {
    match old {
        GgufValue::U64(_) => GgufValue::U64(n as u64),
        GgufValue::I64(_) => GgufValue::I64(n as i64),
        GgufValue::I32(_) => GgufValue::I32(n as i32),
        GgufValue::U16(_) => GgufValue::U16(n as u16),
        _ => GgufValue::U32(n as u32),
    }
}
