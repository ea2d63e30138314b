//! Outputs appear complete or not at all, and never take anything with them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use pomona_store::{
    Checkpoint, Encoding, GgufWriter, OutputDir, OutputOptions, SafetensorsWriter, StoreError, TensorSink,
    TensorSpec,
};

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

fn plain() -> OutputOptions {
    OutputOptions::default()
}

fn force() -> OutputOptions {
    OutputOptions { force: true, ..plain() }
}

fn make(path: &Path, content: &str, options: &OutputOptions) -> Result<(), StoreError> {
    let mut out = OutputDir::create(path, options)?;
    out.write("config.json", content.as_bytes())?;
    out.commit().map(drop)
}

fn refusal(path: &Path, options: &OutputOptions) -> String {
    OutputDir::create(path, options).unwrap_err().to_string()
}

#[test]
fn a_commit_shows_the_output_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/out");
    let mut out = OutputDir::create(&path, &plain()).unwrap();
    out.write("unet/config.json", b"{}").unwrap();
    std::fs::write(out.path().join("by hand"), "x").unwrap();
    assert!(!path.exists());
    assert_eq!(out.commit().unwrap(), path.canonicalize().unwrap());
    assert_eq!(names(&path), ["by hand", "unet"]);
    assert_eq!(names(path.parent().unwrap()), ["out"]);
}

#[test]
fn a_drop_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = OutputDir::create(dir.path().join("out"), &plain()).unwrap();
    out.write("config.json", b"{}").unwrap();
    drop(out);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn an_existing_output_is_refused_or_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    make(&path, "old", &plain()).unwrap();
    assert!(refusal(&path, &plain()).contains("--force"));
    assert_eq!(std::fs::read(path.join("config.json")).unwrap(), b"old");
    drop(OutputDir::create(&path, &force()).unwrap());
    assert_eq!(std::fs::read(path.join("config.json")).unwrap(), b"old");
    make(&path, "new", &force()).unwrap();
    assert_eq!(std::fs::read(path.join("config.json")).unwrap(), b"new");
    assert_eq!(names(dir.path()), ["out"]);
}

#[test]
fn force_replaces_models_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("home/documents")).unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(refusal(&dir.path().join("home"), &force()).contains("holds no model"));
    assert!(refusal(&dir.path().join("file"), &force()).contains("not a directory"));
    make(&dir.path().join("empty"), "new", &force()).unwrap();
    assert!(refusal(Path::new("/"), &force()).contains("not a name"));
    assert!(refusal(&dir.path().join(".."), &force()).contains("not a name"));
    assert_eq!(names(dir.path()), ["empty", "file", "home"]);
}

#[test]
fn the_source_is_never_an_output() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("models/source");
    make(&source, "source", &plain()).unwrap();
    symlink(&source, dir.path().join("link")).unwrap();
    std::fs::write(dir.path().join("models/config.json"), "").unwrap();
    let options = OutputOptions { sources: vec![source.clone()], ..force() };
    for output in ["models/source", "models/source/inside", "models", "models/other/../source", "link"] {
        let message = refusal(&dir.path().join(output), &options);
        assert!(message.contains("overlaps the source"), "{output}: {message}");
    }
    // The source given as a link is the same source.
    let options = OutputOptions { sources: vec![dir.path().join("link")], ..force() };
    assert!(refusal(&source, &options).contains("overlaps the source"));
    make(&dir.path().join("models/source2"), "beside", &options).unwrap();
    assert_eq!(std::fs::read(source.join("config.json")).unwrap(), b"source");
}

#[test]
fn force_on_a_link_replaces_the_link_and_not_what_it_points_to() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    make(&real, "old", &plain()).unwrap();
    symlink(&real, &link).unwrap();
    make(&link, "new", &force()).unwrap();
    assert!(!link.is_symlink());
    assert_eq!(std::fs::read(real.join("config.json")).unwrap(), b"old");
    assert_eq!(std::fs::read(link.join("config.json")).unwrap(), b"new");
    assert_eq!(names(dir.path()), ["link", "real"]);
}

#[test]
fn two_runs_do_not_write_one_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let first = OutputDir::create(&path, &plain()).unwrap();
    assert!(refusal(&path, &force()).contains("another run"));
    first.commit().unwrap();
    assert_eq!(names(dir.path()), ["out"]);
}

