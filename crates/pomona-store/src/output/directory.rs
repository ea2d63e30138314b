//! An output directory that appears under its name only when it is complete.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::file::FileWriter;
use super::guard;
use super::journal::{Journal, Progress};
use super::publish::{publish, remove, restore, sync, sync_tree};
use crate::error::{Result, StoreError, io_error, write_error};

/// How an output directory is made.
#[derive(Clone, Debug, Default)]
pub struct OutputOptions {
    /// An existing output is replaced, atomically, instead of refused. Only a directory that is empty or holds a model
    /// (weights or a known config) is.
    pub force: bool,
    /// Bytes that will be written; checked against the free space before anything else.
    pub needed: u64,
    /// Paths that are read: the output may be none of them, nor contain or lie in one.
    pub sources: Vec<PathBuf>,
    /// Identity of the work (a fingerprint of source, plan and layout: equal keys must mean equal bytes). An interrupted
    /// run with the same key is continued: what it had on the disk is kept.
    pub resume_key: Option<String>,
}

/// A hidden sibling of the output, renamed by [`OutputDir::commit`].
///
/// Dropped without commit it is removed, unless it continued an interrupted run. Killed, it stays hidden, and the next run
/// onto the same output continues or replaces it.
#[derive(Debug)]
pub struct OutputDir {
    paths: Paths,
    journal: Journal,
    progress: Progress,
    keep: bool,
    force: bool,
}

#[derive(Debug)]
struct Paths {
    /// The output's name in its real directory.
    target: PathBuf,
    temporary: PathBuf,
    journal: PathBuf,
    /// Where an old output waits on file systems that cannot exchange.
    previous: PathBuf,
}

impl Paths {
    fn of(target: &Path) -> Result<Paths> {
        let Some(name) = target.file_name() else {
            let message = "is not a name for a directory".to_owned();
            return Err(StoreError::Output { path: target.to_owned(), message });
        };
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(io_error(parent, "cannot be created"))?;
        let parent = parent.canonicalize().map_err(io_error(parent, "cannot be read"))?;
        let hidden = |end: &str| {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(end);
            parent.join(hidden)
        };
        Ok(Paths {
            target: parent.join(name),
            temporary: hidden(".partial"),
            journal: hidden(".partial.journal"),
            previous: hidden(".previous"),
        })
    }
}

impl OutputDir {
    /// Prepares the output.
    ///
    /// # Errors
    /// [`StoreError::Output`] where it exists (without `force`), is or overlaps a source, or is being written by another
    /// run; [`StoreError::NoSpace`] where its file system has fewer than `needed` bytes. Nothing is changed then.
    pub fn create(target: impl AsRef<Path>, options: &OutputOptions) -> Result<OutputDir> {
        let target = target.as_ref();
        let refuse =
            |message: &str| StoreError::Output { path: target.to_owned(), message: message.to_owned() };
        let paths = Paths::of(target)?;
        guard::apart_from_sources(&paths.target, &options.sources)?;
        let Some(mut journal) = Journal::lock(&paths.journal)? else {
            return Err(refuse("is being written by another run: wait for it or choose another name"));
        };
        restore(&paths.target, &paths.previous)?;
        // A run that was killed after its exchange left the old output under the temporary name.
        if inode(&paths.temporary).is_some_and(|i| !journal.is_about(i)) {
            remove(&paths.temporary);
        }
        if std::fs::symlink_metadata(&paths.target).is_ok() {
            let allowed = if options.force {
                guard::replaceable(&paths.target)
            } else {
                Err(refuse("exists: choose another name, or --force to replace it when the new one is done"))
            };
            if let Err(e) = allowed {
                forget_if_idle(&paths, &journal);
                return Err(e);
            }
        }
        let key = options.resume_key.as_deref();
        let found = inode(&paths.temporary).map(|i| journal.read(i, key)).unwrap_or_default();
        let (progress, kept) = still_there(&paths.temporary, found);
        if progress.finished.is_empty() && progress.partial.is_empty() {
            remove(&paths.temporary);
        }
        let parent = paths.target.parent().unwrap_or(Path::new("/"));
        if let Err(e) = guard::space(target, parent, options.needed.saturating_sub(kept)) {
            forget_if_idle(&paths, &journal);
            return Err(e);
        }
        let temporary = &paths.temporary;
        std::fs::create_dir_all(temporary).map_err(write_error(temporary, "cannot be created", 0))?;
        clear(temporary, Path::new(""), &progress)?;
        journal.rewrite(inode(temporary).unwrap_or_default(), key, &progress)?;
        Ok(OutputDir { paths, journal, progress, keep: kept > 0, force: options.force })
    }

    /// Where files go until the commit.
    pub fn path(&self) -> &Path {
        &self.paths.temporary
    }

    /// The final name.
    pub fn target(&self) -> &Path {
        &self.paths.target
    }

