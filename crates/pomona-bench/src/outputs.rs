//! What a model says, for comparison with other run times: last logits and greedy tokens for prompts given as ids.

use std::path::PathBuf;

use anyhow::{Context, Result};
use pomona_exec::{Device, Options, evaluate};
use pomona_models::open;
use pomona_task::{Choice, Decoding, ModelWeights, Residence, empty_states, generate, token_feeds};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    #[arg(long)]
    model: PathBuf,
    /// {"prompts": [{"ids": [id, ...]}]}
    #[arg(long)]
    prompts: PathBuf,
    /// Greedy tokens for each
    #[arg(long, default_value_t = 64)]
    new: usize,
}

#[derive(Deserialize)]
struct Prompts {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
}

pub fn run(a: &Args) -> Result<Value> {
    let text = std::fs::read_to_string(&a.prompts).with_context(|| a.prompts.display().to_string())?;
    let prompts: Prompts = serde_json::from_str(&text).with_context(|| a.prompts.display().to_string())?;
    let model = open(&a.model)?;
    let graph = model.graph()?;
    let device = Device::cpu();
    let weights = ModelWeights::new(model.only()?, &device, Residence::Memory);
    let output = graph.output("logits").context("the model has no logits")?;
    let mut out = Vec::new();
    for prompt in &prompts.prompts {
        let mut feeds = token_feeds(graph, &[&prompt.ids], 0, &device)?;
        feeds.extend(empty_states(graph, 1, &device)?);
        let logits = evaluate(graph, &weights, &feeds, &[output], &Options::default())?;
        let last = logits[0].slice(1, prompt.ids.len() - 1..prompt.ids.len())?.to_f32()?;
        let decoding = Decoding { new_tokens: a.new, choice: Choice::Greedy, seed: 0, stop: Vec::new() };
        let made = generate(
            graph,
            &weights,
            &device,
            std::slice::from_ref(&prompt.ids),
            &decoding,
            &mut |_| Ok(()),
        )?;
        out.push(json!({"ids": prompt.ids, "logits_last": last, "generated": made.ids[0],
            "tokens_per_second": made.tokens_per_second()}));
    }
    Ok(json!({"model": a.model, "prompts": out}))
}
