//! Runs whose surroundings fail them: directories that cannot be written, sources that go or change, two runs onto one output, kills.
//! `scripts/kill_test.py` does the kills on large models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, config};
use serde_json::json;

/// With scores and a plan for two of the eight blocks.
fn planned() -> Folder {
    let folder = Folder::new();
    folder.ok(&["score", "model", "--criterion", "magnitude", "--protect", "1,1", "-o", "s.json"]);
    folder.ok(&["plan", "model", "--scores", "s.json", "--target", "blocks=2", "-o", "p.json"]);
    folder
}

/// As [`planned`], of several megabytes in many files, so that a run lasts.
fn large() -> Folder {
    let folder = Folder::bare();
    let mut c = config();
    (c["hidden_size"], c["intermediate_size"]) = (json!(512), json!(1024));
    folder.write("large.json", &c.to_string());
    folder.ok(&["-q", "init", "large.json", "--seed", "5", "-o", "whole"]);
    folder.ok(&["-q", "export", "whole", "-o", "model", "--format", "hf", "--shard-size", "4000000"]);
    std::fs::remove_dir_all(folder.path("whole")).unwrap();
    folder.ok(&["score", "model", "--criterion", "magnitude", "--protect", "1,1", "-o", "s.json"]);
    folder.ok(&["plan", "model", "--scores", "s.json", "--target", "blocks=2", "-o", "p.json"]);
    folder
}

/// Files of a directory by name; none where it is not there.
fn content(path: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    let entries = std::fs::read_dir(path).ok()?;
    Some(
        entries
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).unwrap()))
            .collect(),
    )
}

