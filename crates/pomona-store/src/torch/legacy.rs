//! The format before PyTorch 1.6 (and `_use_new_zipfile_serialization=False`): a magic number, a version, facts about the
//! machine, the object, and the keys of its storages, each a pickle, and then the storages in the order of the keys, each
//! behind its number of elements.

use std::collections::HashMap;
use std::path::Path;

use super::pickle;
use super::value::{Heap, Object, Value};
use super::view::Region;
use crate::error::{Result, format_error};

const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;
/// Bytes within which the magic number ends, with a frame before it.
const HEAD: usize = 32;

/// Whether the magic number stands at the beginning.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x80)
        && bytes[..bytes.len().min(HEAD)].windows(MAGIC.len()).any(|window| window == MAGIC)
}

/// What the file holds.
pub(super) struct Legacy<'a> {
    pub heap: Heap<'a>,
    pub root: Value<'a>,
    pub storages: HashMap<String, Region>,
}

pub(super) fn read<'a>(path: &Path, bytes: &'a [u8]) -> Result<Legacy<'a>> {
    if !is_legacy(bytes) {
        let what = if bytes.len() < HEAD {
            "has only a few bytes"
        } else if tar(bytes) {
            "is a tar archive, as PyTorch before 0.1.10 wrote"
        } else {
            "is neither a zip archive nor a pickle with PyTorch's magic number"
        };
        let message = format!("{what}: give a file that torch.save made of a state dict");
        return Err(format_error(path, message));
    }
    let mut heap = Heap::default();
    let mut at = 0;
    let mut next = |what: &str| {
        let (value, len) =
            pickle::run(&bytes[at..], &mut heap).map_err(|m| format_error(path, format!("{what}: {m}")))?;
        at += len;
        Ok(value)
    };
    next("its magic number")?;
    let version = next("its version")?;
    if version != Value::Int(VERSION) {
        return Err(format_error(path, format!("has protocol version {version:?}; {VERSION} was expected")));
    }
    let system = next("its description of the machine")?;
    let root = next("its object")?;
    let keys = next("its list of storages")?;
    let little =
        heap.entries(system).unwrap_or_default().iter().find(|e| e.0 == Value::Text("little_endian"));
    if little.is_some_and(|e| e.1 == Value::Bool(false)) {
        return Err(format_error(path, "was saved on a big-endian machine: save it again on another"));
    }
    let storages = storages(path, bytes, at as u64, &heap, keys)?;
    Ok(Legacy { heap, root, storages })
}

fn tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// The data of each storage. How wide its elements are stands only where the object mentions it.
fn storages<'a>(
    path: &Path,
    bytes: &[u8],
    mut at: u64,
    heap: &Heap<'a>,
    keys: Value<'a>,
) -> Result<HashMap<String, Region>> {
    let widths = widths(heap);
    let keys = heap.items(keys).ok_or_else(|| format_error(path, "its list of storages is none"))?;
    let mut out = HashMap::with_capacity(keys.len());
    for key in keys {
        let Value::Text(key) = *key else {
            return Err(format_error(path, "the key of a storage is no string"));
        };
        let width = widths.get(key).copied();
        let width = width.ok_or_else(|| format_error(path, format!("storage `{key}` is used by nothing")))?;
        let count = usize::try_from(at).ok().and_then(|a| bytes.get(a..)?.first_chunk::<8>());
        let count = count.map(|c| u64::from_le_bytes(*c));
        let len = count.and_then(|n| n.checked_mul(width));
        let end = len.and_then(|n| at.checked_add(8)?.checked_add(n));
        let (Some(len), Some(end)) = (len, end.filter(|e| *e <= bytes.len() as u64)) else {
            let message = format!(
                "storage `{key}` of {} elements at byte {at} reaches beyond the file of {} bytes: it is truncated, \
                 fetch it again",
                count.map_or("unknown".to_owned(), |n| n.to_string()),
                bytes.len()
            );
            return Err(format_error(path, message));
        };
        if out.insert(key.to_owned(), Region { offset: at + 8, len }).is_some() {
            return Err(format_error(path, format!("storage `{key}` stands twice in the list")));
        }
        at = end;
    }
    Ok(out)
}

/// Bytes of an element of each storage.
fn widths<'a>(heap: &Heap<'a>) -> HashMap<&'a str, u64> {
    let storages = heap.objects().filter_map(|o| if let Object::Storage(s) = o { Some(s) } else { None });
    storages.map(|s| (s.key, s.encoding.map_or(1, |e| e.block_bytes() as u64))).collect()
}
