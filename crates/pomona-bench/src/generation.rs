//! Prefill and decoding, tokens a second each, ours and llama.cpp's on the same files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use pomona_exec::Device;
use pomona_models::{Model, open};
use pomona_task::{Choice, Decoding, Generated, ModelWeights, Residence, generate};
use serde_json::{Value, json};

use crate::{child, median};

/// Tokens of the prompt before decoding.
const SHORT: usize = 16;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A GGUF file, or several: F16 and Q8_0 of the same weights, say
    #[arg(long, required = true, num_args = 1..)]
    model: Vec<PathBuf>,
    /// A folder with node_modules/node-llama-cpp (see the script): llama.cpp takes part
    #[arg(long)]
    modules: Option<PathBuf>,
    /// The script that runs llama.cpp; 512 tokens of prompt and 64 new ones after 16 as here
    #[arg(long, default_value = "scripts/llama_cpp_check.mjs")]
    script: PathBuf,
    /// Its interpreter
    #[arg(long, default_value = "node")]
    node: PathBuf,
    /// Threads of llama.cpp; ours is told by RAYON_NUM_THREADS, one a core without it
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Runs of each, interleaved
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Tokens of the prompt that is timed
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// New tokens that are timed
    #[arg(long, default_value_t = 64)]
    new: usize,
}

pub fn run(a: &Args) -> Result<Value> {
    let mut rows = Vec::new();
    for path in &a.model {
        rows.push(race(a, path).with_context(|| path.display().to_string())?);
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(json!({"race": "generation", "prompt_tokens": a.prompt, "new_tokens": a.new, "runs": a.runs,
        "threads": a.threads, "load_average_at_the_end": load.split_whitespace().next(), "rows": rows}))
}

fn race(a: &Args, path: &Path) -> Result<Value> {
    let model = open(path)?;
    let device = Device::cpu();
    let weights = ModelWeights::new(model.only()?, &device, Residence::Memory);
    let vocabulary = vocabulary(&model)?;
    // As the script's.
    let ids: Vec<u32> = (0..a.prompt as u64).map(|i| ((i * 7919 + 1000) % vocabulary) as u32).collect();
    let ours = |prompt: &[u32], new: usize| -> Result<Generated> {
        let decoding = Decoding { new_tokens: new, choice: Choice::Greedy, seed: 0, stop: Vec::new() };
        Ok(generate(model.graph()?, &weights, &device, &[prompt.to_vec()], &decoding, &mut |_| Ok(()))?)
    };
    // Widens the weights before the clock runs.
    ours(&ids[..SHORT.min(ids.len())], 2)?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let (mut their_prefill, mut their_decode) = (Vec::new(), Vec::new());
    for _ in 0..a.runs.max(1) {
        prefill.push(ours(&ids, 1)?.prompt_tokens_per_second());
        decode.push(ours(&ids[..SHORT.min(ids.len())], a.new + 1)?.tokens_per_second());
        if let Some(modules) = &a.modules {
            let mut command = Command::new(&a.node);
            command.arg(&a.script).arg("--modules").arg(modules).arg("--model").arg(path);
            command.args(["--kv", "F16", "--speed", "1", "--threads", &a.threads.to_string()]);
            command.args(["--speed-prompt", &a.prompt.to_string(), "--speed-new", &a.new.to_string()]);
            let found: Value = serde_json::from_str(&child::run(&mut command)?.stdout)?;
            their_prefill.extend(found["speed"]["prefill_tokens_per_s"].as_f64());
            their_decode.extend(found["speed"]["decode_tokens_per_s"].as_f64());
        }
    }
    let side = |prefill: &[f64], decode: &[f64]| {
        json!({"prefill_tokens_per_second": median(prefill), "decode_tokens_per_second": median(decode),
            "prefill_runs": prefill, "decode_runs": decode})
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut row =
        json!({"model": name, "bytes": std::fs::metadata(path)?.len(), "pomona": side(&prefill, &decode)});
    if !their_prefill.is_empty() {
        row["llama_cpp"] = side(&their_prefill, &their_decode);
        // Above 1 where ours is faster.
        row["prefill_ratio"] = json!(median(&prefill) / median(&their_prefill));
        row["decode_ratio"] = json!(median(&decode) / median(&their_decode));
    }
    Ok(row)
}

fn vocabulary(model: &Model) -> Result<u64> {
    let graph = model.graph()?;
    let logits = graph.output("logits").and_then(|v| graph.value(v).shape.last());
    Ok(logits.context("the model has no logits")?.size("vocabulary")? as u64)
}
