//! TensorBoard's event files: records of protocol buffers, each with its length and two checksums (CRC-32C, masked), as
//! TensorFlow's record_writer.cc and event.proto define them.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Result, file_error};

/// An event file that is added to.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// A new file in a folder, for steps after `step`: readers drop later ones of files before it.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn create(folder: &Path, step: u64) -> Result<Events> {
        let now = now();
        let mut name = format!("events.out.tfevents.{:010}.pomona", now as u64);
        let mut more = 0;
        while folder.join(&name).exists() {
            more += 1;
            name = format!("events.out.tfevents.{:010}.{more}.pomona", now as u64);
        }
        let path = folder.join(name);
        let open = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = open.map_err(|e| file_error(&path, format!("cannot be made: {e}")))?;
        let mut events = Events { path, file };
        let mut version = Vec::new();
        bytes(&mut version, 3, b"brain.Event:2");
        events.event(0, &version)?;
        let mut start = Vec::new();
        // SessionLog { status: START }.
        bytes(&mut start, 7, &[0x08, 1]);
        events.event(step + 1, &start)?;
        Ok(events)
    }

    /// Adds numbers of a step, by tag.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn add(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut one = Vec::new();
            bytes(&mut one, 1, tag.as_bytes());
            one.push(2 << 3 | 5);
            one.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &one);
        }
        let mut what = Vec::new();
        bytes(&mut what, 5, &summary);
        self.event(step, &what)
    }

    fn event(&mut self, step: u64, what: &[u8]) -> Result<()> {
        let mut event = vec![1 << 3 | 1];
        event.extend(now().to_le_bytes());
        event.push(2 << 3);
        varint(&mut event, step);
        event.extend(what);
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend(&event);
        record.extend(masked(&event).to_le_bytes());
        self.file.write_all(&record).map_err(|e| file_error(&self.path, format!("cannot be written: {e}")))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A field of bytes, a text or a message.
fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Castagnoli's polynomial, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |c: u32, _: u32| if c & 1 == 1 { 0x82F6_3B78 ^ (c >> 1) } else { c >> 1 };
    !bytes.iter().fold(!0_u32, |c, b| (0..8).fold(c ^ u32::from(*b), bit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of the algorithm's catalogue, and RFC 3720's of 32 zeros.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    }

    #[test]
    fn records_are_framed() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::create(dir.path(), 0).unwrap();
        events.add(300, &[("loss".to_owned(), 1.5)]).unwrap();
        let data = std::fs::read(&events.path).unwrap();
        let mut at = 0;
        let mut last = &data[..0];
        while at < data.len() {
            let length = u64::from_le_bytes(data[at..at + 8].try_into().unwrap()) as usize;
            let crc = |from: usize| u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            assert_eq!(crc(at + 8), masked(&data[at..at + 8]));
            last = &data[at + 12..at + 12 + length];
            assert_eq!(crc(at + 12 + length), masked(last));
            at += 16 + length;
        }
        assert_eq!(
            last[9..],
            [16, 0xAC, 2, 42, 13, 10, 11, 10, 4, b'l', b'o', b's', b's', 21, 0, 0, 0xC0, 0x3F]
        );
    }
}
