//! Decoder families: counts of published shapes, names that older files have, what a removed block does to a config.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use pomona_graph::{Graph, Op, Recipe, apply, blocks, sublayers};
use pomona_models::{Model, OutputFormat, SaveOptions, SavedReport, open, save};
use pomona_store::Checkpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A golden with changes to its config; a null takes a key away. `old` begins with the config of transformers 4.
fn changed(dir: &Path, name: &str, old: bool, changes: &Value) -> PathBuf {
    let to = dir.join("source");
    std::fs::create_dir_all(&to).unwrap();
    let from = goldens().join(name);
    std::fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).unwrap();
    let mut config = read(&from.join(if old { "config.4x.json" } else { "config.json" }));
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

fn saved(
    source: &Path,
    gone: &[usize],
    format: OutputFormat,
    out: &Path,
) -> pomona_models::Result<SavedReport> {
    let model = open(source).unwrap();
    let (graph, recipe) = without(&model, gone);
    let options = SaveOptions { format, ..SaveOptions::default() };
    save(&model, &graph, &recipe, &options, out, &mut |_, _| {})
}

#[test]
fn parameters_of_published_models_are_those_of_transformers() {
    let published = read(&goldens().join("published.json"));
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config.json");
    assert!(published.as_object().unwrap().len() >= 18);
    for (name, one) in published.as_object().unwrap() {
        std::fs::write(&path, one["config"].to_string()).unwrap();
        let model = open(&path).unwrap();
        let graph = model.graph().unwrap();
        assert_eq!(Value::from(graph.parameters()), one["parameters"], "{name}");
        let depth = ["num_hidden_layers", "n_layer"].iter().find_map(|k| one["config"][k].as_u64());
        assert_eq!(blocks(graph).len() as u64, depth.unwrap(), "{name}");
    }
}

#[test]
fn windows_by_number_become_a_list_with_the_first_removed_block() {
    let (full, slides) = ("full_attention", "sliding_attention");
    for (name, gone, types) in [
        ("gemma2", vec![2], vec![slides, full, full]),
        ("gemma2", vec![0, 1], vec![slides, full]),
        ("gemma3", vec![0], vec![slides, full, slides]),
        ("gemma3", vec![2], vec![slides, slides, slides]),
    ] {
        let dir = TempDir::new().unwrap();
        let source = changed(dir.path(), name, true, &json!({}));
        assert!(read(&source.join("config.json")).get("layer_types").is_none());
        let out = saved(&source, &gone, OutputFormat::Auto, &dir.path().join("out")).unwrap();
        assert_eq!(out.format, OutputFormat::Hf);
        assert!(out.notes.iter().any(|n| n.contains("layer_types")), "{:?}", out.notes);
        assert_eq!(read(&out.path.join("config.json"))["layer_types"], json!(types), "{name}");
        let whole = saved(&source, &[], OutputFormat::Hf, &dir.path().join("whole")).unwrap();
        assert!(whole.notes.is_empty() && read(&whole.path.join("config.json")).get("layer_types").is_none());
    }
}

#[test]
fn a_scale_by_number_fits_no_config_once_a_block_before_it_is_gone() {
    let dir = TempDir::new().unwrap();
    let source = goldens().join("gpt2_scaled");
    let refused = saved(&source, &[0], OutputFormat::Hf, &dir.path().join("no")).unwrap_err().to_string();
    assert!(
        refused.contains("transformer.h.1.attn.attention") && refused.contains("no config key"),
        "{refused}"
    );
    let kept = saved(&source, &[0], OutputFormat::Auto, &dir.path().join("kept")).unwrap();
    assert_eq!(kept.format, OutputFormat::Pomona);
    let last = saved(&source, &[1], OutputFormat::Auto, &dir.path().join("last")).unwrap();
    assert_eq!(last.format, OutputFormat::Hf);
}

#[test]
fn blocks_without_experts_are_listed_under_their_new_numbers() {
    let dir = TempDir::new().unwrap();
    let out = saved(&goldens().join("qwen2_moe"), &[0], OutputFormat::Hf, &dir.path().join("out")).unwrap();
    assert_eq!(read(&out.path.join("config.json"))["mlp_only_layers"], json!([0]));
}

#[test]
fn transposed_matrices_go_out_as_they_came_in() {
    let dir = TempDir::new().unwrap();
    let source = goldens().join("gpt2");
    let name = |i: usize| format!("transformer.h.{i}.attn.c_attn.weight");
    let model = open(&source).unwrap();
    let graph = model.graph().unwrap();
    assert_eq!(graph.tensor(graph.find_tensor(&name(0)).unwrap()).shape, [96, 32]);
    let out = saved(&source, &[0], OutputFormat::Hf, &dir.path().join("out")).unwrap();
    let (from, to) = (Checkpoint::open(&source).unwrap(), Checkpoint::open(&out.path).unwrap());
    let bytes = |file: &Checkpoint, i| file.bytes(file.info(&name(i)).unwrap()).unwrap().to_vec();
    assert_eq!(to.info(&name(0)).unwrap().shape, [32, 96]);
    assert_eq!(bytes(&to, 0), bytes(&from, 1));
    let again = open(&out.path).unwrap();
    assert_eq!(again.materialise(&name(1)).unwrap(), model.materialise(&name(1)).unwrap());
}

