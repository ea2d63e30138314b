//! What an interrupted run had finished. The journal stands beside the temporary directory and is its lock as well: the
//! system releases it when the process ends, however it ends.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError, io_error, write_error};

/// First line.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Head {
    /// Identity of the work.
    key: Option<String>,
    /// Inode of the temporary directory: under its name may also stand an old output, if the run was killed between
    /// exchanging and deleting it.
    directory: u64,
}

/// Every other line; of several for one file the last counts.
#[derive(Serialize, Deserialize)]
enum Line {
    /// The file is complete and on the disk.
    Finished { file: String, bytes: u64 },
    /// So many of the file's tensors are on the disk.
    Partial { file: String, tensors: u64 },
}

/// Files that are on the disk, wholly or in part.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub finished: BTreeMap<String, u64>,
    pub partial: BTreeMap<String, u64>,
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Drop for Journal {
    /// Gives the lock back at once. Closing the file does so only when no child process is left that another thread is just about
    /// to start and that has the file open until then.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Journal {
    /// Opens and locks; none while another run holds it.
    pub(super) fn lock(path: &Path) -> Result<Option<Journal>> {
        loop {
            let mut how = OpenOptions::new();
            how.read(true).write(true).create(true).truncate(false);
            let file = how.open(path).map_err(write_error(path, "cannot be created", 0))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(io_error(path, "cannot be locked")(e.into())),
            }
            // The run that held it may have deleted it in between: then the lock is one on a file without a name.
            let inode = file.metadata().map_err(io_error(path, "cannot be read"))?.ino();
            if std::fs::metadata(path).is_ok_and(|m| m.ino() == inode) {
                return Ok(Some(Journal { path: path.to_owned(), file }));
            }
        }
    }

    /// What is recorded for this directory and key; nothing for any other.
    pub(super) fn read(&mut self, directory: u64, key: Option<&str>) -> Progress {
        let mut text = String::new();
        if key.is_none()
            || self.file.seek(SeekFrom::Start(0)).is_err()
            || self.file.read_to_string(&mut text).is_err()
        {
            return Progress::default();
        }
        // A line that was being written when the run ended has no end.
        let mut lines = text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n'));
        let head = lines.next().and_then(|l| serde_json::from_str::<Head>(l).ok());
        if head != Some(Head { key: key.map(str::to_owned), directory }) {
            return Progress::default();
        }
        let mut progress = Progress::default();
        for line in lines.map_while(|l| serde_json::from_str(l).ok()) {
            match line {
                Line::Finished { file, bytes } => {
                    progress.partial.remove(&file);
                    progress.finished.insert(file, bytes);
                }
                Line::Partial { file, tensors } => {
                    progress.partial.insert(file, tensors);
                }
            }
        }
        progress
    }

    /// Whether the directory of this inode is the one that was being written.
    pub(super) fn is_about(&mut self, directory: u64) -> bool {
        let mut text = String::new();
        let read = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.read_to_string(&mut text));
        let head = text.lines().next().and_then(|l| serde_json::from_str::<Head>(l).ok());
        read.is_ok() && head.is_some_and(|h| h.directory == directory)
    }

    /// Starts anew with what is kept.
    pub(super) fn rewrite(&mut self, directory: u64, key: Option<&str>, kept: &Progress) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(io_error(&self.path, "cannot be written"))?;
        self.append(&Head { key: key.map(str::to_owned), directory })?;
        for (file, &bytes) in &kept.finished {
            self.append(&Line::Finished { file: file.clone(), bytes })?;
        }
        for (file, &tensors) in &kept.partial {
            self.append(&Line::Partial { file: file.clone(), tensors })?;
        }
        self.sync()
    }

    pub(super) fn finished(&mut self, file: &str, bytes: u64) -> Result<()> {
        self.append(&Line::Finished { file: file.to_owned(), bytes })?;
        self.sync()
    }

    /// Not flushed: losing the line costs work, never bytes, because those it speaks of are on the disk.
    pub(super) fn partial(&mut self, file: &str, tensors: u64) -> Result<()> {
        self.append(&Line::Partial { file: file.to_owned(), tensors })
    }

    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|e| StoreError::Io {
            path: self.path.clone(),
            action: "cannot be written",
            source: e.into(),
        })?;
        let written = self.file.write_all(format!("{text}\n").as_bytes());
        written.map_err(write_error(&self.path, "cannot be written", 0))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(write_error(&self.path, "cannot be flushed to disk", 0))
    }

    /// Deletes it while it is still locked.
    pub(super) fn remove(&self) {
        // Best effort: what stays is hidden and small, and the next run onto this output takes it over.
        let _ = std::fs::remove_file(&self.path);
    }
}
