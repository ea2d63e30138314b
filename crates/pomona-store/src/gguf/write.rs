//! Writes GGUF version 3 one tensor at a time.

use std::path::Path;

use super::value::GgufValue;
use crate::error::{Result, tensor_error};
use crate::output::{FileWriter, OutputDir, TensorSink};
use crate::safetensors::TensorSpec;

/// Streams tensors in the order of the list into one file.
pub struct GgufWriter<'a> {
    out: &'a mut OutputDir,
    name: String,
    specs: Vec<TensorSpec>,
    /// First byte and length of each tensor, from the beginning of the file.
    places: Vec<(u64, u64)>,
    header: Vec<u8>,
    file: Option<FileWriter>,
    tensor: Option<usize>,
    done: bool,
}

impl<'a> GgufWriter<'a> {
    /// Lays out the file `name`: header, then tensors at multiples of `general.alignment` (32 without it).
    pub fn new(
        out: &'a mut OutputDir,
        name: &str,
        metadata: &[(String, GgufValue)],
        specs: Vec<TensorSpec>,
    ) -> Result<Self> {
        let given = metadata.iter().find(|(k, _)| k == "general.alignment").and_then(|(_, v)| v.as_u64());
        let alignment = given.filter(|a| a.is_power_of_two()).unwrap_or(32);
        let path = out.path().join(name);
        let mut header = b"GGUF".to_vec();
        header.extend(3_u32.to_le_bytes());
        header.extend((specs.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            put_string(&mut header, key);
            header.extend(value.type_id().to_le_bytes());
            put_value(&mut header, value);
        }
        let mut offset = 0_u64;
        let mut lens = Vec::with_capacity(specs.len());
        for s in &specs {
            let bad = |message: String| tensor_error(&path, &s.name, message);
            let Some(ty) = s.encoding.ggml_type() else {
                return Err(bad(format!("is {}, which GGUF does not have: choose f32, f16 or bf16", s.encoding)));
            };
            if s.shape.len() > 4 {
                return Err(bad(format!("has {} axes; GGUF takes 4", s.shape.len())));
            }
            let len = s.encoding.bytes_for(&s.shape).map_err(bad)?;
            put_string(&mut header, &s.name);
            header.extend((s.shape.len() as u32).to_le_bytes());
            for d in s.shape.iter().rev() {
                header.extend((*d as u64).to_le_bytes());
            }
            header.extend(ty.to_le_bytes());
            header.extend(offset.to_le_bytes());
            lens.push((offset, len));
            offset = (offset + len).next_multiple_of(alignment);
        }
        while header.len() as u64 % alignment != 0 {
            header.push(0);
        }
        let data = header.len() as u64;
        let places = lens.into_iter().map(|(o, l)| (data + o, l)).collect();
        Ok(Self { out, name: name.to_owned(), specs, places, header, file: None, tensor: None, done: false })
    }

    /// Bytes of the file.
    pub fn total_bytes(&self) -> u64 {
        self.places.last().map_or(self.header.len() as u64, |(o, l)| o + l)
    }

    fn open(&mut self) -> Result<&mut FileWriter> {
        if self.file.is_none() {
            let mut file = self.out.file(&self.name)?;
            file.write(&self.header)?;
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => Ok(file),
            None => Err(crate::error::format_error(Path::new(&self.name), "is closed")),
        }
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
        if self.done || self.out.has(&self.name, self.total_bytes()) {
            self.done = true;
            return Ok(false);
        }
        let Some(&(offset, _)) = self.places.get(index) else { return Ok(false) };
        let file = self.open()?;
        let gap = offset.saturating_sub(file.position()) as usize;
        if gap > 0 {
            file.write(&vec![0; gap])?;
        }
        self.tensor = Some(index);
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.open()?.write(bytes)
    }

    fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()> {
        self.open()?.copy(source, offset, len)
    }

    fn end(&mut self) -> Result<()> {
        let (Some(index), Some(file)) = (self.tensor.take(), &self.file) else { return Ok(()) };
        let (offset, len) = self.places[index];
        let got = file.position().saturating_sub(offset);
        if got != len {
            let message = format!("got {got} bytes and its shape takes {len}");
            return Err(tensor_error(&self.out.path().join(&self.name), &self.specs[index].name, message));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if self.done {
            return Ok(());
        }
        self.open()?;
        if let Some(file) = self.file.take() {
            file.finish()?;
        }
        let (name, bytes) = (self.name.clone(), self.total_bytes());
        self.out.finished(&name, bytes)
    }
}
