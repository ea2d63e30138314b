//! Reads the parts of a GGUF header. Nothing is allocated on a length's word alone.

use std::path::Path;

use super::MAX_NESTING;
use super::value::GgufValue;
use crate::error::{Result, StoreError, format_error};

/// A vocabulary, its scores and its merges are a few hundred megabytes at most; beyond this the header is damaged.
const MAX_HEADER: usize = 1 << 30;
/// Memory that arrays may take together: a value takes 32 bytes and may be one in the file. Every vocabulary stays below the
/// sum of both.
const FREE_MEMORY: usize = 32 << 20;
/// Bytes of memory for each byte of the header read so far.
const MEMORY_PER_BYTE: usize = 4;

pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    /// Array values read so far.
    values: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { path, bytes, at: 0, values: 0 }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn error(&self, message: String) -> StoreError {
        format_error(self.path, message)
    }

    pub(super) fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let Some(end) = self.at.checked_add(n).filter(|&e| e <= self.bytes.len()) else {
            return Err(self.error(format!(
                "{what} at byte {} needs {n} bytes and {} follow: the file is truncated or damaged, fetch it again",
                self.at,
                self.left()
            )));
        };
        if end > MAX_HEADER {
            return Err(
                self.error(format!("its header passes {MAX_HEADER} bytes at {what}: the file is damaged"))
            );
        }
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok(s) => Ok(s.to_owned()),
            Err(_) => Err(self.error(format!("{what} before byte {} is not UTF-8", self.at))),
        }
    }

    /// A count whose elements take at least `least` bytes each: more than the file can hold is refused.
    pub(super) fn count(&mut self, least: usize, what: &str) -> Result<usize> {
        let n = self.u64(what)?;
        let room = self.left() / least;
        let count = usize::try_from(n).ok().filter(|&n| n <= room);
        count.ok_or_else(|| {
            self.error(format!("{what} is {n}, more than the rest of the file can hold ({room})"))
        })
    }

    /// The metadata value of a type number. `depth` counts the arrays around it.
    pub(super) fn value(&mut self, ty: u32, key: &str, depth: usize) -> Result<GgufValue> {
        let what = || format!("metadata `{key}`");
        Ok(match ty {
            0 => GgufValue::U8(self.array::<1>(key)?[0]),
            1 => GgufValue::I8(i8::from_le_bytes(self.array(key)?)),
            2 => GgufValue::U16(u16::from_le_bytes(self.array(key)?)),
            3 => GgufValue::I16(i16::from_le_bytes(self.array(key)?)),
            4 => GgufValue::U32(self.u32(key)?),
            5 => GgufValue::I32(i32::from_le_bytes(self.array(key)?)),
            6 => GgufValue::F32(f32::from_le_bytes(self.array(key)?)),
            7 => match self.array::<1>(key)?[0] {
                0 => GgufValue::Bool(false),
                1 => GgufValue::Bool(true),
                b => {
                    return Err(self.error(format!("{} is the truth value {b}; 0 or 1 was expected", what())));
                }
            },
            8 => GgufValue::String(self.string(key)?),
            9 => self.values(key, depth)?,
            10 => GgufValue::U64(self.u64(key)?),
            11 => GgufValue::I64(i64::from_le_bytes(self.array(key)?)),
            12 => GgufValue::F64(f64::from_le_bytes(self.array(key)?)),
            other => {
                return Err(self.error(format!("{} has type {other}, which GGUF 3 does not define", what())));
            }
        })
    }

    fn values(&mut self, key: &str, depth: usize) -> Result<GgufValue> {
        if depth >= MAX_NESTING {
            return Err(self.error(format!("metadata `{key}` nests arrays deeper than {MAX_NESTING}")));
        }
        let element = self.u32(key)?;
        let least = match element {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => {
                let message =
                    format!("metadata `{key}` is an array of type {other}, which GGUF 3 does not define");
                return Err(self.error(message));
            }
        };
        let n = self.count(least, &format!("length of metadata `{key}`"))?;
        self.values = self.values.saturating_add(n);
        // What the array itself has in the file counts too: it was checked to be there.
        let length = self.at.saturating_add(n.saturating_mul(least));
        let worth = FREE_MEMORY.saturating_add(length.saturating_mul(MEMORY_PER_BYTE));
        let memory = self.values.saturating_mul(size_of::<GgufValue>());
        if memory > worth {
            let message = format!(
                "metadata `{key}` brings its arrays to {} values, which take more memory than {length} bytes of header are worth \
                 ({worth} bytes)",
                self.values
            );
            return Err(self.error(message));
        }
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.value(element, key, depth + 1)?);
        }
        Ok(GgufValue::Array(element, items))
    }
}
