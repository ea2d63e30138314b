//! Shapes from configs and files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use pomona_models::{SourceKind, open};
use serde_json::{Value, json};
use tempfile::TempDir;

fn config(value: &Value) -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, value.to_string()).unwrap();
    (dir, path)
}

fn llama(width: usize, ff: usize, layers: usize, heads: usize, kv: usize, vocab: usize) -> Value {
    json!({
        "model_type": "llama", "hidden_size": width, "intermediate_size": ff, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "torch_dtype": "float16", "tie_word_embeddings": false,
    })
}

#[test]
fn parameter_counts_of_published_shapes() {
    let table = [
        (llama(4096, 11008, 32, 32, 32, 32000), 6_738_415_616_u64),
        (llama(4096, 11008, 26, 32, 32, 32000), 5_524_115_456),
        (llama(5120, 13824, 40, 40, 40, 32000), 13_015_864_320),
        (llama(4096, 14336, 32, 32, 8, 128256), 8_030_261_248),
    ];
    for (value, wanted) in table {
        let (_dir, path) = config(&value);
        let start = std::time::Instant::now();
        let model = open(&path).unwrap();
        assert_eq!(model.graph().unwrap().parameters(), wanted);
        assert!(start.elapsed().as_secs_f64() < 0.2, "{:?}", start.elapsed());
        assert_eq!(model.source, SourceKind::Config);
        assert_eq!(model.graph().unwrap().tensors[0].dtype, "f16");
    }
}

#[test]
fn real_gguf_opens_and_materialises() {
    let Ok(path) = std::env::var("POMONA_SMOLLM2") else {
        println!("skipped: POMONA_SMOLLM2 names no .gguf");
        return;
    };
    let model = open(&path).unwrap();
    let graph = model.graph().unwrap();
    assert_eq!(graph.parameters(), 134_515_008);
    assert_eq!(model.source, SourceKind::Gguf);
    let name = "model.layers.3.self_attn.q_proj.weight";
    let q = model.materialise(name).unwrap();
    assert_eq!(q.len(), 576 * 576);
    assert!(q.iter().all(|v| v.is_finite() && v.abs() < 20.0));
    let rows = model.materialise_rows(name, 70..75).unwrap();
    assert_eq!(rows, q[70 * 576..75 * 576]);
    // Row 1 of head 0 is the file's row 2: pairs lie side by side there.
    let file = model.checkpoint.as_ref().unwrap();
    let info = file.info("blk.3.attn_q.weight").unwrap();
    assert_eq!(q[576..2 * 576], file.decode_rows(info, 2..3).unwrap());
}
