//! Gives a finished directory its name.

use std::fs::File;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{Result, StoreError, io_error, write_error};

/// Flushes every file and directory below `path`, and itself.
pub(super) fn sync_tree(path: &Path) -> Result<()> {
    for entry in std::fs::read_dir(path).map_err(io_error(path, "cannot be listed"))? {
        let entry = entry.map_err(io_error(path, "cannot be listed"))?;
        let kind = entry.file_type().map_err(io_error(path, "cannot be listed"))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            sync(&entry.path())?;
        }
    }
    sync(path)
}

pub(super) fn sync(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|f| f.sync_all());
    synced.map_err(write_error(path, "cannot be flushed to disk", 0))
}

/// Renames `temporary` to `target`, in one step also where a directory stands there, which then is at `temporary`.
pub(super) fn publish(temporary: &Path, target: &Path, previous: &Path, force: bool) -> Result<()> {
    let swap = force && std::fs::symlink_metadata(target).is_ok();
    let flags = if swap { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    let renamed = match renameat_with(CWD, temporary, CWD, target, flags) {
        Err(Errno::EXIST | Errno::NOTEMPTY) if !swap => {
            let message =
                "came into being while it was written, and is kept: choose another name, or --force";
            return Err(StoreError::Output { path: target.to_owned(), message: message.to_owned() });
        }
        // File systems without the flags. A plain rename never replaces a directory that holds something.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if swap => {
            exchange_by_steps(temporary, target, previous)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => std::fs::rename(temporary, target),
        other => other.map_err(Into::into),
    };
    renamed.map_err(io_error(target, "the finished output cannot be given its name"))
}

/// For a moment no output is visible; [`restore`] undoes it where the run ends in that moment.
fn exchange_by_steps(temporary: &Path, target: &Path, previous: &Path) -> std::io::Result<()> {
    std::fs::rename(target, previous)?;
    std::fs::rename(temporary, target).inspect_err(|_| {
        // Back to what it was; the first error is the one that is told.
        let _ = std::fs::rename(previous, target);
    })?;
    std::fs::rename(previous, temporary)
}

/// Puts an old output back that a run killed in [`exchange_by_steps`] left aside.
pub(super) fn restore(target: &Path, previous: &Path) -> Result<()> {
    if std::fs::symlink_metadata(previous).is_err() {
        return Ok(());
    }
    if std::fs::symlink_metadata(target).is_ok() {
        remove(previous);
        return Ok(());
    }
    std::fs::rename(previous, target)
        .map_err(io_error(previous, "the old output cannot be given its name back"))
}

/// Deletes a file, a directory or a link (not what it points to).
pub(super) fn remove(path: &Path) {
    // Best effort: what stays is hidden, and the next run onto this output removes it.
    let directory = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let _ = if directory { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn directory(path: &Path, content: &str) {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("file"), content).unwrap();
    }

    #[test]
    fn stepwise_exchange_swaps_and_a_kill_in_between_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let [new, old, aside] = ["new", "old", "aside"].map(|n| dir.path().join(n));
        directory(&new, "new");
        directory(&old, "old");
        exchange_by_steps(&new, &old, &aside).unwrap();
        assert_eq!(std::fs::read(old.join("file")).unwrap(), b"new");
        assert_eq!(std::fs::read(new.join("file")).unwrap(), b"old");
        std::fs::rename(&old, &aside).unwrap();
        restore(&old, &aside).unwrap();
        assert_eq!(std::fs::read(old.join("file")).unwrap(), b"new");
    }

    #[test]
    fn an_output_that_came_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let [new, old, aside] = ["new", "old", "aside"].map(|n| dir.path().join(n));
        directory(&new, "new");
        directory(&old, "old");
        let message = publish(&new, &old, &aside, false).unwrap_err().to_string();
        assert!(message.contains("old: came into being"), "{message}");
        assert_eq!(std::fs::read(old.join("file")).unwrap(), b"old");
    }
}