    /// Whether an interrupted run finished this file with this size.
    pub fn has(&self, name: &str, bytes: u64) -> bool {
        self.progress.finished.get(name) == Some(&bytes)
    }

    /// Tensors of an unfinished file that an interrupted run has on the disk.
    pub(crate) fn partial(&self, name: &str) -> u64 {
        self.progress.partial.get(name).copied().unwrap_or(0)
    }

    /// Bytes of a file so far; 0 where there is none.
    pub(crate) fn size(&self, name: &str) -> u64 {
        std::fs::metadata(self.paths.temporary.join(name)).map_or(0, |m| m.len())
    }

    /// Starts a file. `name` may have folders.
    ///
    /// # Errors
    /// Where the name leaves the directory, or the system refuses.
    pub fn file(&mut self, name: &str) -> Result<FileWriter> {
        let path = self.paths.temporary.join(name);
        if name.is_empty() || !Path::new(name).components().all(|c| matches!(c, Component::Normal(_))) {
            let message = format!("`{name}` is not a name inside it");
            return Err(StoreError::Output { path: self.paths.target.clone(), message });
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(write_error(folder, "cannot be created", 0))?;
        }
        // What the journal says about an earlier one is no longer true.
        let known =
            self.progress.finished.remove(name).is_some() | self.progress.partial.remove(name).is_some();
        if known {
            self.record_partial(name, 0)?;
        }
        FileWriter::create(&path)
    }

    /// Records that a file is complete and on disk, so that a later run with the same key keeps it.
    ///
    /// # Errors
    /// Where the journal cannot be written.
    pub fn finished(&mut self, name: &str, bytes: u64) -> Result<()> {
        self.journal.finished(name, bytes)?;
        self.progress.partial.remove(name);
        self.progress.finished.insert(name.to_owned(), bytes);
        Ok(())
    }

    /// Records that the first `tensors` of a file are on disk.
    pub(crate) fn record_partial(&mut self, name: &str, tensors: u64) -> Result<()> {
        self.journal.partial(name, tensors)?;
        self.progress.partial.insert(name.to_owned(), tensors);
        Ok(())
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// As [`OutputDir::file`].
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.file(name)?;
        file.write(bytes)?;
        file.finish(bytes.len() as u64)
    }

    /// Makes the output visible under its name: all files are on disk before the rename, and an old output is exchanged
    /// in one step and deleted.
    ///
    /// # Errors
    /// Where the disk refuses, or an output came into being meanwhile; what stood there before stays.
    pub fn commit(mut self) -> Result<PathBuf> {
        sync_tree(&self.paths.temporary)?;
        publish(&self.paths.temporary, &self.paths.target, &self.paths.previous, self.force)?;
        // From here on the temporary name holds the old output, or nothing.
        self.keep = false;
        if let Some(parent) = self.paths.target.parent() {
            sync(parent)?;
        }
        Ok(self.paths.target.clone())
    }

    /// Leaves what is on the disk for a later run with the same key instead of removing it.
    pub fn keep_for_resume(&mut self) {
        self.keep = true;
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.paths.temporary);
            self.journal.remove();
        }
    }
}

/// A journal without a directory says nothing: refused runs leave no trace.
fn forget_if_idle(paths: &Paths, journal: &Journal) {
    if inode(&paths.temporary).is_none() {
        journal.remove();
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_dir).map(|m| m.ino())
}

/// Recorded files that stand there as recorded, and the bytes that they take on the disk.
fn still_there(temporary: &Path, mut progress: Progress) -> (Progress, u64) {
    let mut kept = 0;
    let mut check = |name: &str, bytes: Option<u64>| {
        let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        let found = std::fs::symlink_metadata(temporary.join(name)).ok();
        let found = found.filter(|m| inside && m.is_file() && bytes.is_none_or(|b| b == m.len()));
        kept += found.as_ref().map_or(0, |m| m.blocks() * 512);
        found.is_some()
    };
    progress.finished.retain(|name, bytes| check(name, Some(*bytes)));
    progress.partial.retain(|name, tensors| *tensors > 0 && check(name, None));
    (progress, kept)
}

/// Removes every file that is not kept.
fn clear(temporary: &Path, folder: &Path, kept: &Progress) -> Result<()> {
    let here = temporary.join(folder);
    for entry in std::fs::read_dir(&here).map_err(io_error(&here, "cannot be listed"))? {
        let entry = entry.map_err(io_error(&here, "cannot be listed"))?;
        let path = folder.join(entry.file_name());
        let name = path.to_string_lossy();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            clear(temporary, &path, kept)?;
            // Only an empty one goes.
            let _ = std::fs::remove_dir(entry.path());
        } else if !kept.finished.contains_key(name.as_ref()) && !kept.partial.contains_key(name.as_ref()) {
            remove(&entry.path());
        }
    }
    Ok(())
}
