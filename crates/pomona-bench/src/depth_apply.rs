//! `pomona apply` of a depth plan on a checkpoint of many gigabytes, against `cp` and mergekit.
//!
//! Every contestant starts with the source in the page cache and ends when its bytes are on the disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::child::{self, Taken};
use crate::median;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The checkpoint, a transformers directory
    #[arg(long)]
    model: PathBuf,
    /// The plan
    #[arg(long)]
    plan: PathBuf,
    /// Where outputs go; each is deleted before the next
    #[arg(long)]
    work: PathBuf,
    /// The program
    #[arg(long, default_value = "target/release/pomona")]
    pomona: PathBuf,
    /// mergekit-yaml of an environment, with a config that cuts the same layers
    #[arg(long, requires = "mergekit_config")]
    mergekit: Option<PathBuf>,
    /// The config
    #[arg(long)]
    mergekit_config: Option<PathBuf>,
    /// Runs of each
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Bytes of data memory that our side gets
    #[arg(long, default_value_t = 330_000_000)]
    data_limit: u64,
}

pub fn run(a: &Args) -> Result<Value> {
    std::fs::create_dir_all(&a.work)?;
    let (ours_dir, copy_dir, merge_dir) = (a.work.join("ours"), a.work.join("copy"), a.work.join("mergekit"));
    let mut ours: Vec<Taken> = Vec::new();
    let mut copies = Vec::new();
    let mut merges: Vec<Taken> = Vec::new();
    let mut bytes = 0;
    for _ in 0..a.runs.max(1) {
        remove(&ours_dir)?;
        warm(&a.model)?;
        ours.push(apply(a, &ours_dir)?);
        bytes = size_of(&ours_dir)?;
        // cp writes the same bytes: it copies what was just written, which is in the page cache.
        remove(&copy_dir)?;
        warm(&ours_dir)?;
        copies.push(copy(&ours_dir, &copy_dir)?);
        remove(&copy_dir)?;
        remove(&ours_dir)?;
        if let (Some(program), Some(config)) = (&a.mergekit, &a.mergekit_config) {
            remove(&merge_dir)?;
            warm(&a.model)?;
            let mut command = Command::new(program);
            command.arg(config).arg(&merge_dir).args(["--lazy-unpickle", "--copy-tokenizer"]);
            let mut taken = child::run(&mut command)?;
            let began = Instant::now();
            child::run(Command::new("sync").arg("-f").arg(&merge_dir))?;
            taken.seconds += began.elapsed().as_secs_f64();
            merges.push(taken);
            remove(&merge_dir)?;
        }
    }
    let seconds = |t: &[Taken]| t.iter().map(|t| t.seconds).collect::<Vec<_>>();
    let peak = |t: &[Taken]| t.iter().map(|t| t.anonymous).max().unwrap_or(0);
    let (mine, cp) = (median(&seconds(&ours)), median(&copies));
    let mut document = json!({
        "race": "depth-apply", "bytes_written": bytes, "runs": a.runs,
        "pomona_seconds": seconds(&ours), "cp_seconds": copies,
        "pomona_median": mine, "cp_median": cp, "ratio_to_cp": mine / cp,
        "pomona_anonymous_bytes": peak(&ours), "pomona_data_limit": a.data_limit,
    });
    if !merges.is_empty() {
        let merge = median(&seconds(&merges));
        document["mergekit_seconds"] = json!(seconds(&merges));
        document["mergekit_median"] = json!(merge);
        document["ratio_to_mergekit"] = json!(mine / merge);
        document["mergekit_anonymous_bytes"] = json!(peak(&merges));
    }
    Ok(document)
}

/// Our side, under a limit on its data memory.
fn apply(a: &Args, out: &Path) -> Result<Taken> {
    let mut command = Command::new("prlimit");
    command.arg(format!("--data={}", a.data_limit)).arg(&a.pomona);
    command.arg("--quiet").arg("apply").arg(&a.model).arg("--plan").arg(&a.plan).arg("-o").arg(out);
    child::run(&mut command)
}

/// `cp` of a directory's files and `sync -f`.
fn copy(from: &Path, to: &Path) -> Result<f64> {
    let began = Instant::now();
    child::run(Command::new("cp").arg("-r").arg(from).arg(to))?;
    child::run(Command::new("sync").arg("-f").arg(to))?;
    Ok(began.elapsed().as_secs_f64())
}

/// Reads every file once, so that all start from the same page cache.
fn warm(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let mut file = std::fs::File::open(entry?.path())?;
        std::io::copy(&mut file, &mut std::io::sink())?;
    }
    Ok(())
}

fn size_of(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        total += entry?.metadata()?.len();
    }
    Ok(total)
}

fn remove(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let name = dir.file_name().and_then(|n| n.to_str());
    if !matches!(name, Some("ours" | "copy" | "mergekit")) {
        bail!("{} is not an output of this race", dir.display());
    }
    std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())
}