#[test]
fn too_little_space_is_said_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let error = OutputDir::create(&path, &OutputOptions { needed: 1 << 60, ..plain() }).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, StoreError::NoSpace { needed: 0x1000_0000_0000_0000, .. }), "{message}");
    assert!(message.contains("1152921504606846976 bytes are needed"), "{message}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = OutputDir::create(dir.path().join("out"), &plain()).unwrap();
    for name in ["", "../x", "/tmp/x", "a/../../x"] {
        assert!(out.write(name, b"").is_err(), "{name}");
    }
}

/// Needs the right to mount, which a developer's account may lack.
#[test]
fn a_disk_that_fills_up_is_named_and_the_old_output_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&mount).output();
    if !mounted.is_ok_and(|m| m.status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let path = mount.join("out");
    make(&path, "old", &plain()).unwrap();
    let spec = TensorSpec { name: "w".into(), encoding: Encoding::U8, shape: vec![16 << 20] };
    let attempt = || -> Result<(), StoreError> {
        let mut out = OutputDir::create(&path, &force())?;
        let mut sink =
            SafetensorsWriter::new(&mut out, "model", vec![spec.clone()], u64::MAX, &BTreeMap::new())?;
        sink.begin(0)?;
        for _ in 0..16 {
            sink.write(&vec![1; 1 << 20])?;
        }
        sink.end()?;
        sink.finish()?;
        out.commit().map(drop)
    };
    let error = attempt().unwrap_err();
    let message = error.to_string();
    let left = (names(&mount), std::fs::read(path.join("config.json")).unwrap());
    assert!(Command::new("umount").arg(&mount).status().unwrap().success());
    assert!(matches!(error, StoreError::DiskFull { written: 1_000_000.., .. }), "{message}");
    assert!(message.contains("model.safetensors: the disk is full"), "{message}");
    assert_eq!(left, (vec!["out".to_owned()], b"old".to_vec()));
}

fn specs() -> Vec<TensorSpec> {
    (0..6)
        .map(|i| TensorSpec { name: format!("t{i}"), encoding: Encoding::F32, shape: vec![100, 10] })
        .collect()
}

/// Writes tensors until `stop`, and says which ones were begun as new.
fn write_until(sink: &mut dyn TensorSink, stop: usize) -> Vec<usize> {
    let mut new = Vec::new();
    for (i, spec) in specs().iter().enumerate().take(stop) {
        if sink.begin(i).unwrap() {
            new.push(i);
            sink.write(&vec![i as u8; spec.encoding.bytes_for(&spec.shape).unwrap() as usize]).unwrap();
            sink.end().unwrap();
        }
    }
    new
}

fn keyed(key: &str) -> OutputOptions {
    OutputOptions { resume_key: Some(key.to_owned()), ..plain() }
}

/// What a killed process leaves: nothing is dropped.
fn killed_run(path: &Path, options: &OutputOptions, stop: usize) {
    let mut out = OutputDir::create(path, options).unwrap();
    let mut sink = SafetensorsWriter::new(&mut out, "model", specs(), 9000, &BTreeMap::new()).unwrap();
    write_until(&mut sink, stop);
    drop(sink);
    out.keep_for_resume();
}

fn whole_run(path: &Path, options: &OutputOptions) -> Vec<usize> {
    let mut out = OutputDir::create(path, options).unwrap();
    let mut sink = SafetensorsWriter::new(&mut out, "model", specs(), 9000, &BTreeMap::new()).unwrap();
    let new = write_until(&mut sink, 6);
    sink.finish().unwrap();
    out.commit().unwrap();
    new
}

#[test]
fn a_killed_run_continues_with_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [once, path] = ["once", "out"].map(|n| dir.path().join(n));
    assert_eq!(whole_run(&once, &keyed("k")), [0, 1, 2, 3, 4, 5]);
    killed_run(&path, &keyed("k"), 5);
    assert!(!path.exists());
    // Two tensors a shard: the third shard was not finished.
    assert_eq!(whole_run(&path, &keyed("k")), [4, 5]);
    assert_eq!(names(dir.path()), ["once", "out"]);
    assert_eq!(names(&path), names(&once));
    for name in names(&once) {
        assert!(
            std::fs::read(path.join(&name)).unwrap() == std::fs::read(once.join(&name)).unwrap(),
            "{name}"
        );
    }
    assert_eq!(Checkpoint::open(&path).unwrap().tensors().len(), 6);
}

