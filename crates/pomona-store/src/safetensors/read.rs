//! Reads safetensors headers: every size and offset is checked against the file before it is used.

use std::collections::BTreeMap;
use std::path::Path;

use super::header::{Header, MAX_HEADER};
use crate::checkpoint::TensorInfo;
use crate::encoding::Encoding;
use crate::error::{Result, format_error, tensor_error};

/// Bytes of the number that stands before the header.
const PREFIX: u64 = 8;

/// Tensors in file order, and the file's own metadata.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<(Vec<TensorInfo>, BTreeMap<String, String>)> {
    let file = bytes.len() as u64;
    let Some((prefix, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format_error(
            path,
            format!("has {file} bytes, too few for a safetensors file: fetch it again"),
        ));
    };
    let size = u64::from_le_bytes(*prefix);
    if size > MAX_HEADER {
        let message =
            format!("its header says {size} bytes, at most {MAX_HEADER} are read: not a safetensors file");
        return Err(format_error(path, message));
    }
    let Some(json) = usize::try_from(size).ok().and_then(|n| rest.get(..n)) else {
        let message = format!(
            "its header takes {size} bytes and {} follow: the file is truncated, fetch it again",
            rest.len()
        );
        return Err(format_error(path, message));
    };
    let header: Header = serde_json::from_slice(json)
        .map_err(|e| format_error(path, format!("its header is not what safetensors defines: {e}")))?;
    let data = PREFIX + size;
    let mut tensors = Vec::with_capacity(header.tensors.len());
    for (name, entry) in header.tensors {
        if name.is_empty() {
            return Err(format_error(path, "a tensor has no name"));
        }
        let encoding = Encoding::from_safetensors(&entry.dtype).ok_or_else(|| {
            tensor_error(path, &name, format!("has type {}, which is not known to this version", entry.dtype))
        })?;
        let (begin, end) = entry.data_offsets;
        let Some(len) = end.checked_sub(begin) else {
            return Err(tensor_error(path, &name, format!("ends at {end}, before it begins at {begin}")));
        };
        if end > file - data {
            let message = format!(
                "ends at byte {end} of the data and the file holds {}: the file is truncated, fetch it again",
                file - data
            );
            return Err(tensor_error(path, &name, message));
        }
        let wanted = encoding.bytes_for(&entry.shape).map_err(|m| tensor_error(path, &name, m))?;
        if wanted != len {
            let message = format!(
                "shape {:?} of {encoding} takes {wanted} bytes and its offsets span {len}",
                entry.shape
            );
            return Err(tensor_error(path, &name, message));
        }
        tensors.push(TensorInfo {
            name,
            shape: entry.shape,
            encoding,
            file: path.to_owned(),
            offset: data + begin,
            len,
        });
    }
    tensors.sort_by_key(|t| (t.offset, t.len));
    check_packed(path, &tensors, data, file)?;
    Ok((tensors, header.metadata))
}

/// The format allows neither overlaps nor holes, so that nothing hides in a file.
fn check_packed(path: &Path, tensors: &[TensorInfo], data: u64, file: u64) -> Result<()> {
    let mut at = data;
    for t in tensors {
        if t.offset != at {
            let what = if t.offset < at { "overlaps the tensor before it" } else { "stands behind a hole" };
            let (found, expected) = (t.offset - data, at - data);
            let message = format!("{what}: begins at byte {found} of the data, {expected} was expected");
            return Err(tensor_error(path, &t.name, message));
        }
        at += t.len;
    }
    if at != file {
        return Err(format_error(
            path,
            format!("has {} bytes that belong to no tensor: fetch it again", file - at),
        ));
    }
    Ok(())
}
