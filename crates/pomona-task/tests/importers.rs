//! Imported models give the logits of transformers, also without a block, from directories and from GGUF.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use pomona_exec::{Device, Options, evaluate};
use pomona_graph::{apply, blocks};
use pomona_models::{OutputFormat, SaveOptions, open, save};
use pomona_task::{ModelWeights, Residence, empty_states, token_feeds};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    input_ids: Vec<Vec<u32>>,
    logit_positions: Vec<usize>,
    /// A matrix an input: positions by vocabulary.
    logits: Vec<Vec<Vec<f32>>>,
    without_block: WithoutBlock,
}

#[derive(Deserialize)]
struct WithoutBlock {
    block: usize,
    /// Of the last position of each input.
    logits: Vec<Vec<f32>>,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-models/tests/goldens")
}

fn expected(name: &str) -> Expected {
    let text = std::fs::read_to_string(goldens().join(name).join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Logits of every position for each input; a skipped block is masked by feeding its output with its input.
fn logits(
    model: &pomona_models::Model,
    ids: &[u32],
    masked: Option<usize>,
    residence: Residence,
) -> Vec<Vec<f32>> {
    let (graph, device) = (model.graph().unwrap(), Device::cpu());
    let weights = ModelWeights::new(model.only().unwrap(), &device, residence);
    let mut feeds = token_feeds(graph, &[ids], 0, &device).unwrap();
    feeds.extend(empty_states(graph, 1, &device).unwrap());
    if let Some(block) = masked {
        let region = &blocks(graph)[block];
        let (from, to) = (graph.resolve(&region.from).unwrap(), graph.resolve(&region.to).unwrap());
        let before = evaluate(graph, &weights, &feeds, &[from], &Options::default()).unwrap();
        feeds.extend(before.into_iter().map(|t| (to, t)));
    }
    let output = graph.output("logits").unwrap();
    let out = evaluate(graph, &weights, &feeds, &[output], &Options::default()).unwrap().remove(0);
    let vocab = *out.shape().last().unwrap();
    out.to_f32().unwrap().chunks(vocab).map(<[f32]>::to_vec).collect()
}

fn assert_close(got: &[f32], want: &[f32], what: &str) {
    let scale = want.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
    let gap = got.iter().zip(want).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert_eq!(got.len(), want.len(), "{what}");
    assert!(gap <= 1e-4 * scale, "{what}: largest gap {gap} at scale {scale}");
}

fn check(path: &Path, name: &str) {
    let (model, expected) = (open(path).unwrap(), expected(name));
    for (i, ids) in expected.input_ids.iter().enumerate() {
        let found = logits(&model, ids, None, Residence::Memory);
        for (position, want) in expected.logit_positions.iter().zip(&expected.logits[i]) {
            assert_close(&found[*position], want, &format!("{name}, input {i}, position {position}"));
        }
        let streamed = logits(&model, ids, None, Residence::Streamed);
        assert_eq!(found, streamed, "{name}: streamed weights give the same bits");
        let masked = logits(&model, ids, Some(expected.without_block.block), Residence::Memory);
        let last = masked.last().unwrap();
        assert_close(
            last,
            &expected.without_block.logits[i],
            &format!("{name}, input {i}, one block masked"),
        );
    }
}

/// The block removed by a plan, saved, and opened again: the bits of the masked run.
fn check_pruned(path: &Path, name: &str, format: OutputFormat) {
    let (model, expected) = (open(path).unwrap(), expected(name));
    let graph = model.graph().unwrap();
    let block = expected.without_block.block;
    let (edited, recipe) = apply(graph, &blocks(graph)[block].edits()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = SaveOptions { format, ..SaveOptions::default() };
    let saved = save(&model, &edited, &recipe, &options, dir.path().join("out"), &mut |_, _| {}).unwrap();
    let pruned = open(saved.path).unwrap();
    for ids in &expected.input_ids {
        let masked = logits(&model, ids, Some(block), Residence::Memory);
        assert_eq!(logits(&pruned, ids, None, Residence::Memory), masked, "{name}: pruned equals masked");
    }
}

const DIRECTORIES: [&str; 8] =
    ["llama1", "llama3", "llama_linear", "llama_bias", "qwen2", "qwen2_window", "mistral", "smollm2"];
const FAMILIES: [&str; 23] = [
    "qwen3",
    "qwen3_plain",
    "gemma3_six",
    "gpt2",
    "gpt2_scaled",
    "gpt_neox",
    "gpt_neox_sequential",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3_longrope",
    "olmo2",
    "stablelm",
    "stablelm_parallel",
    "opt",
    "opt_post",
    "falcon",
    "falcon_new",
    "falcon_heads",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
];
const GGUF: [&str; 17] = [
    "llama3",
    "llama_linear",
    "qwen2",
    "smollm2",
    "qwen3_plain",
    "gpt2",
    "gpt_neox",
    "gpt_neox_sequential",
    "gemma",
    "gemma2",
    "gemma3_six",
    "phi3",
    "olmo2",
    "stablelm",
    "stablelm_parallel",
    "falcon",
    "falcon_new",
];

#[test]
fn directories_give_the_logits_of_transformers() {
    for name in DIRECTORIES.into_iter().chain(FAMILIES) {
        check(&goldens().join(name), name);
    }
}

/// The same weights under the config of transformers 4.
#[test]
fn configs_of_transformers_4_mean_the_same() {
    let mut found = 0;
    for name in DIRECTORIES.into_iter().chain(FAMILIES) {
        let old = goldens().join(name).join("config.4x.json");
        if !old.is_file() {
            continue;
        }
        let (old, new) = (open(&old).unwrap(), open(goldens().join(name).join("config.json")).unwrap());
        assert_eq!(old.graph().unwrap(), new.graph().unwrap(), "{name}");
        found += 1;
    }
    assert!(found > 12, "{found} old configs");
}

#[test]
fn gguf_twins_give_the_logits_of_transformers() {
    for name in GGUF {
        check(&goldens().join(format!("{name}.gguf")), name);
    }
}

#[test]
fn pruned_equals_masked_in_every_format() {
    for name in DIRECTORIES.into_iter().chain(FAMILIES) {
        check_pruned(&goldens().join(name), name, OutputFormat::Pomona);
        check_pruned(&goldens().join(name), name, OutputFormat::Auto);
    }
    for name in GGUF {
        let file = goldens().join(format!("{name}.gguf"));
        // llama.cpp wants biases that this one lacks, and the divisors of that one follow no rule of a config.
        let gguf = if name == "gpt_neox_sequential" { OutputFormat::Auto } else { OutputFormat::Gguf };
        let hf = if name == "llama3" { OutputFormat::Auto } else { OutputFormat::Hf };
        check_pruned(&file, name, gguf);
        check_pruned(&goldens().join(name), name, gguf);
        check_pruned(&file, name, hf);
    }
}
