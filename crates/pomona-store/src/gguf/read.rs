//! Reads the header of a GGUF v2 or v3 file: metadata and tensor table. Nothing is allocated on a length's word alone.

use std::collections::HashSet;
use std::path::Path;

use super::value::GgufValue;
use crate::checkpoint::TensorInfo;
use crate::encoding::Encoding;
use crate::error::{Result, StoreError, format_error, tensor_error};

/// Arrays within arrays beyond this are refused: no writer makes them, and recursion must stay bounded.
const MAX_NESTING: usize = 4;
/// Longest tensor name that llama.cpp reads is 63 bytes; some converters write longer ones.
const MAX_NAME: usize = 4096;
/// Most axes of a ggml tensor.
const MAX_AXES: u32 = 4;

/// Metadata in file order, tensors, and the alignment of the data.
pub(crate) struct Header {
    pub metadata: Vec<(String, GgufValue)>,
    pub tensors: Vec<TensorInfo>,
}

struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let Some(end) = end else {
            return Err(format_error(
                self.path,
                format!(
                    "{what} at byte {} needs {n} bytes and the file has {}: the file is truncated or damaged, fetch it again",
                    self.at,
                    self.bytes.len() - self.at
                ),
            ));
        };
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok(s) => Ok(s.to_owned()),
            Err(_) => Err(format_error(self.path, format!("{what} before byte {} is not UTF-8", self.at))),
        }
    }

    /// A count whose elements take at least `least` bytes each: more than the file can hold is refused.
    fn count(&mut self, least: usize, what: &str) -> Result<usize> {
        let n = self.u64(what)?;
        let room = (self.bytes.len() - self.at) / least;
        usize::try_from(n).ok().filter(|&n| n <= room).ok_or_else(|| {
            format_error(self.path, format!("{what} is {n}, more than the rest of the file can hold ({room})"))
        })
    }

    fn value(&mut self, ty: u32, key: &str, depth: usize) -> Result<GgufValue> {
        let what = format!("metadata `{key}`");
        Ok(match ty {
            0 => GgufValue::U8(self.array::<1>(&what)?[0]),
            1 => GgufValue::I8(i8::from_le_bytes(self.array(&what)?)),
            2 => GgufValue::U16(u16::from_le_bytes(self.array(&what)?)),
            3 => GgufValue::I16(i16::from_le_bytes(self.array(&what)?)),
            4 => GgufValue::U32(self.u32(&what)?),
            5 => GgufValue::I32(i32::from_le_bytes(self.array(&what)?)),
            6 => GgufValue::F32(f32::from_le_bytes(self.array(&what)?)),
            7 => GgufValue::Bool(self.array::<1>(&what)?[0] != 0),
            8 => GgufValue::String(self.string(&what)?),
            9 => {
                if depth >= MAX_NESTING {
                    return Err(format_error(self.path, format!("{what} nests arrays deeper than {MAX_NESTING}")));
                }
                let element = self.u32(&what)?;
                let least = match element {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    9 => 12,
                    _ => 8,
                };
                let n = self.count(least, &format!("length of {what}"))?;
                let mut items = Vec::with_capacity(n);
                for _ in 0..n {
                    items.push(self.value(element, key, depth + 1)?);
                }
                GgufValue::Array(element, items)
            }
            10 => GgufValue::U64(self.u64(&what)?),
            11 => GgufValue::I64(i64::from_le_bytes(self.array(&what)?)),
            12 => GgufValue::F64(f64::from_le_bytes(self.array(&what)?)),
            other => return Err(format_error(self.path, format!("{what} has type {other}, which GGUF 3 does not define"))),
        })
    }
}

