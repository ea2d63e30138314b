//! Our side: reads `NAME RUNS` lines, answers each with the times of the runs.

use std::io::{BufRead, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use super::{nets, operations};

/// Something that can be run again and again.
pub type Runs = Box<dyn FnMut() -> Result<()>>;

/// Until the input ends.
pub fn serve() -> Result<()> {
    let mut made: Option<(String, Runs, u64)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (name, runs) = line.split_once(' ').context("a line is NAME RUNS")?;
        let runs: usize = runs.trim().parse()?;
        if made.as_ref().is_none_or(|(n, ..)| n != name) {
            // The last one goes before the next is made.
            drop(made.take());
            let (run, parameters) = match nets::make(name)? {
                Some(found) => found,
                None => (operations::make(name)?, 0),
            };
            made = Some((name.to_owned(), run, parameters));
        }
        let Some((_, run, parameters)) = &mut made else { continue };
        run()?;
        run()?;
        let (mut wall, mut processor) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let (began, before) = (Instant::now(), processor_seconds());
            run()?;
            wall.push(began.elapsed().as_secs_f64());
            processor.push(processor_seconds() - before);
        }
        let answer = json!({ "wall": wall, "processor": processor, "peak": pomona_exec::peak_memory().unwrap_or(0), "parameters": parameters });
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// Processor time of all threads. The kernel counts it to the nanosecond in `schedstat`, a file a thread.
fn processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |path: std::path::PathBuf| std::fs::read_to_string(path.join("schedstat")).ok();
    tasks.filter_map(|t| of(t.path())?.split_whitespace().next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
}
