//! Reads safetensors headers through the `safetensors` crate, which checks offsets, holes and lengths, and indices of
//! sharded checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::checkpoint::TensorInfo;
use crate::encoding::Encoding;
use crate::error::{Result, format_error, io_error, tensor_error};

/// An index of a sharded checkpoint is a few megabytes at most.
const MAX_INDEX: u64 = 256 << 20;

/// Tensors in file order, and the file's own metadata.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<(Vec<TensorInfo>, BTreeMap<String, String>)> {
    let (header, metadata) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| {
        let hint = "not a whole safetensors file: fetch it again";
        format_error(path, format!("{e:?}; {hint}"))
    })?;
    let data = (header as u64).saturating_add(8);
    let mut tensors = Vec::with_capacity(metadata.tensors().len());
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let dtype = format!("{:?}", info.dtype);
        let encoding = Encoding::from_safetensors(&dtype)
            .ok_or_else(|| tensor_error(path, &name, format!("has type {dtype}, which is not known to this version")))?;
        let len = (info.data_offsets.1 - info.data_offsets.0) as u64;
        let wanted = encoding.bytes_for(&info.shape).map_err(|m| tensor_error(path, &name, m))?;
        if wanted != len {
            let message = format!("shape {:?} of {encoding} takes {wanted} bytes and its offsets span {len}", info.shape);
            return Err(tensor_error(path, &name, message));
        }
        if name.is_empty() {
            return Err(format_error(path, "a tensor has no name"));
        }
        let offset = data + info.data_offsets.0 as u64;
        tensors.push(TensorInfo { name, shape: info.shape.clone(), encoding, file: path.to_owned(), offset, len });
    }
    let own = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok((tensors, own))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards that an index names, in order, with the tensors that each must hold.
pub(crate) fn read_index(path: &Path) -> Result<BTreeMap<PathBuf, BTreeSet<String>>> {
    let size = std::fs::metadata(path).map_err(io_error(path, "cannot be read"))?.len();
    if size > MAX_INDEX {
        return Err(format_error(path, format!("has {size} bytes; an index of at most {MAX_INDEX} was expected")));
    }
    let text = std::fs::read_to_string(path).map_err(io_error(path, "cannot be read"))?;
    let index: Index = serde_json::from_str(&text).map_err(|e| format_error(path, format!("not a shard index: {e}")))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut shards: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in index.weight_map {
        let plain = Path::new(&file).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || file.is_empty() {
            let message = format!("is said to be in `{file}`, which is not inside the directory");
            return Err(tensor_error(path, &tensor, message));
        }
        let shard = folder.join(&file);
        if !shard.is_file() {
            let message = format!("is said to be in `{file}`, which is missing: fetch the whole checkpoint");
            return Err(tensor_error(path, &tensor, message));
        }
        shards.entry(shard).or_default().insert(tensor);
    }
    if shards.is_empty() {
        return Err(format_error(path, "names no tensors"));
    }
    Ok(shards)
}