#[test]
fn seeded_weights_are_ones_for_every_norm_and_lie_as_files_have_them() {
    let dir = TempDir::new().unwrap();
    for (name, norm, wanted) in
        [("gemma", "model.norm.weight", 0.0), ("gpt2", "transformer.ln_f.weight", 1.0)]
    {
        let config = goldens().join(name).join("config.json");
        let out = pomona_models::init(
            &config,
            &pomona_models::InitOptions::default(),
            dir.path().join(name),
            &mut |_, _| {},
        )
        .unwrap();
        let model = open(out).unwrap();
        assert!(model.materialise(norm).unwrap().iter().all(|v| *v == wanted), "{name}");
    }
}

#[test]
fn other_names_of_a_family_are_found() {
    for (name, rename) in [
        ("gpt2", ("transformer.", "")),
        ("gpt_neox", ("embed_out.", "lm_head.")),
        ("gpt_neox", ("gpt_neox.", "")),
        ("opt", ("model.", "")),
    ] {
        let dir = TempDir::new().unwrap();
        let source = changed(dir.path(), name, false, &json!({}));
        let file = std::fs::read(source.join("model.safetensors")).unwrap();
        let size = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + size]).unwrap();
        let renamed: serde_json::Map<String, Value> = header
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| {
                (k.strip_prefix(rename.0).map_or(k.clone(), |r| rename.1.to_owned() + r), v.clone())
            })
            .collect();
        let header = Value::Object(renamed).to_string();
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out.extend(&file[8 + size..]);
        std::fs::write(source.join("model.safetensors"), out).unwrap();
        let model = open(&source).unwrap();
        assert!(model.only().unwrap().unused.is_empty(), "{name} {rename:?}");
    }
}

#[test]
fn settings_that_are_not_built_are_named() {
    for (name, changes, wanted) in [
        ("falcon", json!({"alibi": true}), "`alibi` is true; only false is read"),
        ("stablelm", json!({"qk_layernorm": true}), "`qk_layernorm` is true"),
        ("opt", json!({"layer_norm_elementwise_affine": false}), "only true is read"),
        ("gpt2", json!({"add_cross_attention": true}), "add_cross_attention"),
        ("gemma2", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        ("gpt_neox", json!({"rope_parameters": {"partial_rotary_factor": 0.4}}), "needs an even number"),
        ("phi3_longrope", json!({"hidden_size": 64}), "a list of 8 numbers above 0"),
        ("mixtral", json!({"num_experts_per_tok": 9}), "at most the number of experts (4)"),
        ("qwen2_moe", json!({"mlp_only_layers": ["x"]}), "a list of whole numbers"),
        ("falcon_new", json!({"parallel_attn": false}), "no published Falcon has both"),
    ] {
        let dir = TempDir::new().unwrap();
        let source = changed(dir.path(), name, false, &changes);
        let message = open(source.join("config.json")).unwrap_err().to_string();
        assert!(message.contains(wanted) && message.contains("config.json"), "{name}: {message}");
    }
}

#[test]
fn parallel_branches_are_one_sublayer_and_others_two() {
    for (name, of_a_block) in [
        ("qwen3", 2),
        ("gpt2", 2),
        ("gemma3", 2),
        ("olmo2", 2),
        ("opt", 2),
        ("opt_post", 2),
        ("mixtral", 2),
        ("gpt_neox", 1),
        ("falcon_new", 1),
        ("stablelm_parallel", 1),
    ] {
        let model = open(goldens().join(name)).unwrap();
        let graph = model.graph().unwrap();
        let parts = sublayers(graph);
        let all = blocks(graph);
        assert_eq!(
            parts.len(),
            of_a_block * all.len(),
            "{name}: {:?}",
            parts.iter().map(|p| &p.path).collect::<Vec<_>>()
        );
        // Each begins where the one before ends: what scoring needs.
        for pair in parts.windows(2) {
            assert_eq!(pair[0].to, pair[1].from, "{name}");
        }
        let attention = |r: &pomona_graph::Region| {
            r.nodes.iter().filter(|n| matches!(graph.node(**n).op, Op::Attention(_))).count()
        };
        assert_eq!(parts.iter().map(attention).sum::<usize>(), all.len(), "{name}");
    }
}
