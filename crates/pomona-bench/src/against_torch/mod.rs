//! Operations and whole nets, forward and with gradients, against PyTorch. Both sides are processes that run what they are
//! asked for and answer with times; they take turns.

mod nets;
mod operations;
pub mod side;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::median;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Python with torch
    #[arg(long)]
    python: PathBuf,
    /// PyTorch's side
    #[arg(long, default_value = "scripts/against_torch.py")]
    script: PathBuf,
    /// Threads of each side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Turns that each side takes
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Runs a turn
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only cases whose name starts with one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// One side's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    /// Seconds of every run.
    wall: Vec<f64>,
    /// Processor seconds of every run, all threads together.
    processor: Vec<f64>,
    /// Largest resident memory of the process so far, in bytes.
    peak: u64,
    parameters: u64,
}

struct Side {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Side {
    fn start(mut command: Command) -> Result<Self> {
        let name = format!("{command:?}");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { name, child, stdin, stdout })
    }

    fn ask(&mut self, case: &str, runs: usize) -> Result<Answer> {
        writeln!(self.stdin, "{case} {runs}").with_context(|| format!("{} has ended", self.name))?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("{} gave {line:?} for {case}", self.name))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It ends with its input; whatever happens, it does not outlive the race.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run(a: &Args) -> Result<Value> {
    let wanted = |name: &str| a.only.is_empty() || a.only.iter().any(|o| name.starts_with(o.as_str()));
    let mut document = Map::new();
    document.insert("race".to_owned(), json!("against-torch"));
    document.insert("threads".to_owned(), json!(a.threads));
    document.insert("runs".to_owned(), json!([a.turns, a.runs]));
    let own = std::env::current_exe()?;
    let sides = || -> Result<[Side; 2]> {
        let mut ours = Command::new(&own);
        ours.arg("against-torch-side").env("RAYON_NUM_THREADS", a.threads.to_string());
        let mut torch = Command::new(&a.python);
        torch.arg(&a.script).arg(a.threads.to_string());
        Ok([Side::start(ours)?, Side::start(torch)?])
    };
    let mut pair = sides()?;
    for case in operations::names() {
        for kind in ["f", "fb"] {
            let name = format!("{case}_{kind}");
            if wanted(&name) {
                document.insert(name.clone(), race(&mut pair, &name, a)?);
            }
        }
    }
    for net in nets::NAMES {
        for kind in ["train", "forward"] {
            let name = format!("{net}_{kind}");
            if wanted(&name) {
                // Processes of their own, so that the peak is this case's.
                document.insert(name.clone(), race(&mut sides()?, &name, a)?);
            }
        }
    }
    Ok(Value::Object(document))
}

fn race(sides: &mut [Side; 2], name: &str, a: &Args) -> Result<Value> {
    let mut wall = [Vec::new(), Vec::new()];
    let mut processor = [Vec::new(), Vec::new()];
    let (mut peak, mut parameters) = ([0; 2], [0; 2]);
    for _ in 0..a.turns.max(1) {
        for (i, side) in sides.iter_mut().enumerate() {
            let answer = side.ask(name, a.runs.max(1))?;
            wall[i].extend(answer.wall);
            processor[i].extend(answer.processor);
            (peak[i], parameters[i]) = (answer.peak, answer.parameters);
        }
    }
    let least = |v: &[f64]| v.iter().copied().fold(f64::INFINITY, f64::min);
    let [ours, torch] = wall.each_ref().map(|v| median(v));
    let mut row = json!({
        "ratio": ours / torch, "ours_ms": 1e3 * ours, "torch_ms": 1e3 * torch,
        "ratio_of_fastest": least(&wall[0]) / least(&wall[1]),
        "ratio_of_processor": median(&processor[0]) / median(&processor[1]),
    });
    if parameters[0] > 0 {
        row["peak_mb"] = json!(peak.map(|p| p / 1_000_000));
        row["parameters"] = json!(parameters);
    }
    Ok(row)
}
