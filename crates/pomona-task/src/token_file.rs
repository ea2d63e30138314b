//! Windows that were tokenized elsewhere: `{"calibration": [[id, ...], ...], "evaluation": [[id, ...], ...]}`, so that two
//! programs can be compared on the same tokens.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::data::Windows;
use crate::error::{Result, TaskError};

/// Bytes in which a file of windows begins its first window.
const START: u64 = 4 << 10;

/// Whether a data file holds windows of token ids rather than text.
pub fn is_token_file(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "json")
}

/// Whether a `.json` file that may hold records instead is one of windows: an object whose first value is a list of lists.
pub fn holds_windows(path: &Path) -> bool {
    let start = || -> std::io::Result<String> {
        let mut bytes = Vec::new();
        File::open(path)?.take(START).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let opens = |text: &str| {
        let (_, value) =
            text.trim_start().strip_prefix('{')?.trim_start().strip_prefix('"')?.split_once('"')?;
        let list = value.trim_start().strip_prefix(':')?.trim_start().strip_prefix('[')?;
        list.trim_start().strip_prefix('[').map(|_| ())
    };
    is_token_file(path) && start().is_ok_and(|text| opens(&text).is_some())
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
        assert!(holds_windows(&path));
        for other in
            [r#"[{"text": "[["}]"#, r#"{"text": "a [[b]]"}"#, r#"{"messages": [{"role": "user"}]}"#, ""]
        {
            let path = dir.path().join("records.json");
            std::fs::write(&path, other).unwrap();
            assert!(!holds_windows(&path), "{other}");
        }
        assert_eq!(token_windows(&path, "calibration", 7).unwrap().ids, [[1, 2, 3], [4, 5, 6]]);
        for (key, vocab) in [("calibration", 6), ("short", 9), ("evaluation", 9)] {
            let message = token_windows(&path, key, vocab).unwrap_err().to_string();
            assert!(message.contains("tokens.json") && message.contains(key), "{message}");
        }
        std::fs::write(&path, "[[1").unwrap();
        assert!(token_windows(&path, "calibration", 9).is_err());
    }
}
