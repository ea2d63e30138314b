//! Runs a peer as a process: its time, and the peak of its anonymous memory.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a process took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Wall-clock seconds from start to end.
    pub seconds: f64,
    /// Largest sampled anonymous memory in bytes (mapped files not counted).
    pub anonymous: u64,
    /// What it printed.
    pub stdout: String,
}

/// Runs to the end; an error with its stderr where it fails.
pub fn run(command: &mut Command) -> Result<Taken> {
    let name = format!("{command:?}");
    let began = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.with_context(|| format!("cannot start {name}"))?;
    let id = child.id();
    let waiting = std::thread::spawn(move || child.wait_with_output());
    let mut anonymous = 0;
    while !waiting.is_finished() {
        anonymous = anonymous.max(anonymous_of(id));
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = began.elapsed().as_secs_f64();
    let Ok(output) = waiting.join() else { bail!("{name} could not be waited for") };
    let output = output?;
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(Taken { seconds, anonymous, stdout: String::from_utf8_lossy(&output.stdout).into_owned() })
}

fn anonymous_of(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
