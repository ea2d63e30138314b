//! An output directory that appears under its name only when it is complete.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use super::file::FileWriter;
use crate::error::{Result, StoreError, io_error};

const LOCK: &str = ".lock";
const JOURNAL: &str = ".journal";

/// How an output directory is made.
#[derive(Clone, Debug, Default)]
pub struct OutputOptions {
    /// An existing output is replaced, atomically, instead of refused.
    pub force: bool,
    /// Bytes that will be written; checked against the free space before anything else.
    pub needed: u64,
    /// Paths that are read: the output may be none of them, nor contain or lie in one.
    pub sources: Vec<PathBuf>,
    /// Identity of the work. An interrupted run with the same key is continued: its finished files are kept.
    pub resume_key: Option<String>,
}

/// A hidden sibling of the output, renamed by [`OutputDir::commit`]. Dropped without commit, it is removed; killed, it
/// stays hidden, and the next run onto the same output continues or replaces it.
#[derive(Debug)]
pub struct OutputDir {
    target: PathBuf,
    temporary: PathBuf,
    finished: Vec<(String, u64)>,
    journal: File,
    _lock: File,
    keep: bool,
    force: bool,
}

impl OutputDir {
    /// Prepares the output. Refuses an existing one (unless `force`), a source, a full disk and a second writer.
    pub fn create(target: impl AsRef<Path>, options: &OutputOptions) -> Result<OutputDir> {
        let target = target.as_ref();
        let refuse = |message: String| StoreError::Output { path: target.to_owned(), message };
        let Some(name) = target.file_name() else {
            return Err(refuse("is not a name for a directory".to_owned()));
        };
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(io_error(parent, "cannot be created"))?;
        let parent = parent.canonicalize().map_err(io_error(parent, "cannot be read"))?;
        let real = parent.join(name);
        for source in &options.sources {
            let Ok(source) = source.canonicalize() else { continue };
            if real.starts_with(&source) || source.starts_with(&real) {
                return Err(refuse(format!("overlaps the source {}: choose another output", source.display())));
            }
        }
        if std::fs::symlink_metadata(&real).is_ok() && !options.force {
            return Err(refuse("exists: choose another name, or --force to replace it when the new one is done".to_owned()));
        }
        let temporary = parent.join(format!(".{}.partial", name.to_string_lossy()));
        std::fs::create_dir_all(&temporary).map_err(io_error(&temporary, "cannot be created"))?;
        let lock_path = temporary.join(LOCK);
        let lock = File::create(&lock_path).map_err(io_error(&lock_path, "cannot be created"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(refuse("is being written by another run: wait for it or choose another name".to_owned()));
        }
        let finished = earlier_files(&temporary, options.resume_key.as_deref());
        clear(&temporary, &finished)?;
        let kept: u64 = finished.iter().map(|(_, n)| n).sum();
        check_space(target, &temporary, options.needed.saturating_sub(kept))?;
        let journal_path = temporary.join(JOURNAL);
        let mut journal = File::create(&journal_path).map_err(io_error(&journal_path, "cannot be created"))?;
        let mut text = format!("{}\n", options.resume_key.as_deref().unwrap_or_default());
        for (name, bytes) in &finished {
            text += &format!("{bytes} {name}\n");
        }
        let written = journal.write_all(text.as_bytes()).and_then(|()| journal.sync_data());
        written.map_err(io_error(&journal_path, "cannot be written"))?;
        let keep = options.resume_key.is_some();
        Ok(OutputDir { target: real, temporary, finished, journal, _lock: lock, keep: keep && kept > 0, force: options.force })
    }

    /// Where files go until the commit.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// The final name.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Whether an interrupted run finished this file with this size.
    pub fn has(&self, name: &str, bytes: u64) -> bool {
        self.finished.iter().any(|(n, b)| n == name && *b == bytes)
    }

    /// Starts a file.
    pub fn file(&self, name: &str) -> Result<FileWriter> {
        FileWriter::create(&self.temporary.join(name))
    }

    /// Records that a file is complete and on disk, so that a later run with the same key keeps it.
    pub fn finished(&mut self, name: &str, bytes: u64) -> Result<()> {
        let line = format!("{bytes} {name}\n");
        let written = self.journal.write_all(line.as_bytes()).and_then(|()| self.journal.sync_data());
        written.map_err(io_error(&self.temporary.join(JOURNAL), "cannot be written"))?;
        self.finished.push((name.to_owned(), bytes));
        Ok(())
    }

    /// Writes a small file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.file(name)?;
        file.write(bytes)?;
        file.finish()
    }

    /// Makes the output visible under its name: all files are on disk before the rename, and an old output is exchanged
    /// in one step.
    pub fn commit(mut self) -> Result<PathBuf> {
        for name in [JOURNAL, LOCK] {
            let path = self.temporary.join(name);
            std::fs::remove_file(&path).map_err(io_error(&path, "cannot be removed"))?;
        }
        sync_dir(&self.temporary)?;
        let swap = self.force && std::fs::symlink_metadata(&self.target).is_ok();
        let flags = if swap { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let renamed = match renameat_with(CWD, &self.temporary, CWD, &self.target, flags) {
            // File systems without the flags: a plain rename never replaces a directory that holds something.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !swap => {
                std::fs::rename(&self.temporary, &self.target)
            }
            other => other.map_err(Into::into),
        };
        renamed.map_err(io_error(&self.target, "the finished output cannot be given its name"))?;
        if let Some(parent) = self.target.parent() {
            sync_dir(parent)?;
        }
        // After an exchange the temporary name holds the old output; otherwise nothing is there.
        self.keep = false;
        remove(&self.temporary);
        Ok(self.target.clone())
    }

    /// Leaves finished files for a later run with the same key instead of removing them.
    pub fn keep_for_resume(&mut self) {
        self.keep = true;
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.temporary);
        }
    }
}

fn remove(path: &Path) {
    // Best effort: what stays is hidden, and the next run onto this output removes it.
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| d.sync_all()).map_err(io_error(path, "cannot be flushed to disk"))
}

/// Files that an interrupted run with this key recorded as finished and that still have their size.
fn earlier_files(temporary: &Path, key: Option<&str>) -> Vec<(String, u64)> {
    let (Some(key), Ok(text)) = (key, std::fs::read_to_string(temporary.join(JOURNAL))) else { return Vec::new() };
    let mut lines = text.lines();
    if lines.next() != Some(key) {
        return Vec::new();
    }
    let size = |name: &str| std::fs::metadata(temporary.join(name)).map(|m| m.len()).ok();
    lines
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(bytes, name)| Some((name.to_owned(), bytes.parse::<u64>().ok()?)))
        .filter(|(name, bytes)| !name.contains('/') && size(name) == Some(*bytes))
        .collect()
}

/// Removes everything that is not a finished file.
fn clear(temporary: &Path, finished: &[(String, u64)]) -> Result<()> {
    for entry in std::fs::read_dir(temporary).map_err(io_error(temporary, "cannot be listed"))? {
        let entry = entry.map_err(io_error(temporary, "cannot be listed"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != LOCK && !finished.iter().any(|(n, _)| *n == name) {
            remove(&entry.path());
        }
    }
    Ok(())
}

fn check_space(target: &Path, temporary: &Path, needed: u64) -> Result<()> {
    let stats = rustix::fs::statvfs(temporary).map_err(|e| io_error(temporary, "cannot be measured")(e.into()))?;
    let free = stats.f_bavail.saturating_mul(stats.f_frsize);
    if free < needed {
        remove(temporary);
        return Err(StoreError::NoSpace { path: target.to_owned(), needed, free });
    }
    Ok(())
}
