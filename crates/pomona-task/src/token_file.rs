//! Windows that were tokenized elsewhere: `{"calibration": [[id, ...], ...], "evaluation": [[id, ...], ...]}`, so that two
//! programs can be compared on the same tokens.

use std::collections::BTreeMap;
use std::path::Path;

use crate::data::Windows;
use crate::error::{Result, TaskError};

/// Whether a data file holds windows of token ids rather than text.
pub fn is_token_file(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "json")
}

/// The windows under a key. All must have one length of at least two, and ids below `vocab`.
pub fn token_windows(path: &Path, key: &str, vocab: usize) -> Result<Windows> {
    let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
    let text = std::fs::read_to_string(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
    let parse = |e: serde_json::Error| fail(format!("is not a file of token windows: {e}"));
    let mut all: BTreeMap<String, Vec<Vec<u32>>> = serde_json::from_str(&text).map_err(parse)?;
    let names: Vec<String> = all.keys().cloned().collect();
    let ids = all.remove(key).ok_or_else(|| fail(format!("has no `{key}`; it has {}", names.join(", "))))?;
    let length = ids.first().map_or(0, Vec::len);
    if length < 2 || ids.iter().any(|w| w.len() != length) {
        return Err(fail(format!("`{key}`: windows of one length of at least 2 were expected")));
    }
    if let Some(id) = ids.iter().flatten().find(|id| **id as usize >= vocab) {
        return Err(fail(format!("`{key}`: token {id} is outside the model's vocabulary of {vocab}")));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(Windows::new(ids, format!("{name}, {key}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn windows_are_read_and_bad_files_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        std::fs::write(&path, r#"{"calibration": [[1, 2, 3], [4, 5, 6]], "short": [[1]]}"#).unwrap();
        assert_eq!(token_windows(&path, "calibration", 7).unwrap().ids, [[1, 2, 3], [4, 5, 6]]);
        for (key, vocab) in [("calibration", 6), ("short", 9), ("evaluation", 9)] {
            let message = token_windows(&path, key, vocab).unwrap_err().to_string();
            assert!(message.contains("tokens.json") && message.contains(key), "{message}");
        }
        std::fs::write(&path, "[[1").unwrap();
        assert!(token_windows(&path, "calibration", 9).is_err());
    }
}