/// A file of which some tensors are on the disk goes on behind them, over whatever else was written of it.
#[test]
fn a_killed_run_continues_inside_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let [once, path] = ["once", "out"].map(|n| dir.path().join(n));
    whole_run(&once, &keyed("k"));
    killed_run(&path, &keyed("k"), 5);
    let name = "model-00003-of-00003.safetensors";
    let whole = std::fs::read(once.join(name)).unwrap();
    let torn = [&whole[..whole.len() - 4000], &[99; 1000]].concat();
    for (content, new) in [(torn.as_slice(), vec![5]), (&whole[..100], vec![4, 5])] {
        std::fs::write(dir.path().join(".out.partial").join(name), content).unwrap();
        let journal = dir.path().join(".out.partial.journal");
        let line = format!("{{\"Partial\":{{\"file\":\"{name}\",\"tensors\":1}}}}\n");
        std::fs::write(&journal, std::fs::read_to_string(&journal).unwrap() + &line).unwrap();
        assert_eq!(whole_run(&path, &keyed("k")), new);
        assert!(std::fs::read(path.join(name)).unwrap() == whole);
        std::fs::remove_dir_all(&path).unwrap();
        killed_run(&path, &keyed("k"), 5);
    }
}

#[test]
fn other_work_does_not_continue_a_killed_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    for options in [keyed("other"), plain()] {
        killed_run(&path, &keyed("k"), 5);
        assert_eq!(whole_run(&path, &OutputOptions { force: true, ..options }), [0, 1, 2, 3, 4, 5]);
        std::fs::remove_dir_all(&path).unwrap();
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn files_that_changed_since_the_kill_are_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    killed_run(&path, &keyed("k"), 5);
    let hidden = dir.path().join(".out.partial");
    std::fs::write(hidden.join("model-00001-of-00003.safetensors"), "cut").unwrap();
    std::fs::write(hidden.join("stray"), "x").unwrap();
    assert_eq!(whole_run(&path, &keyed("k")), [0, 1, 4, 5]);
    assert!(!names(&path).contains(&"stray".to_owned()));
}

/// The journal's last line was being written when the power went.
#[test]
fn a_torn_journal_is_read_up_to_the_tear() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    killed_run(&path, &keyed("k"), 5);
    let journal = dir.path().join(".out.partial.journal");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.trim_end()).unwrap();
    assert_eq!(whole_run(&path, &keyed("k")), [2, 3, 4, 5]);
}

/// Killed between exchange and deletion, the temporary name holds the old output: it must never be taken for new files.
#[test]
fn an_old_output_under_the_temporary_name_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    killed_run(&path, &keyed("k"), 5);
    let hidden = dir.path().join(".out.partial");
    let old = dir.path().join("old");
    std::fs::create_dir(&old).unwrap();
    for name in names(&hidden) {
        std::fs::copy(hidden.join(&name), old.join(&name)).unwrap();
    }
    std::fs::rename(&hidden, &path).unwrap();
    std::fs::rename(&old, &hidden).unwrap();
    assert!(refusal(&path, &keyed("k")).contains("--force"));
    assert_eq!(names(dir.path()), ["out"], "the refused run cleans up");
}

#[test]
fn tensors_come_in_order_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = OutputDir::create(dir.path().join("out"), &plain()).unwrap();
    let mut sink = GgufWriter::new(&mut out, "m.gguf", &[], specs()).unwrap();
    let part = |r: Result<(), StoreError>, text: &str| {
        let message = r.unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    };
    part(sink.begin(1).map(drop), "0 (`t0`) is due");
    part(sink.write(&[0]), "no tensor is begun");
    part(sink.end(), "not begun");
    assert!(sink.begin(0).unwrap());
    part(sink.begin(1).map(drop), "before `t0` was ended");
    part(sink.finish(), "before `t0` was written");
    sink.write(&[0; 3999]).unwrap();
    part(sink.end(), "tensor `t0`: got 3999 bytes and its shape takes 4000");
    part(sink.write(&[0; 2]), "tensor `t0`: got 4001 bytes");
    sink.write(&[0]).unwrap();
    sink.end().unwrap();
    part(sink.finish(), "before `t1` was written");
}
