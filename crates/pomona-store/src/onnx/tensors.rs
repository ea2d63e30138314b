//! Where a tensor's bytes are: checked against the file that holds them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use memmap2::Mmap;

use super::proto::{OnnxData, OnnxTensor, element};
use crate::checkpoint::{TensorInfo, map_file};
use crate::error::{Result, format_error, tensor_error};

/// As many as PyTorch and NumPy allow.
const MAX_AXES: usize = 64;

/// A tensor of an ONNX file: its place, or its bytes where they do not lie in a file as they are in memory.
pub(crate) struct Found {
    pub info: TensorInfo,
    pub bytes: Option<Vec<u8>>,
}

/// Finds a tensor's data; files beside the model are mapped when the first tensor asks for them.
pub(crate) fn find(path: &Path, maps: &mut BTreeMap<PathBuf, Mmap>, tensor: &OnnxTensor) -> Result<Found> {
    let bad = |message: String| tensor_error(path, &tensor.name, message);
    let encoding = element::encoding(tensor.element).ok_or_else(|| {
        bad(format!("has element type {}, which is not read: convert it to a plain one", tensor.element))
    })?;
    if tensor.name.is_empty() {
        return Err(format_error(path, "a tensor has no name"));
    }
    if tensor.shape.len() > MAX_AXES {
        return Err(bad(format!("has {} axes; at most {MAX_AXES} were expected", tensor.shape.len())));
    }
    let shape = tensor.shape.iter().map(|d| usize::try_from(*d)).collect::<std::result::Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| bad(format!("has the impossible shape {:?}", tensor.shape)))?;
    let wanted = encoding.bytes_for(&shape).map_err(bad)?;
    let (file, offset, found, bytes) = match &tensor.data {
        OnnxData::None => (path.to_owned(), 0, 0, Some(Vec::new())),
        OnnxData::Bytes(b) => (path.to_owned(), 0, b.len() as u64, Some(b.clone())),
        OnnxData::Here { offset, len } => (path.to_owned(), *offset, *len, None),
        OnnxData::External { location, offset, len } => {
            let file = beside(path, location).map_err(bad)?;
            if !maps.contains_key(&file) {
                let map = map_file(&file)?;
                maps.insert(file.clone(), map);
            }
            let size = maps.get(&file).map_or(0, |m| m.len() as u64);
            let len = len.unwrap_or(size.saturating_sub(*offset));
            if offset.checked_add(len).is_none_or(|end| end > size) {
                let message =
                    format!("takes {len} bytes from byte {offset} of {}, which has {size}", file.display());
                return Err(bad(message));
            }
            (file, *offset, len, None)
        }
    };
    if found != wanted {
        return Err(bad(format!("has {found} bytes of data; {encoding} of shape {shape:?} takes {wanted}")));
    }
    let info = TensorInfo { name: tensor.name.clone(), shape, encoding, file, offset, len: found };
    Ok(Found { info, bytes })
}

/// The file of a name beside the model. A name that leaves the directory is refused: a model must not read what its
/// directory does not hold.
fn beside(path: &Path, location: &str) -> std::result::Result<PathBuf, String> {
    let name = Path::new(location);
    let normal = name.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !normal || location.contains('\\') {
        return Err(format!("is stored in `{location}`, which is not a name inside the model's directory"));
    }
    let dir = path.parent().unwrap_or(Path::new(""));
    let file = dir.join(name);
    if leaves(path, dir, &file) {
        return Err(format!(
            "is stored in `{location}`, a link that leads out of the model's directory: copy what it points to there"
        ));
    }
    Ok(file)
}

/// Whether links lead to a file outside the directory. A model that is itself a link, as in a hub's cache, may have its data
/// beside what it points to.
fn leaves(model: &Path, dir: &Path, file: &Path) -> bool {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    // What is not there is reported where it is opened.
    let (Ok(real), Ok(home)) = (file.canonicalize(), dir.canonicalize()) else { return false };
    let stored = model.canonicalize().ok().and_then(|m| m.parent().map(Path::to_owned));
    !real.starts_with(&home) && stored.is_none_or(|s| real.parent() != Some(s.as_path()))
}
