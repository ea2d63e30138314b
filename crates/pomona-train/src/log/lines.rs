//! A JSON line a step.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Result, file_error};
use crate::step::StepReport;

/// A log that is added to.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens the log; lines of steps after `step`, which a stopped run wrote and lost, go.
    ///
    /// # Errors
    /// Where it cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Lines> {
        let kept: String = match path.is_file() && step > 0 {
            true => {
                let old = read_lines(path)?;
                let stays = |v: &Value| v.get("step").and_then(Value::as_u64).is_some_and(|s| s <= step);
                old.iter().filter(|v| stays(v)).map(|v| format!("{v}\n")).collect()
            }
            false => String::new(),
        };
        pomona_store::write_atomic(path, kept.as_bytes())?;
        let open = OpenOptions::new().append(true).open(path);
        let file = open.map_err(|e| file_error(path, format!("cannot be opened: {e}")))?;
        Ok(Lines { path: path.to_owned(), file })
    }

    /// Adds the loss on held-out data before the first step.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn start(&mut self, valid: f64) -> Result<()> {
        self.put(&serde_json::json!({"step": 0, "valid": valid}).to_string())
    }

    /// Adds a step.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn add(&mut self, report: &StepReport) -> Result<()> {
        let text = serde_json::to_string(report).map_err(|e| file_error(&self.path, e.to_string()))?;
        self.put(&text)
    }

    fn put(&mut self, text: &str) -> Result<()> {
        writeln!(self.file, "{text}").map_err(|e| file_error(&self.path, format!("cannot be written: {e}")))
    }
}

/// The steps of a log; a last line that was cut short by a kill is left out.
///
/// # Errors
/// Where it cannot be read.
pub fn read_lines(path: &Path) -> Result<Vec<Value>> {
    let file = File::open(path).map_err(|e| file_error(path, format!("cannot be opened: {e}")))?;
    let lines = BufReader::new(file).lines();
    let mut out = Vec::new();
    for line in lines {
        let line = line.map_err(|e| file_error(path, format!("cannot be read: {e}")))?;
        out.extend(serde_json::from_str::<Value>(&line).ok());
    }
    Ok(out)
}
