//! Reads the header of a GGUF v2 or v3 file: metadata and tensor table, checked against the file.

use std::collections::HashSet;
use std::path::Path;

use super::cursor::Cursor;
use super::value::GgufValue;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_AXES, MAX_KEY};
use crate::checkpoint::TensorInfo;
use crate::encoding::Encoding;
use crate::error::{Result, format_error, tensor_error};

/// llama.cpp reads tensor names up to 63 bytes; some converters write longer ones.
const MAX_NAME: usize = 4096;
/// Least bytes of a tensor's entry, and of a metadata entry: they bound the counts.
const LEAST_TENSOR: usize = 24;
const LEAST_METADATA: usize = 13;

/// Metadata in file order, and the tensors in the order of the table.
pub(crate) struct Header {
    pub metadata: Vec<(String, GgufValue)>,
    pub tensors: Vec<TensorInfo>,
}

/// Parses the header and checks every tensor against the file.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Header> {
    let mut c = Cursor::new(path, bytes);
    if c.take(4, "magic")? != b"GGUF" {
        return Err(format_error(path, "does not begin with `GGUF`: not a GGUF file"));
    }
    let version = c.u32("version")?;
    if (1..=255).contains(&version.swap_bytes()) {
        return Err(format_error(
            path,
            "is a big-endian GGUF; little-endian files are read: convert it with gguf_convert_endian",
        ));
    }
    if !(2..=3).contains(&version) {
        let message =
            format!("is GGUF version {version}; versions 2 and 3 are read: convert the original model again");
        return Err(format_error(path, message));
    }
    let tensor_count = c.count(LEAST_TENSOR, "number of tensors")?;
    let metadata_count = c.count(LEAST_METADATA, "number of metadata entries")?;
    let metadata = read_metadata(&mut c, metadata_count)?;
    let alignment = alignment(path, &metadata)?;
    let mut entries = Vec::with_capacity(tensor_count.min(65_536));
    for _ in 0..tensor_count {
        entries.push(read_entry(&mut c)?);
    }
    let data = (c.position() as u64).next_multiple_of(alignment);
    let tensors = place(path, entries, data, alignment, bytes.len() as u64)?;
    Ok(Header { metadata, tensors })
}

fn read_metadata(c: &mut Cursor<'_>, count: usize) -> Result<Vec<(String, GgufValue)>> {
    let mut metadata = Vec::with_capacity(count.min(4096));
    let mut keys = HashSet::new();
    for _ in 0..count {
        let key = c.string("a metadata key")?;
        if key.len() > MAX_KEY {
            return Err(format_error(
                c.path(),
                format!("a metadata key has {} bytes; at most {MAX_KEY} are read", key.len()),
            ));
        }
        if key.is_empty() {
            return Err(format_error(c.path(), "a metadata key has no name"));
        }
        let ty = c.u32(&key)?;
        let value = c.value(ty, &key, 0)?;
        if !keys.insert(key.clone()) {
            return Err(format_error(c.path(), format!("metadata `{key}` stands twice")));
        }
        metadata.push((key, value));
    }
    Ok(metadata)
}

fn alignment(path: &Path, metadata: &[(String, GgufValue)]) -> Result<u64> {
    let Some((_, value)) = metadata.iter().find(|(k, _)| k == ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    value.as_u64().filter(|a| a.is_power_of_two() && *a <= MAX_ALIGNMENT).ok_or_else(|| {
        format_error(
            path,
            format!("{ALIGNMENT_KEY} is {value:?}; a power of two up to {MAX_ALIGNMENT} was expected"),
        )
    })
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    encoding: Encoding,
    offset: u64,
    /// None for a type of unknown size.
    len: Option<u64>,
}

fn read_entry(c: &mut Cursor<'_>) -> Result<Entry> {
    let path = c.path();
    let name = c.string("a tensor name")?;
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format_error(
            path,
            format!("a tensor name has {} bytes; 1 to {MAX_NAME} were expected", name.len()),
        ));
    }
    let axes = c.u32(&name)? as usize;
    if axes > MAX_AXES {
        return Err(tensor_error(path, &name, format!("has {axes} axes; at most {MAX_AXES} were expected")));
    }
    let mut shape = Vec::with_capacity(axes);
    for _ in 0..axes {
        let size = c.u64(&name)?;
        let size = usize::try_from(size).ok().filter(|s| *s <= isize::MAX as usize);
        shape.push(size.ok_or_else(|| tensor_error(path, &name, "has an axis that does not fit memory"))?);
    }
    // GGUF lists the fastest axis first.
    shape.reverse();
    let ty = c.u32(&name)?;
    let encoding = Encoding::from_ggml(ty).ok_or_else(|| {
        tensor_error(path, &name, format!("has ggml type {ty}, which is far beyond those of ggml"))
    })?;
    // A plain size check also for types whose bytes are not known: strides are computed from shapes.
    Encoding::I8.bytes_for(&shape).map_err(|m| tensor_error(path, &name, m))?;
    let len = match encoding {
        Encoding::Ggml(_) => None,
        _ => Some(encoding.bytes_for(&shape).map_err(|m| tensor_error(path, &name, m))?),
    };
    Ok(Entry { offset: c.u64(&name)?, name, shape, encoding, len })
}

/// Absolute positions. Data is packed: padding to the alignment is the only thing between tensors, so that a wrong
/// shape or type, an overlap or a hole shows here.
fn place(path: &Path, entries: Vec<Entry>, data: u64, alignment: u64, file: u64) -> Result<Vec<TensorInfo>> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&i| (entries[i].offset, entries[i].len.unwrap_or(u64::MAX)));
    // An empty tensor takes no byte, but its place is in the file.
    if let Some(e) = entries.first().filter(|_| file < data) {
        let message =
            format!("begins behind byte {data}, and the file has {file}: it is truncated, fetch it again");
        return Err(tensor_error(path, &e.name, message));
    }
    let room = file.saturating_sub(data);
    let mut lens = vec![0; entries.len()];
    // Where the next tensor begins; none after one of unknown size.
    let mut due = Some(0_u64);
    for (k, &i) in order.iter().enumerate() {
        let e = &entries[i];
        let bad = |message: String| tensor_error(path, &e.name, message);
        if !e.offset.is_multiple_of(alignment) {
            let message = format!(
                "begins at offset {}, which is not a multiple of the alignment {alignment}",
                e.offset
            );
            return Err(bad(message));
        }
        if let Some(due) = due.filter(|d| *d != e.offset) {
            let what = if e.offset < due { "overlaps the tensor before it" } else { "stands behind a hole" };
            return Err(bad(format!("{what}: begins at byte {} of the data, {due} was expected", e.offset)));
        }
        let next = order.get(k + 1).map(|&j| entries[j].offset);
        let len = e.len.unwrap_or_else(|| next.unwrap_or(room).saturating_sub(e.offset));
        if e.offset.checked_add(len).is_none_or(|end| end > room) {
            let message = format!(
                "takes {len} bytes at byte {} of the data and the file holds {room}: the file is truncated, fetch it again",
                e.offset
            );
            return Err(bad(message));
        }
        lens[i] = len;
        due = e.len.map(|len| (e.offset + len).next_multiple_of(alignment));
    }
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(entries.len());
    for (e, len) in entries.into_iter().zip(lens) {
        if !names.insert(e.name.clone()) {
            return Err(tensor_error(path, &e.name, "stands twice"));
        }
        let (name, shape, encoding, offset) = (e.name, e.shape, e.encoding, data + e.offset);
        tensors.push(TensorInfo { name, shape, encoding, file: path.to_owned(), offset, len });
    }
    Ok(tensors)
}
