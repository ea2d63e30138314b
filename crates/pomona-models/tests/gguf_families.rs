//! Decoder families in GGUF: what a removed block does to patterns by number, and what llama.cpp could not run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use pomona_graph::{Graph, Recipe, apply, blocks};
use pomona_models::{Model, OutputFormat, SaveOptions, SavedReport, check_format, open, save};
use pomona_store::{Checkpoint, GgufValue};
use serde_json::{Value, json};
use tempfile::TempDir;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// A golden's directory with changes to its config; a null takes a key away.
fn changed(dir: &Path, name: &str, changes: &Value) -> PathBuf {
    let (from, to) = (goldens().join(name), dir.join("source"));
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).unwrap();
    let text = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => config.as_object_mut().unwrap().remove(key),
            value => config.as_object_mut().unwrap().insert(key.clone(), value.clone()),
        };
    }
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
    to
}

fn without(model: &Model, gone: &[usize]) -> (Graph, Recipe) {
    let graph = model.graph().unwrap();
    let all = blocks(graph);
    let edits: Vec<_> = gone.iter().flat_map(|i| all[*i].edits()).collect();
    apply(graph, &edits).unwrap()
}

/// Why a model without these blocks cannot go out as GGUF; empty where it can.
fn refusal(source: &Path, gone: &[usize]) -> String {
    let model = open(source).unwrap();
    let (graph, _) = without(&model, gone);
    check_format(&model, &graph, OutputFormat::Gguf).err().map(|e| e.to_string()).unwrap_or_default()
}

fn saved(source: &Path, gone: &[usize], format: OutputFormat, out: &Path) -> SavedReport {
    let model = open(source).unwrap();
    let (graph, recipe) = without(&model, gone);
    let options = SaveOptions { format, ..SaveOptions::default() };
    save(&model, &graph, &recipe, &options, out, &mut |_, _| {}).unwrap()
}

fn value(file: &Path, key: &str) -> Option<GgufValue> {
    Checkpoint::open(file.join("model.gguf")).unwrap().gguf(key).cloned()
}

#[test]
fn gemma_3_keeps_its_order_of_kinds_or_is_refused_before_any_work() {
    for source in ["gemma3_six", "gemma3_six.gguf"].map(|n| goldens().join(n)) {
        let message = refusal(&source, &[0]);
        assert!(message.contains("every 6th block") && message.contains("block 4 of what"), "{message}");
        assert!(message.contains("--format hf"), "{message}");
        for gone in [vec![6], vec![5, 6], vec![]] {
            assert_eq!(refusal(&source, &gone), "", "{gone:?}");
        }
        let dir = TempDir::new().unwrap();
        let out = saved(&source, &[6], OutputFormat::Gguf, &dir.path().join("out"));
        assert!(!out.notes.iter().any(|n| n.contains("the context is")), "{:?}", out.notes);
        assert_eq!(value(&out.path, "gemma3.block_count"), Some(GgufValue::U32(6)));
        // What GGUF refuses, transformers takes: its config lists the kinds.
        let hf = saved(&source, &[0], OutputFormat::Hf, &dir.path().join("hf"));
        let text = std::fs::read_to_string(hf.path.join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["layer_types"][4], "full_attention");
    }
}

#[test]
fn gemma_2_out_of_step_is_written_for_the_context_of_its_window() {
    for source in ["gemma2", "gemma2.gguf"].map(|n| goldens().join(n)) {
        let dir = TempDir::new().unwrap();
        let whole = saved(&source, &[], OutputFormat::Gguf, &dir.path().join("whole"));
        let whole = value(&whole.path, "gemma2.context_length").unwrap();
        assert!(whole.as_u64().unwrap() > 6);
        for (gone, context) in [(vec![0, 1], whole.as_u64().unwrap()), (vec![2], 6)] {
            let name = format!("{gone:?}");
            let out = saved(&source, &gone, OutputFormat::Gguf, &dir.path().join(&name));
            let found = value(&out.path, "gemma2.context_length").unwrap().as_u64();
            assert_eq!(found, Some(context), "{gone:?}");
            let told = out.notes.iter().any(|n| n.contains("the context is 6 tokens"));
            assert_eq!(told, context == 6, "{:?}", out.notes);
        }
    }
}

