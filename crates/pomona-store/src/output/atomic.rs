//! Small files that are replaced in one step.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Result, write_error};

const END: &str = ".tmp";
/// A temporary file of a process that does not exist here may belong to another machine on a shared disk; after this
/// long it belongs to nobody.
const ABANDONED: Duration = Duration::from_secs(600);
/// Distinguishes writers within this process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Writes a small file so that a reader sees the old content or the new: temporary sibling, fsync, rename. A link is
/// followed. Siblings that killed runs left are removed.
///
/// # Errors
/// Where the system refuses; the old content stays.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let target =
        if path.is_symlink() { path.canonicalize().unwrap_or(path.to_owned()) } else { path.to_owned() };
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(".");
    sweep(folder, &prefix);
    let mut name = prefix;
    name.push(format!("{}.{}{END}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let temporary = folder.join(name);
    write(&temporary, &target, folder, bytes).map_err(|e| {
        // What was there before is untouched; the failed sibling is of no use.
        let _ = std::fs::remove_file(&temporary);
        write_error(path, "cannot be written; what was there is unchanged", 0)(e)
    })
}

fn write(temporary: &PathBuf, target: &Path, folder: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temporary, target)?;
    File::open(folder)?.sync_all()
}

/// Removes temporary siblings of processes that are gone. Best effort: they are hidden and only take space.
fn sweep(folder: &Path, prefix: &OsString) {
    let prefix = prefix.to_string_lossy();
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(middle) = name.strip_prefix(prefix.as_ref()).and_then(|n| n.strip_suffix(END)) else {
            continue;
        };
        let Some((pid, _)) = middle.split_once('.') else { continue };
        let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) else { continue };
        let gone = rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if gone && age.is_some_and(|a| a > ABANDONED) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn content_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["scores.json"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        let (real, link) = (dir.path().join("real/a"), dir.path().join("b"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
    }

    #[test]
    fn a_failure_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), "kept").unwrap();
        assert!(write_atomic(&path, b"new").unwrap_err().to_string().contains("unchanged"));
        assert_eq!(std::fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(names(dir.path()), ["folder"]);
    }

    #[test]
    fn siblings_of_dead_processes_are_removed_and_of_live_ones_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let old = std::time::SystemTime::now() - 2 * ABANDONED;
        for (pid, aged) in [(dead.id(), true), (std::process::id(), true), (dead.id(), false)] {
            let file = File::create(dir.path().join(format!(".x.{pid}.{}.tmp", u8::from(aged)))).unwrap();
            if aged {
                file.set_modified(old).unwrap();
            }
        }
        write_atomic(dir.path().join("x"), b"").unwrap();
        let mut kept =
            vec![format!(".x.{}.1.tmp", std::process::id()), format!(".x.{}.0.tmp", dead.id()), "x".into()];
        kept.sort();
        assert_eq!(names(dir.path()), kept);
    }
}
