//! A file that is written from front to back, flushed while it grows.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Result, StoreError, io_error};

/// Written bytes between two flushes: the disk works while the next bytes are made, and the last flush is short.
const FLUSH_EVERY: u64 = 128 << 20;
/// Buffer of the fallback copy, and of the coalesced writes of small tensors.
const BUFFER: usize = 1 << 20;

/// A file being written. Adjacent copies from one source become one system call.
pub struct FileWriter {
    path: PathBuf,
    file: File,
    at: u64,
    buffer: Vec<u8>,
    pending: Option<Pending>,
    sources: HashMap<PathBuf, File>,
    flushed: u64,
    flusher: Option<(SyncSender<()>, JoinHandle<()>)>,
}

struct Pending {
    source: PathBuf,
    offset: u64,
    len: u64,
}

impl FileWriter {
    /// Creates the file.
    pub fn create(path: &Path) -> Result<FileWriter> {
        let file = File::create(path).map_err(io_error(path, "cannot be created"))?;
        let flusher = spawn_flusher(&file);
        Ok(FileWriter {
            path: path.to_owned(),
            file,
            at: 0,
            buffer: Vec::with_capacity(BUFFER),
            pending: None,
            sources: HashMap::new(),
            flushed: 0,
            flusher,
        })
    }

    /// Bytes so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.flush_pending()?;
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush_buffer()?;
        }
        if bytes.len() >= BUFFER {
            self.file.write_all(bytes).map_err(io_error(&self.path, "cannot be written"))?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.advance(bytes.len() as u64);
        Ok(())
    }

    /// Appends a range of another file.
    pub fn copy(&mut self, source: &Path, offset: u64, len: u64) -> Result<()> {
        self.advance(len);
        match &mut self.pending {
            Some(p) if p.source == source && p.offset + p.len == offset => p.len += len,
            _ => {
                self.flush_pending()?;
                self.flush_buffer()?;
                self.pending = Some(Pending { source: source.to_owned(), offset, len });
            }
        }
        // A coalesced range is written before it grows too large for the flusher to keep up.
        if self.pending.as_ref().is_some_and(|p| p.len >= FLUSH_EVERY) {
            self.flush_pending()?;
        }
        Ok(())
    }

    /// Writes what is buffered and waits until it is on the disk.
    pub fn finish(mut self) -> Result<()> {
        self.flush_pending()?;
        self.flush_buffer()?;
        if let Some((signal, thread)) = self.flusher.take() {
            drop(signal);
            // The thread only flushes; a panic there would be reported by the flush below.
            let _ = thread.join();
        }
        self.file.sync_all().map_err(io_error(&self.path, "cannot be flushed to disk"))
    }

    fn advance(&mut self, n: u64) {
        self.at += n;
        if self.at - self.flushed >= FLUSH_EVERY {
            self.flushed = self.at;
            if let Some((signal, _)) = &self.flusher {
                // A full channel means that a flush is waiting already.
                let _ = signal.try_send(());
            }
        }
    }

    fn flush_buffer(&mut self) -> Result<()> {
        self.file.write_all(&self.buffer).map_err(io_error(&self.path, "cannot be written"))?;
        self.buffer.clear();
        Ok(())
    }

    fn flush_pending(&mut self) -> Result<()> {
        let Some(Pending { source, mut offset, mut len }) = self.pending.take() else { return Ok(()) };
        if !self.sources.contains_key(&source) {
            let file = File::open(&source).map_err(io_error(&source, "cannot be opened"))?;
            self.sources.insert(source.clone(), file);
        }
        let from = &self.sources[&source];
        while len > 0 {
            let chunk = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(from, Some(&mut offset), &self.file, None, chunk) {
                Ok(0) => return Err(shrunk(&source)),
                Ok(n) => len -= n as u64,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) if refuses(e) => return copy_by_hand(from, &source, offset, len, &mut self.file, &self.path),
                Err(e) => return Err(io_error(&self.path, "cannot be written")(e.into())),
            }
        }
        Ok(())
    }
}

/// Errors that mean "not between these files", not "the disk is broken".
fn refuses(e: rustix::io::Errno) -> bool {
    use rustix::io::Errno as E;
    matches!(e, E::XDEV | E::NOSYS | E::INVAL | E::OPNOTSUPP | E::BADF | E::PERM)
}

fn copy_by_hand(from: &File, source: &Path, offset: u64, len: u64, to: &mut File, path: &Path) -> Result<()> {
    let mut from = from;
    from.seek(SeekFrom::Start(offset)).map_err(io_error(source, "cannot be read"))?;
    let mut rest = from.take(len);
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    while done < len {
        let n = rest.read(&mut buffer).map_err(io_error(source, "cannot be read"))?;
        if n == 0 {
            return Err(shrunk(source));
        }
        to.write_all(&buffer[..n]).map_err(io_error(path, "cannot be written"))?;
        done += n as u64;
    }
    Ok(())
}

fn shrunk(source: &Path) -> StoreError {
    crate::error::format_error(source, "became shorter while it was read: another program changed it")
}

/// A thread that flushes on each signal, so that the disk is busy while bytes are still being made.
fn spawn_flusher(file: &File) -> Option<(SyncSender<()>, JoinHandle<()>)> {
    let file = file.try_clone().ok()?;
    let (signal, signals) = sync_channel::<()>(1);
    let builder = std::thread::Builder::new().name("flusher".to_owned()).stack_size(64 << 10);
    let thread = builder.spawn(move || {
        while signals.recv().is_ok() {
            // An error shows again in the final flush, which reports it.
            let _ = file.sync_data();
        }
    });
    Some((signal, thread.ok()?))
}
