//! What an output must not be, and the space it needs.

use std::path::{Path, PathBuf};

use crate::error::{Result, StoreError, io_error};

/// Files that mark a directory as a model's: only such a directory is ever replaced.
const MARKS: [&str; 3] = ["pomona.json", "config.json", "model_index.json"];
const MARK_ENDS: [&str; 4] = [".safetensors", ".safetensors.index.json", ".gguf", ".onnx"];

/// Refuses an output that is a source, contains one, or lies in one; links do not hide it.
pub(super) fn apart_from_sources(target: &Path, sources: &[PathBuf]) -> Result<()> {
    let mut outputs = vec![target.to_owned()];
    outputs.extend(target.canonicalize());
    for source in sources.iter().filter_map(|s| s.canonicalize().ok()) {
        if outputs.iter().any(|o| o.starts_with(&source) || source.starts_with(o)) {
            let message = format!("overlaps the source {}: choose another output", source.display());
            return Err(StoreError::Output { path: target.to_owned(), message });
        }
    }
    Ok(())
}

/// Refuses to replace what is not a model: `force` is not meant for a home directory.
pub(super) fn replaceable(target: &Path) -> Result<()> {
    let refuse =
        |message: &str| Err(StoreError::Output { path: target.to_owned(), message: message.to_owned() });
    if !target.is_dir() {
        return refuse(
            "exists and is not a directory: an output is one; choose another name or remove the file",
        );
    }
    let mut empty = true;
    for entry in std::fs::read_dir(target).map_err(io_error(target, "cannot be listed"))? {
        let name = entry.map_err(io_error(target, "cannot be listed"))?.file_name();
        let name = name.to_string_lossy();
        if MARKS.contains(&name.as_ref()) || MARK_ENDS.iter().any(|e| name.ends_with(e)) {
            return Ok(());
        }
        empty = false;
    }
    if empty {
        Ok(())
    } else {
        refuse("exists and holds no model, so --force does not replace it: remove it by hand")
    }
}

/// Refuses an output that the file system of `place` has no room for.
pub(super) fn space(target: &Path, place: &Path, needed: u64) -> Result<()> {
    let stats = rustix::fs::statvfs(place).map_err(|e| io_error(place, "cannot be measured")(e.into()))?;
    let free = stats.f_bavail.saturating_mul(stats.f_frsize);
    if free < needed {
        return Err(StoreError::NoSpace { path: target.to_owned(), needed, free });
    }
    Ok(())
}
