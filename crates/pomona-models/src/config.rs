//! Typed access to a config.json: every value is checked, and an error names file and key.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{ModelError, Result, file_error, read_text};

/// A config is a few kilobytes; tables of twenty thousand labels make it two megabytes.
const MAX_CONFIG: u64 = 4 << 20;
/// Largest width, count or length in a config: far beyond any model, far below where products overflow.
const MAX_SIZE: u64 = 1 << 31;
/// Most blocks: what a hostile config could ask to be built. The deepest published transformers have a thousand.
pub(crate) const MAX_DEPTH: usize = 1024;
/// Most experts of all blocks together; the largest published mixtures have twenty-four thousand.
pub(crate) const MAX_EXPERTS: usize = 1 << 15;

/// Reads a JSON object from a file.
pub(crate) fn read_object(path: &Path) -> Result<Value> {
    let text = read_text(path, MAX_CONFIG)?;
    let value: Value =
        serde_json::from_str(&text).map_err(|e| file_error(path, format!("is not JSON: {e}")))?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(file_error(path, "is not a JSON object: a config.json was expected")),
    }
}

/// A section of a config under its file name and key prefix.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    path: PathBuf,
    prefix: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(path: &Path, value: &'a Value) -> Result<Self> {
        match value.as_object() {
            Some(map) => Ok(Self { path: path.to_owned(), prefix: String::new(), map }),
            None => Err(file_error(path, "is not a JSON object: a config.json was expected")),
        }
    }

    /// What the graph of this config could not be.
    pub(crate) fn refused(&self, e: ModelError) -> ModelError {
        match e {
            ModelError::Graph(e) => file_error(&self.path, e.to_string()),
            other => other,
        }
    }

    /// An error at a key.
    pub(crate) fn fault(&self, key: &str, message: impl Into<String>) -> ModelError {
        let key = format!("{}{key}", self.prefix);
        ModelError::Config { path: self.path.clone(), key, message: message.into() }
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Value) -> ModelError {
        let mut text = found.to_string();
        if text.chars().count() > 80 {
            text = text.chars().take(77).collect::<String>() + "...";
        }
        self.fault(key, format!("is {text}; {wanted} was expected"))
    }

    /// The value, none where it is missing or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key stands there, be it null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    fn required<T>(&self, key: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| self.fault(key, "is missing: is this the config of the whole model?"))
    }

    /// A count from 1.
    pub(crate) fn maybe_size(&self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|v| self.as_size(key, v)).transpose()
    }

    fn as_size(&self, key: &str, v: &Value) -> Result<usize> {
        let n = v.as_u64().filter(|n| (1..=MAX_SIZE).contains(n));
        n.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| self.wrong(key, "a whole number from 1", v))
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        self.required(key, self.maybe_size(key)?)
    }

    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.maybe_size(key)?.unwrap_or(default))
    }

    /// A whole number from 0.
    pub(crate) fn count_or(&self, key: &str, default: usize) -> Result<usize> {
        let Some(v) = self.get(key) else { return Ok(default) };
        let n = v.as_u64().filter(|n| *n <= MAX_SIZE).and_then(|n| usize::try_from(n).ok());
        n.ok_or_else(|| self.wrong(key, "a whole number from 0", v))
    }

    /// The number of blocks.
    pub(crate) fn depth(&self, key: &str) -> Result<usize> {
        let n = self.size(key)?;
        if n > MAX_DEPTH {
            return Err(self.fault(key, format!("is {n}; at most {MAX_DEPTH} blocks are built")));
        }
        Ok(n)
    }

    /// The number of experts in each of `blocks` blocks.
    pub(crate) fn experts(&self, key: &str, default: usize, blocks: usize) -> Result<usize> {
        let n = self.size_or(key, default)?;
        if n.saturating_mul(blocks) > MAX_EXPERTS {
            let message = format!("is {n}; at most {MAX_EXPERTS} experts of all {blocks} blocks are built");
            return Err(self.fault(key, message));
        }
        Ok(n)
    }

    /// A finite number above 0.
    pub(crate) fn maybe_positive(&self, key: &str) -> Result<Option<f64>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let n = v.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        n.map(Some).ok_or_else(|| self.wrong(key, "a number above 0", v))
    }

    pub(crate) fn positive(&self, key: &str) -> Result<f64> {
        self.required(key, self.maybe_positive(key)?)
    }

    pub(crate) fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.maybe_positive(key)?.unwrap_or(default))
    }

    /// A finite number.
    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        let Some(v) = self.get(key) else { return Ok(default) };
        v.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.wrong(key, "a number", v))
    }

    /// A list of counts from 1.
    pub(crate) fn sizes_or(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let Some(v) = self.get(key) else { return Ok(default.to_vec()) };
        let items = v.as_array().filter(|a| a.len() <= MAX_DEPTH);
        let items = items.ok_or_else(|| self.wrong(key, "a list of whole numbers", v))?;
        items.iter().map(|i| self.as_size(key, i)).collect()
    }

    /// A list of at most `most` counts from 0, empty where missing.
    pub(crate) fn counts(&self, key: &str, most: usize) -> Result<Vec<usize>> {
        let Some(v) = self.get(key) else { return Ok(Vec::new()) };
        let one = |v: &Value| v.as_u64().filter(|n| *n <= MAX_SIZE).and_then(|n| usize::try_from(n).ok());
        let list = v.as_array().filter(|a| a.len() <= most).and_then(|a| a.iter().map(one).collect());
        list.ok_or_else(|| self.wrong(key, "a list of whole numbers", v))
    }

    /// A list of exactly `n` finite numbers above 0.
    pub(crate) fn positives(&self, key: &str, n: usize) -> Result<Vec<f64>> {
        let v = self.required(key, self.get(key))?;
        let one = |v: &Value| v.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        let list: Option<Vec<f64>> =
            v.as_array().filter(|a| a.len() == n).and_then(|a| a.iter().map(one).collect());
        list.ok_or_else(|| self.wrong(key, &format!("a list of {n} numbers above 0"), v))
    }

    /// A count from 1 for each of `n` parts: a list of them, or one for all.
    pub(crate) fn each_size(&self, key: &str, n: usize, default: usize) -> Result<Vec<usize>> {
        match self.get(key) {
            Some(Value::Array(_)) => {
                let list = self.sizes_or(key, &[])?;
                match list.len() == n {
                    true => Ok(list),
                    false => Err(self.fault(
                        key,
                        format!("has {} entries; one for each of {n} levels was expected", list.len()),
                    )),
                }
            }
            _ => Ok(vec![self.size_or(key, default)?; n]),
        }
    }

    /// Height and width: a list of two, or one number for both.
    pub(crate) fn sides(&self, key: &str) -> Result<Option<[usize; 2]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(a)) => match self.sizes_or(key, &[])?.as_slice() {
                [h, w] => Ok(Some([*h, *w])),
                _ => Err(self.fault(key, format!("has {} entries; height and width were expected", a.len()))),
            },
            Some(_) => Ok(self.maybe_size(key)?.map(|n| [n, n])),
        }
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(v) = self.get(key) else { return Ok(default) };
        v.as_bool().ok_or_else(|| self.wrong(key, "true or false", v))
    }

    pub(crate) fn maybe_text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        v.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string", v))
    }

    pub(crate) fn text_or(&self, key: &str, default: &'static str) -> Result<&'a str> {
        Ok(self.maybe_text(key)?.unwrap_or(default))
    }

    /// A list of exactly `n` strings.
    pub(crate) fn maybe_texts(&self, key: &str, n: usize) -> Result<Option<Vec<&'a str>>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let list: Option<Vec<&str>> = v.as_array().and_then(|a| a.iter().map(Value::as_str).collect());
        match list {
            Some(list) if list.len() == n => Ok(Some(list)),
            Some(list) => Err(self
                .fault(key, format!("has {} entries; one for each of {n} blocks was expected", list.len()))),
            None => Err(self.wrong(key, "a list of strings", v)),
        }
    }

    /// A nested object, none where missing or null.
    pub(crate) fn section(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let map = v.as_object().ok_or_else(|| self.wrong(key, "an object", v))?;
        Ok(Some(Fields { path: self.path.clone(), prefix: format!("{}{key}.", self.prefix), map }))
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether any value of the object is an object itself.
    pub(crate) fn is_nested(&self) -> bool {
        self.map.values().any(Value::is_object)
    }
}
