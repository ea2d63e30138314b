//! A file that is written front to back, flushed while it grows.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::flusher::Flusher;
use crate::error::{Result, StoreError, format_error, io_error, write_error};

/// Written bytes between two flushes: the disk works while the next bytes are made, and the last flush is short. Flushes
/// four times as often slow the copy down by a tenth, because both take the file's lock.
const FLUSH_EVERY: u64 = 512 << 20;
/// Source files from this size are not kept in the page cache once copied; smaller ones are, as they are soon read again.
const LARGE: u64 = 1 << 30;
/// Bytes of one copying call: a coalesced range is written before it grows too large for the flusher to keep up.
const COPY_AT_ONCE: u64 = 128 << 20;
/// Buffer of the fallback copy, and of the coalesced writes of small tensors.
const BUFFER: usize = 1 << 20;
const ZEROS: [u8; 4096] = [0; 4096];

/// A file being written. Adjacent copies from one source become one system call.
pub struct FileWriter {
    path: PathBuf,
    file: File,
    at: u64,
    /// One behind the last byte that was ever there: beyond it, and only there, the file holds zeros.
    end: u64,
    buffer: Vec<u8>,
    pending: Option<Pending>,
    sources: HashMap<PathBuf, File>,
    /// Bytes that the system has and the flusher was not told of.
    dirty: u64,
    /// The last mark before which the system has everything.
    handed: u64,
    flusher: Flusher,
}

struct Pending {
    source: PathBuf,
    offset: u64,
    len: u64,
}

