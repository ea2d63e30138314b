//! Races between Pomona and its peers: our side and the peer's in one sitting, interleaved, medians, ratio, peak memory.

mod against_torch;
mod axis_groups;
mod child;
mod depth_apply;
mod generation;
mod machine;
mod outputs;
mod run;
mod score_blocks;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Races between Pomona and its peers.
#[derive(Debug, Parser)]
#[command(name = "pomona-bench", version)]
struct Cli {
    /// Print one JSON document on stdout
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    race: Race,
}

#[derive(Debug, Subcommand)]
enum Race {
    /// Leave-one-out perplexity of every block: the sweep against whole passes and against PyTorch
    ScoreBlocks(score_blocks::Args),
    /// Coupled axis groups and a plan that takes half of each, against Torch-Pruning
    AxisGroups(axis_groups::Args),
    /// Operations, forward and with gradients, and whole nets against PyTorch
    AgainstTorch(against_torch::Args),
    /// Our side of `against-torch`
    #[command(hide = true)]
    AgainstTorchSide,
    /// Last logits and greedy tokens for prompts given as ids, for comparison with other run times
    Outputs(outputs::Args),
    /// All outputs of any model for given inputs, for comparison with other run times
    Run(run::Args),
    /// Blocks out of a large checkpoint: `pomona apply` against `cp` of the written bytes and against mergekit
    DepthApply(depth_apply::Args),
    /// Prefill and decoding of a language model, against llama.cpp
    Generation(generation::Args),
}

#[global_allocator]
static MEMORY: pomona_exec::Memory = pomona_exec::Memory;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(e) = pomona_exec::check_instructions() {
        let _ = writeln!(std::io::stderr(), "error: {e}");
        return ExitCode::FAILURE;
    }
    pomona_exec::keep_freed_memory();
    match pomona_exec::among_workers(|| race(&cli)) {
        Ok(code) => code,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn race(cli: &Cli) -> ExitCode {
    let began = machine::Ticks::now();
    let result = match &cli.race {
        Race::ScoreBlocks(a) => score_blocks::run(a),
        Race::AxisGroups(a) => axis_groups::run(a),
        Race::AgainstTorch(a) => against_torch::run(a),
        Race::AgainstTorchSide => match against_torch::side::serve() {
            Ok(()) => return ExitCode::SUCCESS,
            Err(e) => Err(e),
        },
        Race::Outputs(a) => outputs::run(a),
        Race::Run(a) => run::run(a),
        Race::DepthApply(a) => depth_apply::run(a),
        Race::Generation(a) => generation::run(a),
    };
    let printed = result.and_then(|mut document| {
        if let Some(fields) = document.as_object_mut() {
            let mut on = machine::describe();
            on["taken_by_host"] = serde_json::json!(began.and_then(machine::Ticks::stolen_since));
            fields.insert("machine".to_owned(), on);
        }
        let text = if cli.json { serde_json::to_string_pretty(&document)? } else { lines(&document) };
        Ok(writeln!(std::io::stdout(), "{text}")?)
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// One line a field.
fn lines(document: &serde_json::Value) -> String {
    let fields = document.as_object().into_iter().flatten();
    fields.map(|(k, v)| format!("{k:<28}{v}")).collect::<Vec<_>>().join("\n")
}

/// The middle of the values.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
