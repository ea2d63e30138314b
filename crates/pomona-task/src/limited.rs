//! Files of data read whole, but never more of one than a stated size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Result, TaskError};

/// A file's bytes, at most `most`. What is no ordinary file (a device, a pipe) is refused: it says nothing about its size.
///
/// # Errors
/// [`TaskError::Data`] where it is none, is larger, or cannot be read.
pub(crate) fn read_limited(path: &Path, most: u64) -> Result<Vec<u8>> {
    let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
    let kind = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?;
    if !kind.is_file() {
        return Err(fail("is no ordinary file".to_owned()));
    }
    let file = File::open(path).map_err(|e| fail(e.to_string()))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(fail(format!("has more than {most} bytes, the most that is read")));
    }
    Ok(bytes)
}

/// As [`read_limited`], as text.
///
/// # Errors
/// As it, and where the bytes are not UTF-8.
pub(crate) fn text_limited(path: &Path, most: u64) -> Result<String> {
    String::from_utf8(read_limited(path, most)?)
        .map_err(|_| TaskError::Data { path: path.to_owned(), message: "is not UTF-8 text".to_owned() })
}
