//! Trainings that are stopped.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Folder;

/// What the log of a run holds so far.
pub fn lines(folder: &Folder, run: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.path(run).join("log.jsonl")).unwrap_or_default();
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

/// A run that is stopped when its log has this many steps; whether it was.
pub fn stopped(folder: &Folder, words: &[&str], run: &str, steps: usize, signal: &str) -> bool {
    let mut child = folder.command(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(120) {
        if lines(folder, run).len() >= steps {
            send(&child, signal);
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let done = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    if signal == "TERM" && !done.status.success() {
        assert!(errors.contains("stopped after step") && errors.contains("--resume"), "{errors}");
    }
    !done.status.success()
}

fn send(child: &Child, signal: &str) {
    let id = child.id().to_string();
    let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap();
    assert!(sent.success());
}