fn message(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// Root may write anywhere; without this right it is like everybody else.
fn as_anybody(command: &Command, root: bool) -> Command {
    let mut out = match root {
        true => {
            let mut out = Command::new("setpriv");
            out.arg("--bounding-set=-dac_override,-dac_read_search").arg(command.get_program());
            out
        }
        false => Command::new(command.get_program()),
    };
    out.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    out
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let folder = planned();
    std::fs::create_dir(folder.path("locked")).unwrap();
    std::fs::set_permissions(folder.path("locked"), std::fs::Permissions::from_mode(0o555)).unwrap();
    let root = std::fs::write(folder.path("locked/try"), "").is_ok();
    if root {
        std::fs::remove_file(folder.path("locked/try")).unwrap();
    }
    for words in [
        &["score", "model", "--criterion", "magnitude", "-o", "locked/s.json"][..],
        &["plan", "model", "--scores", "s.json", "--target", "blocks=1", "-o", "locked/p.json"],
        &["apply", "model", "--plan", "p.json", "-o", "locked/out"],
        &["compress", "model", "--criterion", "magnitude", "--target", "blocks=1", "-o", "locked/out"],
        &["export", "model", "-o", "locked/out", "--format", "gguf"],
        &["init", "config.json", "--seed", "1", "-o", "locked/out"],
    ] {
        let done = as_anybody(&folder.command(words), root).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{words:?}: {}", message(&done));
        assert!(message(&done).contains("locked"), "{words:?}: {}", message(&done));
        assert!(content(&folder.path("locked")).unwrap().is_empty(), "{words:?}");
    }
}

#[test]
fn a_source_that_changed_since_it_was_scored_is_refused() {
    let folder = planned();
    let path = folder.path("model/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for (words, file) in [
        (&["plan", "model", "--scores", "s.json", "--target", "blocks=1", "-o", "q.json"][..], "s.json"),
        (&["apply", "model", "--plan", "p.json", "-o", "out"], "p.json"),
        (&["inspect", "model", "--plan", "p.json"], "p.json"),
        (&["score", "model", "--criterion", "magnitude", "--protect", "1,1", "-o", "s.json"], "s.json"),
    ] {
        let before = folder.names();
        let done = folder.run(words);
        assert_eq!(done.status.code(), Some(1), "{words:?}: {}", message(&done));
        assert!(message(&done).contains(file) && message(&done).contains("model"), "{}", message(&done));
        assert_eq!(folder.names(), before);
    }
}

/// Whatever is taken away while a run reads it: the output is whole, or there is none and the message names the source.
#[test]
fn a_source_that_disappears_leaves_a_whole_output_or_none() {
    let folder = large();
    let apply = ["-q", "apply", "model", "--plan", "p.json", "-o", "out"];
    let began = Instant::now();
    folder.ok(&apply);
    let lasts = began.elapsed();
    let whole = content(&folder.path("out")).unwrap();
    let (mut refused, mut done) = (0, 0);
    for step in 0..12_u32 {
        std::fs::remove_dir_all(folder.path("out")).ok();
        folder.ok(&["-q", "export", "model", "-o", "copy", "--format", "hf", "--shard-size", "4000000"]);
        let words = ["-q", "apply", "copy", "--plan", "p.json", "-o", "out"];
        let mut command = folder.command(&words);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(lasts * step / 12);
        std::fs::remove_dir_all(folder.path("copy")).unwrap();
        let end = child.wait_with_output().unwrap();
        match end.status.code() {
            Some(0) => {
                done += 1;
                let mut made = content(&folder.path("out")).unwrap();
                // The lineage and the card name the source.
                made.retain(|name, _| name.ends_with(".safetensors"));
                let kept = whole.iter().filter(|(name, _)| name.ends_with(".safetensors"));
                assert!(made.iter().eq(kept), "an output of other bytes");
            }
            Some(1) => {
                refused += 1;
                assert!(message(&end).contains("copy"), "{}", message(&end));
                assert!(!folder.path("out").exists());
            }
            other => panic!("ended with {other:?}: {}", message(&end)),
        }
        assert!(folder.names().iter().all(|n| !n.starts_with(".out")), "{:?}", folder.names());
    }
    println!("{done} runs ended, {refused} were refused");
    assert!(refused > 0);
}

#[test]
fn two_runs_onto_one_output_leave_one_whole_output() {
    let folder = large();
    let apply = |more: &[&str]| {
        let words = [&["-q", "apply", "model", "--plan", "p.json", "-o", "out"], more].concat();
        folder.command(&words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    assert!(apply(&[]).wait().unwrap().success());
    let whole = content(&folder.path("out")).unwrap();
    for more in [&[][..], &["--force"]] {
        for _ in 0..5 {
            std::fs::remove_dir_all(folder.path("out")).unwrap();
            let ends = [apply(more), apply(more)].map(|c| c.wait_with_output().unwrap());
            let good = ends.iter().filter(|e| e.status.success()).count();
            assert!(good == 1 || (good == 2 && !more.is_empty()), "{good} runs ended well");
            for end in ends.iter().filter(|e| !e.status.success()) {
                assert_eq!(end.status.code(), Some(1), "{}", message(end));
                assert!(message(end).contains("out: "), "{}", message(end));
            }
            assert_eq!(content(&folder.path("out")).unwrap(), whole);
            assert!(folder.names().iter().all(|n| !n.starts_with(".out")), "{:?}", folder.names());
        }
    }
}

#[test]
fn a_killed_compress_goes_on_to_the_same_bytes() {
    let folder = large();
    let words = |out| {
        let fixed = ["--criterion", "magnitude", "--target", "blocks=2", "--protect", "1,1"];
        [&["-q", "compress", "model", "-o", out], &fixed[..]].concat()
    };
    let began = Instant::now();
    folder.ok(&words("whole"));
    let lasts = began.elapsed();
    let whole = content(&folder.path("whole")).unwrap();
    let mut killed = 0;
    for step in 0..10_u32 {
        for name in ["out.scores.json", "out.plan.json"] {
            std::fs::remove_file(folder.path(name)).ok();
        }
        std::fs::remove_dir_all(folder.path("out")).ok();
        let mut child =
            folder.command(&words("out")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(lasts * step / 10 + Duration::from_millis(1));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            continue;
        }
        killed += 1;
        match content(&folder.path("out")) {
            // Killed between the exchange of names and the end: the hidden lock may stand, and the next run takes it away.
            Some(seen) => {
                assert_eq!(seen, whole);
                drop(folder.ok(&[&words("out")[..], &["--force"]].concat()));
            }
            None => drop(folder.ok(&words("out"))),
        }
        assert_eq!(content(&folder.path("out")).unwrap(), whole);
        assert_eq!(folder.read("out.scores.json"), folder.read("whole.scores.json"));
        assert_eq!(folder.read("out.plan.json"), folder.read("whole.plan.json"));
        // The hidden sibling of a small file goes with a later run, once it is ten minutes old.
        let left = |n: &&String| n.starts_with(".out") && !(n.contains(".json.") && n.ends_with(".tmp"));
        assert_eq!(folder.names().iter().find(left), None);
    }
    println!("{killed} of 10 runs were killed");
    assert!(killed > 0);
}
