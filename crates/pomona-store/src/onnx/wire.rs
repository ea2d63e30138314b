//! Protocol buffers' wire format: fields over a slice, and their encoding. Lengths are checked before use.

use std::ops::Range;

/// A field: its number and what it holds. Positions are those of the slice that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub number: u64,
    pub value: Wire,
}

/// A field's content.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wire {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Bytes, text, an embedded message or packed numbers.
    Bytes(Range<usize>),
}

impl Wire {
    pub(super) fn int(&self) -> Result<i64, String> {
        match self {
            // Negative numbers are written as their 64-bit two's complement.
            Wire::Varint(v) => Ok(*v as i64),
            other => Err(format!("{other:?} stands where an integer was expected")),
        }
    }

    pub(super) fn float(&self) -> Result<f32, String> {
        match self {
            Wire::Fixed32(v) => Ok(f32::from_bits(*v)),
            other => Err(format!("{other:?} stands where a float was expected")),
        }
    }

    pub(super) fn range(&self) -> Result<Range<usize>, String> {
        match self {
            Wire::Bytes(r) => Ok(r.clone()),
            other => Err(format!("{other:?} stands where bytes were expected")),
        }
    }
}

/// Reads the fields of the message at `range` of `data`.
pub(super) struct Fields<'a> {
    data: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(data: &'a [u8], range: Range<usize>) -> Self {
        Self { data, at: range.start, end: range.end.min(data.len()) }
    }

    pub(super) fn next(&mut self) -> Result<Option<Field>, String> {
        if self.at >= self.end {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| "a length overflows".to_owned())?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            kind => return Err(format!("byte {} has the unknown wire type {kind}", self.at)),
        };
        Ok(Some(Field { number: key >> 3, value }))
    }

    fn take(&mut self, len: usize) -> Result<Range<usize>, String> {
        let end = self.at.checked_add(len).filter(|e| *e <= self.end).ok_or_else(|| {
            format!("byte {}: {len} bytes are announced and {} are left", self.at, self.end - self.at)
        })?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let range = self.take(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.data[range]);
        Ok(out)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.data[self.take(1)?.start];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("byte {}: an integer takes more than ten bytes", self.at))
    }
}

/// Integers packed one behind the other.
pub(super) fn packed_ints(data: &[u8], range: Range<usize>) -> Result<Vec<i64>, String> {
    let mut fields = Fields::new(data, range);
    let mut out = Vec::new();
    while fields.at < fields.end {
        out.push(fields.varint()? as i64);
    }
    Ok(out)
}

/// Bytes of a message under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Number and type of a length-delimited field, and its length, without the content.
    pub(super) fn head(&mut self, number: u64, len: u64) {
        self.varint(number << 3 | 2);
        self.varint(len);
    }

    pub(super) fn int(&mut self, number: u64, value: i64) {
        self.varint(number << 3);
        self.varint(value as u64);
    }

    pub(super) fn float(&mut self, number: u64, value: f32) {
        self.varint(number << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.head(number, bytes.len() as u64);
        self.0.extend(bytes);
    }

    pub(super) fn text(&mut self, number: u64, text: &str) {
        self.bytes(number, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut m = Message::default();
        m.int(1, -3);
        m.float(2, 0.5);
        m.text(700, "name");
        let mut f = Fields::new(&m.0, 0..m.0.len());
        assert_eq!(f.next().unwrap().unwrap().value.int().unwrap(), -3);
        assert_eq!(f.next().unwrap().unwrap().value.float().unwrap(), 0.5);
        let last = f.next().unwrap().unwrap();
        assert_eq!((last.number, &m.0[last.value.range().unwrap()]), (700, &b"name"[..]));
        assert_eq!(f.next().unwrap(), None);
    }

    #[test]
    fn hostile_bytes_are_errors() {
        for bytes in [
            vec![0x80; 11],                  // endless integer
            vec![0x0a, 0xff, 0xff, 0xff, 7], // more bytes than there are
            vec![0x0b, 0],                   // a group
            vec![0x0d, 1, 2],                // half a float
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(Fields::new(&bytes, 0..bytes.len()).next().is_err(), "{bytes:?}");
        }
    }
}