#[test]
fn windows_that_llama_cpp_does_not_apply_bound_the_context() {
    let dir = TempDir::new().unwrap();
    let out = saved(&goldens().join("phi3"), &[0], OutputFormat::Gguf, &dir.path().join("out"));
    assert_eq!(value(&out.path, "phi3.context_length").unwrap().as_u64(), Some(8));
    assert_eq!(value(&out.path, "phi3.attention.sliding_window").unwrap().as_u64(), Some(8));
    assert!(out.notes.iter().any(|n| n.contains("the context is 8 tokens")), "{:?}", out.notes);
}

#[test]
fn what_llama_cpp_could_not_run_is_refused_with_the_reason() {
    for (name, changes, wanted) in [
        ("mixtral", json!({}), "\"mixtral\" has no GGUF layout here"),
        ("qwen2_moe", json!({}), "\"qwen2_moe\" has no GGUF layout here"),
        (
            "falcon_heads",
            json!({}),
            "it has one branch behind the other, which llama.cpp does not do for falcon",
        ),
        ("opt", json!({}), "\"opt\" has no GGUF layout here"),
        ("gpt_neox_sequential", json!({}), "q, k, v has no biases, which llama.cpp asks for in gptneox"),
        ("gemma2", json!({"query_pre_attn_scalar": 10}), "is scaled by 0.316228; llama.cpp uses 0.353553"),
        ("gemma3_six", json!({"attn_logit_softcapping": 20.0}), "bounds its attention logits"),
        ("phi3_longrope", json!({}), "divisors of their own"),
        ("gpt2", json!({"activation_function": "relu"}), "its activation is Relu; llama.cpp computes"),
        ("gpt2_scaled", json!({}), "attention of block 1 is scaled by"),
        (
            "gemma3_six",
            json!({"rope_parameters": {
                "sliding_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0}}}),
            "block 0 has a window and scaled rotary positions",
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let message = refusal(&changed(dir.path(), name, &changes), &[]);
        assert!(message.contains(wanted), "{name}: {message}");
        assert!(message.contains("without --format it is saved"), "{name}: {message}");
    }
}

/// From a directory to GGUF and back: the same graph but for how norms are stored, and the same weights.
#[test]
fn every_family_with_a_layout_goes_to_gguf_and_back() {
    for name in [
        "qwen3_plain",
        "gpt2",
        "gpt_neox",
        "gemma",
        "gemma3_six",
        "olmo2",
        "stablelm",
        "stablelm_parallel",
        "falcon",
        "falcon_new",
    ] {
        let dir = TempDir::new().unwrap();
        let source = goldens().join(name);
        let there = saved(&source, &[], OutputFormat::Gguf, &dir.path().join("gguf"));
        let back = saved(&there.path.join("model.gguf"), &[], OutputFormat::Hf, &dir.path().join("hf"));
        let (first, again) = (open(&source).unwrap(), open(&back.path).unwrap());
        assert_eq!(first.graph().unwrap().nodes, again.graph().unwrap().nodes, "{name}");
        for t in &first.graph().unwrap().tensors {
            let (a, b) = (first.materialise(&t.name).unwrap(), again.materialise(&t.name).unwrap());
            let gap = a.iter().zip(&b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            // Norms of Gemma go through 1 + w in f32.
            let allowed = if name.starts_with("gemma") && t.shape.len() == 1 { 1e-6 } else { 0.0 };
            assert!(a.len() == b.len() && gap <= allowed, "{name} {}: {gap}", t.name);
        }
    }
}
