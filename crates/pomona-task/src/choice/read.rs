//! Questions of a file: JSON lines, or one JSON list.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Layout, Question};
use crate::data::TextRange;
use crate::error::{Result, TaskError};

/// The questions of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// The questions, in the file's order.
    pub all: Vec<Question>,
    /// The layout that they had.
    pub layout: Layout,
    /// BLAKE3 of questions, options and answers.
    pub fingerprint: String,
    /// For people: file and lines.
    pub source: String,
}

/// Reads questions; the lines of the range count entries of a list where the file is one. Without a layout the first
/// entry's keys tell it. `limit` takes the first ones only.
///
/// # Errors
/// A file that cannot be read, and an entry that does not fit the layout, with its line.
pub fn read_questions(range: &TextRange, layout: Option<Layout>, limit: Option<usize>) -> Result<Questions> {
    let path = range.path.as_path();
    let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
    let bytes = std::fs::read(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| fail(format!("is not UTF-8 text (byte {})", e.utf8_error().valid_up_to())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (kind, entries) = entries(path, text)?;
    let last = entries.last().map_or(0, |(line, _)| *line);
    let (from, to) = range.lines.unwrap_or((1, last));
    if to > last {
        return Err(fail(format!("has {last} {kind}s, {from}-{to} was asked for")));
    }
    let picked = entries.into_iter().filter(|(line, _)| (from..=to).contains(line));
    let mut all = Vec::new();
    let mut layout = layout;
    for (line, entry) in picked.take(limit.unwrap_or(usize::MAX)) {
        let fault = |message: String| fail(format!("{kind} {line}: {message}"));
        let object: &Map<String, Value> =
            entry.as_object().ok_or_else(|| fault("is no JSON object".to_owned()))?;
        let known = match layout.or_else(|| Layout::of(object)) {
            Some(known) => known,
            None => {
                let keys: Vec<&str> = object.keys().map(String::as_str).collect();
                return Err(fault(format!(
                    "no layout has the keys {}: name one with --layout",
                    keys.join(", ")
                )));
            }
        };
        layout = Some(known);
        let mut question =
            known.parse(object).map_err(|m| fault(format!("{m} (layout {})", known.name())))?;
        question.line = line;
        all.push(question);
    }
    let Some(layout) = layout.filter(|_| !all.is_empty()) else {
        return Err(fail("has no questions".to_owned()));
    };
    Ok(Questions { fingerprint: fingerprint(&all), all, layout, source: range.describe() })
}

/// What an entry is called, and all with their place.
fn entries(path: &Path, text: &str) -> Result<(&'static str, Vec<(usize, Value)>)> {
    let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
    if text.trim_start().starts_with('[') {
        let list: Vec<Value> =
            serde_json::from_str(text).map_err(|e| fail(format!("is no JSON list of questions: {e}")))?;
        return Ok(("entry", list.into_iter().enumerate().map(|(i, v)| (i + 1, v)).collect()));
    }
    let mut entries = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(line).map_err(|e| {
            fail(format!("line {}: is no JSON (column {}): {}", i + 1, e.column(), cause(&e)))
        })?;
        entries.push((i + 1, value));
    }
    Ok(("line", entries))
}

/// What is wrong, without serde's own place: it counts from the line's beginning.
fn cause(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

fn fingerprint(all: &[Question]) -> String {
    let mut hash = blake3::Hasher::new();
    let mut put = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    for q in all {
        put(&q.passage);
        put(&q.text);
        q.stems.iter().chain(&q.options).for_each(|t| put(t));
        put(&q.answer.to_string());
    }
    hash.finalize().to_hex().to_string()
}
