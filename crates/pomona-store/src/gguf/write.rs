//! Writes GGUF version 3 one tensor at a time.

use std::collections::HashSet;
use std::path::Path;

use super::value::GgufValue;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_AXES, MAX_KEY, MAX_NESTING};
use crate::error::{Result, format_error, tensor_error};
use crate::output::{OutputDir, PlannedFile, Stream, TensorSink, TensorSpec};

/// Streams tensors in the order of the list into one file.
pub struct GgufWriter<'a> {
    stream: Stream<'a>,
}

impl<'a> GgufWriter<'a> {
    /// Lays out the file `name`: header, then tensors at multiples of `general.alignment` (32 without it), the last one
    /// padded as well.
    ///
    /// # Errors
    /// Where a tensor's encoding, shape or name cannot stand in the format or stands twice, and where metadata is not
    /// what GGUF defines.
    pub fn new(
        out: &'a mut OutputDir,
        name: &str,
        metadata: &[(String, GgufValue)],
        specs: Vec<TensorSpec>,
    ) -> Result<Self> {
        let path = out.path().join(name);
        let (alignment, mut header) = metadata_bytes(&path, metadata, specs.len())?;
        let too_large = || format_error(&path, "would be larger than a file can be");
        let mut names = HashSet::new();
        let mut offset = 0_u64;
        let (mut offsets, mut sizes) = (Vec::with_capacity(specs.len()), Vec::with_capacity(specs.len()));
        for s in &specs {
            let bad = |message: String| tensor_error(&path, &s.name, message);
            let Some(ty) = s.encoding.ggml_type() else {
                return Err(bad(format!(
                    "is {}, which GGUF does not have: choose f32, f16 or bf16",
                    s.encoding
                )));
            };
            if s.shape.len() > MAX_AXES {
                return Err(bad(format!("has {} axes; GGUF takes {MAX_AXES}", s.shape.len())));
            }
            if s.name.is_empty() || !names.insert(s.name.as_str()) {
                return Err(bad("has no name, or one that stands twice".to_owned()));
            }
            let len = s.encoding.bytes_for(&s.shape).map_err(bad)?;
            put_string(&mut header, &s.name);
            header.extend((s.shape.len() as u32).to_le_bytes());
            for d in s.shape.iter().rev() {
                header.extend((*d as u64).to_le_bytes());
            }
            header.extend(ty.to_le_bytes());
            header.extend(offset.to_le_bytes());
            offsets.push(offset);
            sizes.push(len);
            let next = offset.checked_add(len).and_then(|n| n.checked_next_multiple_of(alignment));
            offset = next.filter(|n| *n <= i64::MAX as u64 / 2).ok_or_else(too_large)?;
        }
        let data = (header.len() as u64).next_multiple_of(alignment);
        header.resize(data as usize, 0);
        let places = offsets.into_iter().map(|o| data + o).collect();
        let total = data + offset;
        let file = PlannedFile {
            name: name.to_owned(),
            header,
            tensors: 0..specs.len(),
            places,
            leads: Vec::new(),
            total,
        };
        Ok(Self { stream: Stream::new(out, specs, sizes, vec![file]) })
    }

    /// Bytes of the file.
    pub fn total_bytes(&self) -> u64 {
        self.stream.total_bytes()
    }
}

/// The alignment, and the header up to the tensor table.
fn metadata_bytes(path: &Path, metadata: &[(String, GgufValue)], tensors: usize) -> Result<(u64, Vec<u8>)> {
    let mut header = b"GGUF".to_vec();
    header.extend(3_u32.to_le_bytes());
    header.extend((tensors as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    let mut alignment = DEFAULT_ALIGNMENT;
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        let bad = |message: &str| format_error(path, format!("metadata `{key}` {message}"));
        if key.is_empty() || key.len() > MAX_KEY || !keys.insert(key) {
            return Err(bad("has a name that is empty, too long, or stands twice"));
        }
        if !is_uniform(value, 0) {
            return Err(bad("is an array of mixed types or too deep, which GGUF does not have"));
        }
        if key == ALIGNMENT_KEY {
            let given = if let GgufValue::U32(v) = value { Some(u64::from(*v)) } else { None };
            let given = given.filter(|a| a.is_power_of_two() && *a <= MAX_ALIGNMENT);
            alignment = given.ok_or_else(|| bad("must be a u32 and a power of two up to 1048576"))?;
        }
        put_string(&mut header, key);
        header.extend(value.type_id().to_le_bytes());
        put_value(&mut header, value);
    }
    Ok((alignment, header))
}

fn is_uniform(value: &GgufValue, depth: usize) -> bool {
    match value {
        GgufValue::Array(ty, items) => {
            let known = *ty <= 12 && depth < MAX_NESTING;
            known && items.iter().all(|i| i.type_id() == *ty && is_uniform(i, depth + 1))
        }
        _ => true,
    }
}

fn put_string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue) {
    match value {
        GgufValue::U8(v) => out.push(*v),
        GgufValue::I8(v) => out.extend(v.to_le_bytes()),
        GgufValue::U16(v) => out.extend(v.to_le_bytes()),
        GgufValue::I16(v) => out.extend(v.to_le_bytes()),
        GgufValue::U32(v) => out.extend(v.to_le_bytes()),
        GgufValue::I32(v) => out.extend(v.to_le_bytes()),
        GgufValue::F32(v) => out.extend(v.to_le_bytes()),
        GgufValue::Bool(v) => out.push((*v).into()),
        GgufValue::String(s) => put_string(out, s),
        GgufValue::Array(ty, items) => {
            out.extend(ty.to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            for item in items {
                put_value(out, item);
            }
        }
        GgufValue::U64(v) => out.extend(v.to_le_bytes()),
        GgufValue::I64(v) => out.extend(v.to_le_bytes()),
        GgufValue::F64(v) => out.extend(v.to_le_bytes()),
    }
}

impl TensorSink for GgufWriter<'_> {
    fn begin(&mut self, index: usize) -> Result<bool> {
        self.stream.begin(index)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write(bytes)
    }

    fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()> {
        self.stream.copy(source, offset, len)
    }

    fn end(&mut self) -> Result<()> {
        self.stream.end()
    }

    fn finish(&mut self) -> Result<()> {
        self.stream.finish()
    }
}
