//! Models that `llama-gguf-split` cut into `NAME-00001-of-0000N.gguf`.

use std::path::{Path, PathBuf};

use super::value::GgufValue;
use crate::error::{Result, format_error};

/// Most parts that a name can count.
const MAX_PARTS: u64 = 99_999;
/// Keys that describe the cut and not the model.
const PREFIX: &str = "split.";

/// The parts of the model that the first file belongs to; none where it is whole.
pub(crate) fn parts(path: &Path, metadata: &[(String, GgufValue)]) -> Result<Option<Vec<PathBuf>>> {
    let number = |key: &str| metadata.iter().find(|(k, _)| k == key).and_then(|(_, v)| v.as_u64());
    let count = number("split.count").unwrap_or(0);
    if count <= 1 {
        return Ok(None);
    }
    let index = number("split.no").unwrap_or(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let end = |i: u64| format!("-{:05}-of-{count:05}.gguf", i + 1);
    let base = (index < count && count <= MAX_PARTS).then(|| name.strip_suffix(&end(index))).flatten();
    let Some(base) = base else {
        let message = format!(
            "is part {} of {count} of a model; a name that ends with `{}` was expected",
            index + 1,
            end(index)
        );
        return Err(format_error(path, message));
    };
    let parts: Vec<PathBuf> = (0..count).map(|i| path.with_file_name(format!("{base}{}", end(i)))).collect();
    match parts.iter().find(|p| !p.is_file()) {
        Some(missing) => {
            let message = format!(
                "is part {} of {count}, and {} is missing: fetch all parts",
                index + 1,
                missing.display()
            );
            Err(format_error(path, message))
        }
        None => Ok(Some(parts)),
    }
}

/// Metadata of the model, without the keys of the cut.
pub(crate) fn without_split(metadata: Vec<(String, GgufValue)>) -> Vec<(String, GgufValue)> {
    metadata.into_iter().filter(|(k, _)| !k.starts_with(PREFIX)).collect()
}

/// Checks that as many tensors are there as the cut had.
pub(crate) fn check_count(path: &Path, metadata: &[(String, GgufValue)], found: usize) -> Result<()> {
    let stated = metadata.iter().find(|(k, _)| k == "split.tensors.count").and_then(|(_, v)| v.as_u64());
    match stated {
        Some(n) if n != found as u64 => Err(format_error(
            path,
            format!("and its other parts hold {found} tensors; {n} were expected: fetch all parts again"),
        )),
        _ => Ok(()),
    }
}
