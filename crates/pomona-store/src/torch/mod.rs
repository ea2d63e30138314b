//! PyTorch checkpoints: the zip archives that `torch.save` writes since version 1.6, and the row of pickles before it.
//!
//! A pickle is a program. The machine here ([`pickle`]) knows the few instructions that a state dict consists of and the
//! few names that it refers to; it builds lists, dictionaries and descriptions of tensors, calls nothing, and refuses
//! everything else by name. Data is not touched: tensors lie in the memory map, those that are no contiguous part of
//! their storage are gathered when they are read.
//!
//! Sources: the pickle format as `pickletools` of Python documents it; `torch.serialization` for both file formats.

mod globals;
mod legacy;
mod pickle;
mod state;
mod value;
mod view;
mod zip;

use std::path::Path;

use crate::checkpoint::TensorInfo;
use crate::error::{Result, tensor_error};
use value::{Heap, Value};
pub(crate) use view::Strided;
use view::{Budget, Region};

/// Extensions under which state dicts are saved.
const EXTENSIONS: [&str; 6] = ["pth", "pt", "bin", "th", "ckpt", "tar"];

/// What a file holds: tensors in the order of the state dict, each with its layout where it is not contiguous.
pub(crate) type Found = Vec<(TensorInfo, Option<Strided>)>;

/// Whether the file is one of PyTorch's, by its first bytes, or else by a name (lower case) that says so.
pub(crate) fn is_torch(name: &str, bytes: &[u8]) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
    legacy::is_legacy(bytes) || EXTENSIONS.contains(&extension)
}

/// Reads the descriptions of all tensors.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Found> {
    if zip::is_zip(bytes) {
        let archive = zip::Archive::open(path, bytes)?;
        let (heap, root) = archive.unpickle(path)?;
        return tensors(path, bytes, &heap, root, &|key| archive.storage(key));
    }
    let file = legacy::read(path, bytes)?;
    tensors(path, bytes, &file.heap, file.root, &|key| file.storages.get(key).cloned())
}

fn tensors(
    path: &Path,
    bytes: &[u8],
    heap: &Heap<'_>,
    root: Value<'_>,
    storage: &dyn Fn(&str) -> Option<Region>,
) -> Result<Found> {
    let mut budget = Budget::of_file(bytes.len());
    let mut found = Vec::new();
    for (name, view) in state::tensors(path, heap, root)? {
        let one = view.locate(path, &name, storage, &mut budget).map_err(|m| tensor_error(path, &name, m))?;
        found.push(one);
    }
    Ok(found)
}