impl FileWriter {
    /// Creates the file; one that is there is emptied.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn create(path: &Path) -> Result<FileWriter> {
        Self::open(path, OpenOptions::new().write(true).create(true).truncate(true))
    }

    /// Opens what an interrupted run left; [`FileWriter::go_to`] says where it goes on.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn resume(path: &Path) -> Result<FileWriter> {
        Self::open(path, OpenOptions::new().write(true))
    }

    fn open(path: &Path, how: &OpenOptions) -> Result<FileWriter> {
        let file = how.open(path).map_err(write_error(path, "cannot be created", 0))?;
        let end = file.metadata().map_err(io_error(path, "cannot be read"))?.len();
        Ok(FileWriter {
            flusher: Flusher::start(&file),
            path: path.to_owned(),
            file,
            at: 0,
            end,
            buffer: Vec::with_capacity(BUFFER),
            pending: None,
            sources: HashMap::new(),
            dirty: 0,
            handed: 0,
        })
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Goes on at another position; what lies between stays as it is.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn go_to(&mut self, at: u64) -> Result<()> {
        let gap = at.wrapping_sub(self.at);
        if gap == 0 {
            return Ok(());
        }
        self.end = self.end.max(self.at);
        // Zeros keep small gaps within the buffered writes, where nothing lies in the gap yet.
        if at > self.at && self.at == self.end && gap <= ZEROS.len() as u64 {
            return self.write(&ZEROS[..gap as usize]);
        }
        self.hand_over()?;
        self.file.seek(SeekFrom::Start(at)).map_err(io_error(&self.path, "cannot be positioned"))?;
        self.at = at;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Where the system refuses; a full disk is [`StoreError::DiskFull`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush_pending()?;
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush_buffer()?;
        }
        if bytes.len() >= BUFFER {
            self.file.write_all(bytes).map_err(write_error(&self.path, "cannot be written", self.at))?;
            self.at += bytes.len() as u64;
            return self.written(bytes.len() as u64);
        }
        self.buffer.extend_from_slice(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Appends a range of another file.
    ///
    /// # Errors
    /// As [`FileWriter::write`], and where the source ends before the range.
    pub fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = offset.checked_add(len).and_then(|_| self.at.checked_add(len));
        let end =
            end.ok_or_else(|| format_error(source, format!("has no range of {len} bytes at {offset}")))?;
        match &mut self.pending {
            Some(p) if p.source == source && p.offset + p.len == offset => p.len += len,
            _ => {
                self.hand_over()?;
                self.pending = Some(Pending { source: source.to_owned(), offset, len });
            }
        }
        self.at = end;
        if self.pending.as_ref().is_some_and(|p| p.len >= COPY_AT_ONCE) {
            self.flush_pending()?;
        }
        Ok(())
    }

    /// States that everything before this mark (a growing number of the caller's) is appended.
    pub(crate) fn mark(&mut self, mark: u64) -> Result<()> {
        let pending = self.pending.as_ref().map_or(0, |p| p.len) + self.buffer.len() as u64;
        if pending == 0 {
            self.handed = mark;
        } else if self.dirty + pending >= FLUSH_EVERY {
            self.flush_pending()?;
            self.flush_buffer()?;
            self.handed = mark;
            self.signal()?;
        }
        Ok(())
    }

    /// The last mark before which everything is on the disk.
    pub(crate) fn durable(&self) -> u64 {
        self.flusher.durable()
    }

    /// Writes what is buffered and waits until the file, of `total` bytes, is on the disk. A shorter one is filled with
    /// zeros.
    ///
    /// # Errors
    /// Where the system refuses, now or in an earlier flush, or the file is longer.
    pub fn finish(mut self, total: u64) -> Result<()> {
        self.hand_over()?;
        let len = self.file.metadata().map_err(io_error(&self.path, "cannot be read"))?.len();
        if len > total {
            return Err(format_error(&self.path, format!("got {len} bytes and {total} were planned")));
        }
        if len < total {
            self.file.set_len(total).map_err(write_error(&self.path, "cannot be extended", len))?;
        }
        let fail = |e| write_error(&self.path, "cannot be flushed to disk", total)(e);
        self.flusher.stop().map_err(fail)?;
        self.file.sync_all().map_err(fail)
    }

    fn signal(&mut self) -> Result<()> {
        self.dirty = 0;
        self.flusher.signal(self.handed).map_err(write_error(
            &self.path,
            "cannot be flushed to disk",
            self.at,
        ))
    }

    fn written(&mut self, n: u64) -> Result<()> {
        self.dirty += n;
        if self.dirty >= FLUSH_EVERY { self.signal() } else { Ok(()) }
    }

    /// Gives everything appended so far to the system.
    fn hand_over(&mut self) -> Result<()> {
        self.flush_pending()?;
        self.flush_buffer()
    }

    fn flush_buffer(&mut self) -> Result<()> {
        let len = self.buffer.len() as u64;
        let before = self.at.saturating_sub(len);
        self.file.write_all(&self.buffer).map_err(write_error(&self.path, "cannot be written", before))?;
        self.buffer.clear();
        self.written(len)
    }

    fn flush_pending(&mut self) -> Result<()> {
        let Some(Pending { source, mut offset, mut len }) = self.pending.take() else { return Ok(()) };
        if !self.sources.contains_key(&source) {
            let file = File::open(&source).map_err(io_error(&source, "cannot be opened"))?;
            self.sources.insert(source.clone(), file);
        }
        let large = self.sources[&source].metadata().is_ok_and(|m| m.len() >= LARGE);
        while len > 0 {
            let from = &self.sources[&source];
            let chunk = len.min(COPY_AT_ONCE) as usize;
            match rustix::fs::copy_file_range(from, Some(&mut offset), &self.file, None, chunk) {
                // Zero may also mean that this file system does not really copy: the plain way finds out.
                Ok(0) => return self.copy_by_hand(&source, offset, len),
                Ok(n) => {
                    len -= n as u64;
                    if large {
                        release(from, offset - n as u64, n);
                    }
                    self.written(n as u64)?;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) if refuses(e) => return self.copy_by_hand(&source, offset, len),
                Err(e) => return Err(write_error(&self.path, "cannot be written", self.at - len)(e.into())),
            }
        }
        Ok(())
    }

    fn copy_by_hand(&mut self, source: &Path, offset: u64, mut len: u64) -> Result<()> {
        let mut from = &self.sources[source];
        from.seek(SeekFrom::Start(offset)).map_err(io_error(source, "cannot be read"))?;
        let mut buffer = vec![0; BUFFER.min(len as usize)];
        while len > 0 {
            let want = (buffer.len() as u64).min(len) as usize;
            let mut from = &self.sources[source];
            let n = match from.read(&mut buffer[..want]) {
                Ok(0) => return Err(shrunk(source)),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(io_error(source, "cannot be read")(e)),
            };
            let written = self.file.write_all(&buffer[..n]);
            written.map_err(write_error(&self.path, "cannot be written", self.at - len))?;
            len -= n as u64;
            self.written(n as u64)?;
        }
        Ok(())
    }
}

/// Lets go of copied pages of the source: a checkpoint and its copy rarely fit the page cache together, and finding pages
/// to reclaim costs more than the copy. Advice only, so a refusal is no error.
fn release(source: &File, offset: u64, len: usize) {
    let _ = rustix::fs::fadvise(
        source,
        offset,
        std::num::NonZeroU64::new(len as u64),
        rustix::fs::Advice::DontNeed,
    );
}

/// Errors that mean "not between these files", not "the disk is broken".
fn refuses(e: rustix::io::Errno) -> bool {
    use rustix::io::Errno as E;
    matches!(e, E::XDEV | E::NOSYS | E::INVAL | E::OPNOTSUPP | E::BADF | E::PERM)
}

fn shrunk(source: &Path) -> StoreError {
    format_error(source, "ends before the range that is copied: another program changed it")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_the_bytes_before_it() {
        let mut file = FileWriter::create(Path::new("/dev/full")).unwrap();
        file.write(&[1; 1000]).unwrap();
        let error = file.write(&vec![2; 2 * BUFFER]).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { written: 0, .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains("/dev/full: the disk is full") && message.contains("unchanged"),
            "{message}"
        );
    }

    #[test]
    fn ranges_bytes_and_gaps_stand_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        let data: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&source, &data).unwrap();
        let path = dir.path().join("out");
        let mut file = FileWriter::create(&path).unwrap();
        file.write(b"head").unwrap();
        file.copy(&source, 100, 1_000_000).unwrap();
        file.copy(&source, 1_000_100, 2_000_000).unwrap();
        file.copy(&source, 7, 3).unwrap();
        file.go_to(3_000_010).unwrap();
        file.write(b"tail").unwrap();
        file.go_to(1).unwrap();
        file.write(b"E").unwrap();
        // A small step forward over what is there keeps it.
        file.go_to(4).unwrap();
        file.write(&data[100..101]).unwrap();
        file.finish(3_000_020).unwrap();
        let mut wanted = b"hEad".to_vec();
        wanted.extend(&data[100..3_000_100]);
        wanted.extend(&data[7..10]);
        wanted.extend(b"\0\0\0tail\0\0\0\0\0\0");
        assert!(std::fs::read(&path).unwrap() == wanted);
    }

    #[test]
    fn the_plain_copy_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
        std::fs::write(&source, &data).unwrap();
        let path = dir.path().join("out");
        let mut file = FileWriter::create(&path).unwrap();
        file.sources.insert(source.clone(), File::open(&source).unwrap());
        file.at = 2_500_000;
        file.copy_by_hand(&source, 10, 2_500_000).unwrap();
        file.finish(2_500_000).unwrap();
        assert!(std::fs::read(&path).unwrap() == data[10..2_500_010]);
    }

    #[test]
    fn a_source_that_shrank_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::write(&source, [0; 100]).unwrap();
        let mut file = FileWriter::create(&dir.path().join("out")).unwrap();
        file.copy(&source, 50, 51).unwrap();
        let message = file.finish(51).unwrap_err().to_string();
        assert!(message.contains("source") && message.contains("another program"), "{message}");
    }
}
