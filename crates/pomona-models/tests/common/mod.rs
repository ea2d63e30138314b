//! Small models that the tests write themselves.
#![allow(dead_code, clippy::unwrap_used, reason = "tests; each file uses its part")]

use std::path::{Path, PathBuf};

use pomona_graph::{Edit, Graph, Recipe, ValueRef, apply};
use pomona_models::{InitOptions, Model, init, open};
use pomona_store::{
    Checkpoint, Encoding, GgufValue, GgufWriter, OutputDir, OutputOptions, TensorSink, TensorSpec,
};
use serde_json::{Value, json};

pub const DEPTH: usize = 4;

/// A config of four small blocks.
pub fn config(model_type: &str) -> Value {
    let mut c = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": model_type,
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": DEPTH, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 160, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": [2, 3, 4, 5],
    });
    match model_type {
        "qwen2" => {
            c["architectures"] = json!(["Qwen2ForCausalLM"]);
            c["use_sliding_window"] = json!(true);
            c["sliding_window"] = json!(32);
            c["max_window_layers"] = json!(2);
            c["layer_types"] =
                json!(["full_attention", "full_attention", "sliding_attention", "sliding_attention"]);
        }
        "mistral" => {
            c["architectures"] = json!(["MistralForCausalLM"]);
            c["sliding_window"] = json!(64);
            c["head_dim"] = json!(32);
        }
        _ => {}
    }
    c
}

/// A seeded checkpoint of a config.
pub fn checkpoint(dir: &Path, config: &Value, dtype: Encoding, shard_size: u64) -> PathBuf {
    let path = dir.join("given.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let options = InitOptions { seed: 7, dtype, shard_size, force: false };
    init(&path, &options, dir.join("source"), &mut |_, _| {}).unwrap()
}

/// The model without these blocks.
pub fn without(model: &Model, blocks: &[usize]) -> (Graph, Recipe) {
    let edits: Vec<Edit> = blocks
        .iter()
        .map(|i| {
            let from = match i {
                0 => "model.embed_tokens".to_owned(),
                i => format!("model.layers.{}.mlp_residual", i - 1),
            };
            Edit::Bypass { from: ValueRef(from), to: ValueRef(format!("model.layers.{i}.mlp_residual")) }
        })
        .collect();
    apply(model.graph().unwrap(), &edits).unwrap()
}

/// The model as it is.
pub fn whole(model: &Model) -> (Graph, Recipe) {
    let graph = model.graph().unwrap().clone();
    let copies = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
    (graph, copies)
}

pub fn bytes(file: &Checkpoint, name: &str) -> Vec<u8> {
    file.bytes(file.info(name).unwrap()).unwrap().to_vec()
}

/// The output as a stock loader sees it: without pomona.json.
pub fn as_stock(path: &Path) -> Model {
    std::fs::remove_file(path.join("pomona.json")).unwrap();
    open(path).unwrap()
}

/// Values of a GGUF tensor: q8_0 and q4_1 blocks with harmless scales, or f32.
fn gguf_bytes(spec: &TensorSpec, seed: u8) -> Vec<u8> {
    let n = spec.encoding.bytes_for(&spec.shape).unwrap() as usize;
    let block = spec.encoding.block_bytes();
    let mut out: Vec<u8> = (0..n).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    for b in out.chunks_mut(block) {
        match spec.encoding {
            Encoding::F32 => b.copy_from_slice(&(f32::from(b[0]) / 256.0).to_le_bytes()),
            Encoding::Q4_1 => b[..4].copy_from_slice(&[0x66, 0x2e, 0x00, 0xb0]),
            _ => b[..2].copy_from_slice(&[0x66, 0x2e]),
        }
    }
    out
}

/// A llama GGUF of four blocks with quantised matrices; `extra` metadata goes last.
pub fn gguf(path: &Path, kv: [usize; DEPTH], extra: &[(&str, GgufValue)]) -> PathBuf {
    gguf_with_divisors(path, kv, extra, &[])
}

/// The same with a table of rotary divisors.
pub fn gguf_with_divisors(
    path: &Path,
    kv: [usize; DEPTH],
    extra: &[(&str, GgufValue)],
    divisors: &[f32],
) -> PathBuf {
    let int = |n: u32| GgufValue::U32(n);
    let mut meta: Vec<(String, GgufValue)> = [
        ("general.architecture", GgufValue::String("llama".into())),
        ("general.file_type", int(3)),
        ("llama.block_count", int(DEPTH as u32)),
        ("llama.context_length", int(256)),
        ("llama.embedding_length", int(64)),
        ("llama.feed_forward_length", int(96)),
        ("llama.attention.head_count", int(4)),
        ("llama.attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5)),
        ("llama.rope.dimension_count", int(16)),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect();
    let kv_values = kv.iter().map(|n| GgufValue::I32(*n as i32)).collect();
    meta.push(("llama.attention.head_count_kv".to_owned(), GgufValue::Array(5, kv_values)));
    meta.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
    let spec = |name: String, encoding, shape: &[usize]| TensorSpec { name, encoding, shape: shape.to_vec() };
    let mut specs = vec![spec("token_embd.weight".into(), Encoding::Q8_0, &[160, 64])];
    for (i, kv) in kv.iter().enumerate() {
        let kv = kv * 16;
        let q = Encoding::Q4_1;
        for (name, encoding, shape) in [
            ("attn_norm", Encoding::F32, vec![64]),
            ("attn_q", q, vec![64, 64]),
            ("attn_k", q, vec![kv, 64]),
            ("attn_v", Encoding::Q8_0, vec![kv, 64]),
            ("attn_output", q, vec![64, 64]),
            ("ffn_norm", Encoding::F32, vec![64]),
            ("ffn_gate", q, vec![96, 64]),
            ("ffn_up", q, vec![96, 64]),
            ("ffn_down", q, vec![64, 96]),
        ] {
            specs.push(spec(format!("blk.{i}.{name}.weight"), encoding, &shape));
        }
    }
    specs.push(spec("output_norm.weight".into(), Encoding::F32, &[64]));
    if !divisors.is_empty() {
        specs.push(spec("rope_freqs.weight".into(), Encoding::F32, &[divisors.len()]));
    }
    let mut out = OutputDir::create(path, &OutputOptions::default()).unwrap();
    let mut sink = GgufWriter::new(&mut out, "small.gguf", &meta, specs.clone()).unwrap();
    for (i, s) in specs.iter().enumerate() {
        assert!(sink.begin(i).unwrap());
        let table: Vec<u8> = divisors.iter().flat_map(|d| d.to_le_bytes()).collect();
        let is_table = s.name == "rope_freqs.weight";
        sink.write(&if is_table { table } else { gguf_bytes(s, i as u8) }).unwrap();
        sink.end().unwrap();
    }
    sink.finish().unwrap();
    drop(sink);
    out.commit().unwrap().join("small.gguf")
}