/// Parses the header and checks every tensor against the file.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Header> {
    let mut c = Cursor { path, bytes, at: 0 };
    if c.take(4, "magic")? != b"GGUF" {
        return Err(format_error(path, "does not begin with `GGUF`: not a GGUF file"));
    }
    let version = c.u32("version")?;
    if version.swap_bytes() < 16 && version > 0xffff {
        return Err(format_error(path, "is a big-endian GGUF; only little-endian files are read: convert it first"));
    }
    if !(2..=3).contains(&version) {
        return Err(format_error(path, format!("is GGUF version {version}; versions 2 and 3 are read")));
    }
    // A tensor entry takes at least 24 bytes, a metadata entry 13.
    let tensor_count = c.count(24, "number of tensors")?;
    let metadata_count = c.count(13, "number of metadata entries")?;
    let mut metadata = Vec::with_capacity(metadata_count.min(4096));
    let mut keys = HashSet::new();
    for _ in 0..metadata_count {
        let key = c.string("a metadata key")?;
        let ty = c.u32(&key)?;
        let value = c.value(ty, &key, 0)?;
        if !keys.insert(key.clone()) {
            return Err(format_error(path, format!("metadata `{key}` stands twice")));
        }
        metadata.push((key, value));
    }
    let alignment = match metadata.iter().find(|(k, _)| k == "general.alignment") {
        Some((_, v)) => v.as_u64().filter(|a| a.is_power_of_two() && *a <= 1 << 20).ok_or_else(|| {
            format_error(path, format!("general.alignment is {v:?}; a power of two up to 1048576 was expected"))
        })?,
        None => 32,
    };
    let mut entries = Vec::with_capacity(tensor_count.min(65_536));
    for _ in 0..tensor_count {
        entries.push(entry(&mut c)?);
    }
    let data = (c.at as u64).next_multiple_of(alignment);
    let tensors = place(path, entries, data, alignment, bytes.len() as u64)?;
    Ok(Header { metadata, tensors })
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    encoding: Encoding,
    offset: u64,
    len: u64,
}

fn entry(c: &mut Cursor<'_>) -> Result<Entry> {
    let name = c.string("a tensor name")?;
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format_error(c.path, format!("a tensor name has {} bytes; 1 to {MAX_NAME} were expected", name.len())));
    }
    let axes = c.u32(&name)?;
    if axes > MAX_AXES {
        return Err(tensor_error(c.path, &name, format!("has {axes} axes; at most {MAX_AXES} were expected")));
    }
    let mut shape = Vec::with_capacity(axes as usize);
    for _ in 0..axes {
        let size = c.u64(&name)?;
        let size = usize::try_from(size).ok().filter(|s| *s <= isize::MAX as usize);
        shape.push(size.ok_or_else(|| tensor_error(c.path, &name, "has an axis that does not fit memory"))?);
    }
    // GGUF lists the fastest axis first.
    shape.reverse();
    let ty = c.u32(&name)?;
    let encoding = Encoding::from_ggml(ty).ok_or_else(|| {
        tensor_error(c.path, &name, format!("has ggml type {ty}, whose block size is not known to this version"))
    })?;
    let len = encoding.bytes_for(&shape).map_err(|m| tensor_error(c.path, &name, m))?;
    Ok(Entry { offset: c.u64(&name)?, name, shape, encoding, len })
}

fn place(path: &Path, entries: Vec<Entry>, data: u64, alignment: u64, file: u64) -> Result<Vec<TensorInfo>> {
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(entries.len());
    for e in entries {
        let bad = |message: String| tensor_error(path, &e.name, message);
        if e.offset % alignment != 0 {
            return Err(bad(format!("begins at offset {}, which is not a multiple of the alignment {alignment}", e.offset)));
        }
        let begin = data.checked_add(e.offset);
        let end = begin.and_then(|b| b.checked_add(e.len));
        let (Some(offset), Some(end)) = (begin, end) else { return Err(bad("its offset overflows".to_owned())) };
        if end > file {
            return Err(bad(format!(
                "ends at byte {end} and the file has {file}: the file is truncated, fetch it again"
            )));
        }
        if !names.insert(e.name.clone()) {
            return Err(bad("stands twice".to_owned()));
        }
        let (name, shape, encoding, len) = (e.name, e.shape, e.encoding, e.len);
        tensors.push(TensorInfo { name, shape, encoding, file: path.to_owned(), offset, len });
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().filter(|t| t.len > 0).collect();
    order.sort_by_key(|t| t.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].len > pair[1].offset {
            let message = format!("overlaps `{}`", pair[0].name);
            return Err(StoreError::Tensor { path: path.to_owned(), tensor: pair[1].name.clone(), message });
        }
    }
    Ok(tensors)
}
