//! Leave-one-out perplexity of every block on the same tokens: whole passes, the sweep, the sweep with screening, PyTorch.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use pomona_exec::{Device, Options, evaluate};
use pomona_graph::Dim;
use pomona_models::open;
use pomona_prune::methods::depth::{Scoring, score};
use pomona_prune::{Criterion, Scores, Settings, Unit, UnitKind, units};
use pomona_task::{
    ModelWeights, NextToken, Objective, Residence, SampleLoss, Weights, rows_at_once, token_windows,
};
use serde_json::{Value, json};

use crate::{child, median};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    #[arg(long)]
    model: PathBuf,
    /// Windows of token ids: {"calibration": [[id, ...], ...]}
    #[arg(long)]
    tokens: PathBuf,
    /// A Python with torch, transformers and gguf: PyTorch takes part
    #[arg(long)]
    python: Option<PathBuf>,
    /// The PyTorch side
    #[arg(long, default_value = "scripts/score_blocks_torch.py")]
    script: PathBuf,
    /// Runs of each
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

pub fn run(a: &Args) -> Result<Value> {
    let model = open(&a.model)?;
    let graph = model.graph()?;
    let device = Device::cpu();
    let weights = ModelWeights::new(model.only()?, &device, Residence::Memory);
    let objective = NextToken::new(token_windows(&a.tokens, "calibration", usize::MAX)?)?;
    let (parts, _) = units(graph, UnitKind::Block)?;
    let samples = objective.samples();
    let fingerprint = model.fingerprint()?;
    let on = Scoring {
        graph,
        weights: &weights,
        objective: Some(&objective),
        device: &device,
        fingerprint: &fingerprint,
        tool: "pomona-bench",
        group: samples.div_ceil(5),
        save_every: std::time::Duration::from_secs(2),
    };
    let settings = |screen| Settings {
        criterion: Criterion::Perplexity,
        unit: UnitKind::Block,
        protect: [0, 0],
        iterative: None,
        screen,
        samples,
        tokens: objective.windows().ids[0].len(),
        seed: 0,
    };
    // Widens the weights before the clock runs.
    let feeds = objective.feeds(graph, 0..1, &device)?;
    let output = graph.output(objective.output()).context("the model has no logits")?;
    evaluate(graph, &weights, &feeds, &[output], &Options::default())?;
    let (mut whole, mut sweep, mut screen, mut torch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut whole_scores, mut swept, mut screened) = (Vec::new(), None, None);
    let mut torch_scores: Option<Vec<f64>> = None;
    for _ in 0..a.runs.max(1) {
        let began = Instant::now();
        whole_scores = whole_passes(graph, &weights, &objective, &device, &parts)?;
        whole.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        swept = Some(score(&on, &settings(None), None, &mut |_, _| Ok(()))?);
        sweep.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        screened = Some(score(&on, &settings(Some(8)), None, &mut |_, _| Ok(()))?);
        screen.push(began.elapsed().as_secs_f64());
        if let Some(python) = &a.python {
            let mut command = Command::new(python);
            command.arg(&a.script).arg("--gguf").arg(&a.model).arg("--tokens").arg(&a.tokens);
            let found: Value = serde_json::from_str(&child::run(&mut command)?.stdout)?;
            torch.extend(found["seconds"].as_f64());
            torch_scores = serde_json::from_value(found["scores"].clone()).ok();
        }
    }
    let (swept, screened) = (swept.context("nothing was scored")?, screened.context("nothing was scored")?);
    let ours: Vec<f64> = swept.parts.iter().filter_map(|p| p.score).collect();
    let apart = |other: &[f64]| ours.iter().zip(other).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
    let first = |s: &Scores| s.order([0, 0]).into_iter().take(6).collect::<Vec<_>>();
    let mut document = json!({
        "race": "score-blocks", "blocks": parts.len(), "samples": samples, "runs": a.runs,
        "whole_passes_seconds": whole, "sweep_seconds": sweep, "screen_seconds": screen,
        "sweep_ratio": median(&sweep) / median(&whole), "screen_ratio": median(&screen) / median(&whole),
        "largest_relative_difference": apart(&whole_scores),
        "first_six": first(&swept), "screened_first_six": first(&screened),
        "same_first_six": first(&swept) == first(&screened),
    });
    if !torch.is_empty() {
        document["torch_seconds"] = json!(torch);
        document["ratio_to_torch"] = json!(median(&sweep) / median(&torch));
        document["whole_passes_ratio_to_torch"] = json!(median(&whole) / median(&torch));
        document["largest_relative_difference_to_torch"] = json!(torch_scores.map(|t| apart(&t)));
    }
    Ok(document)
}

/// The protocol as published: a whole forward pass of all samples for every block, which is skipped.
fn whole_passes(
    graph: &pomona_graph::Graph,
    weights: &dyn Weights,
    objective: &NextToken,
    device: &Device,
    parts: &[Unit],
) -> Result<Vec<f64>> {
    let output = graph.output(objective.output()).context("the model has no logits")?;
    let elements = graph.value(output).shape.last().and_then(Dim::as_int).unwrap_or(1) as usize;
    let many = rows_at_once(elements * objective.windows().ids[0].len());
    let mut scores = Vec::with_capacity(parts.len());
    for part in parts {
        let (from, to) = part.from.zip(part.to).context("the model cannot be run")?;
        let mut losses = Vec::new();
        for sample in (0..objective.samples()).step_by(many) {
            let samples = sample..(sample + many).min(objective.samples());
            let mut feeds = objective.feeds(graph, samples.clone(), device)?;
            let before = evaluate(graph, weights, &feeds, &[from], &Options::default())?;
            feeds.extend(before.into_iter().map(|t| (to, t)));
            let out = evaluate(graph, weights, &feeds, &[output], &Options::default())?;
            losses.extend(objective.losses(samples, &out[0])?);
        }
        scores.push(SampleLoss::mean(&losses).exp());
    }
    Ok(scores)
}
