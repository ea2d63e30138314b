//! Published and computed integers of LLaMA shapes, dense and pruned.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{LLAMA_3_8B, LLAMA_7B, LLAMA_13B, Llama, llama};
use pomona_cost::{BlockSpec, CostOptions, CostReport, cost};
use pomona_graph::Graph;

fn count(graph: &Graph) -> CostReport {
    cost(graph, &CostOptions::default()).unwrap()
}

#[test]
fn parameters_to_the_unit() {
    let layers = |c: Llama, layers| Llama { layers, ..c };
    let table = [
        (LLAMA_7B, 6_738_415_616_u64, 202_383_360_u64),
        (LLAMA_13B, 13_015_864_320, 317_204_480),
        (LLAMA_3_8B, 8_030_261_248, 218_112_000),
        // Six, eleven and twenty-six blocks out of 32; eight out of 40.
        (layers(LLAMA_7B, 26), 5_524_115_456, 202_383_360),
        (layers(LLAMA_7B, 21), 4_512_198_656, 202_383_360),
        (layers(LLAMA_7B, 6), 1_476_448_256, 202_383_360),
        (layers(LLAMA_13B, 32), 10_478_228_480, 317_204_480),
    ];
    for (config, total, block) in table {
        let r = count(&llama(config, 128, 0));
        assert_eq!(r.parameters, total);
        assert_eq!(r.modules.parameters, total);
        assert_eq!(r.weight_bytes, 2 * total);
        assert_eq!(r.blocks.len(), config.layers);
        assert!(r.blocks.iter().all(|b| b.parameters == block && b.weight_bytes == 2 * block));
        assert_eq!(r.blocks[3].path, "model.layers.3");
        assert_eq!(r.blocks[3].class.as_deref(), Some("LlamaDecoderLayer"));
        assert_eq!(r.uncounted, []);
    }
}

#[test]
fn macs_of_128_tokens() {
    let r = count(&llama(LLAMA_7B, 128, 0));
    let (d, ff, t) = (4096_u64, 11008_u64, 128_u64);
    let linear = t * (4 * d * d + 3 * d * ff);
    let attention = t * t * 2 * d;
    let head = t * d * 32000;
    assert_eq!(r.macs.thop, 32 * linear + head);
    assert_eq!(r.macs.full, 32 * (linear + attention) + head);
    assert_eq!(r.macs.full, 850_000_871_424);
    assert!(r.blocks.iter().all(|b| b.macs == linear + attention));
    let per_block = t * d * (4 + 4) + t * d * 3 * 2 + 32 * t * t * 6 + t * d * 2 + t * ff * 2;
    assert_eq!(r.other_ops, 32 * per_block + 4 * t * d);
}

#[test]
fn decoding_reads_the_cache() {
    let r = count(&llama(LLAMA_7B, 1, 511));
    assert_eq!(r.macs.thop, 32 * 202_375_168 + 4096 * 32000);
    assert_eq!(r.macs.full, r.macs.thop + 32 * 512 * 8192);
    // The embedding reads one row, everything else its whole weights.
    assert_eq!(r.traffic.weights, 2 * (6_738_415_616 - 32000 * 4096 + 4096));
    // An appended cache moves the new token only; attention reads all of it.
    let of = |name: &str| {
        let path = format!("model.layers.0.self_attn.{name}");
        r.operators.iter().find(|o| o.path == path).unwrap().traffic
    };
    assert_eq!((of("k_cache").read, of("k_cache").written), (8192, 8192));
    assert_eq!(of("attention").read, 8192 * (1 + 512 + 512));
}

#[test]
fn cache_bytes_a_token() {
    for past in [0, 100] {
        for (layers, bytes) in [(32, 524_288), (26, 425_984)] {
            let r = count(&llama(Llama { layers, ..LLAMA_7B }, 1, past));
            assert_eq!(r.state_bytes.per_token, bytes);
            assert_eq!(r.state_bytes.held, bytes * past as u64);
            assert_eq!(r.state_bytes.fixed, 0);
        }
    }
    assert_eq!(count(&llama(LLAMA_3_8B, 1, 7)).state_bytes.per_token, 131_072);
    let f32 = CostOptions { activation_dtype: Some("f32".to_owned()), ..CostOptions::default() };
    assert_eq!(cost(&llama(LLAMA_7B, 1, 0), &f32).unwrap().state_bytes.per_token, 2 * 524_288);
}

#[test]
fn a_tied_head_counts_once() {
    let small = Llama { layers: 2, width: 64, ff: 96, heads: 4, kv_heads: 2, vocab: 1000, ..LLAMA_7B };
    let (free, tied) = (count(&llama(small, 8, 0)), count(&llama(Llama { tied: true, ..small }, 8, 0)));
    assert_eq!(free.parameters, tied.parameters + 64_000);
    assert_eq!(free.macs, tied.macs);
    let child =
        |r: &CostReport, name: &str| r.modules.children.iter().find(|m| m.name == name).unwrap().parameters;
    // Each module says what it uses; the root has it once.
    assert_eq!(child(&tied, "lm_head"), 64_000);
    assert_eq!(child(&tied, "model"), tied.parameters);
    assert_eq!(tied.modules.parameters, tied.parameters);
}

#[test]
fn quantised_weights_count_their_blocks_and_compute_in_f16() {
    let small = Llama {
        layers: 1,
        width: 256,
        ff: 512,
        heads: 4,
        kv_heads: 4,
        vocab: 320,
        dtype: "q4_1",
        ..LLAMA_7B
    };
    let r = count(&llama(small, 8, 0));
    assert_eq!(r.weight_bytes, r.parameters / 32 * 20);
    assert_eq!(r.activation_dtype, "f16");
}

#[test]
fn given_parts_replace_the_repeated_modules() {
    let g = llama(Llama { tied: true, layers: 2, ..LLAMA_7B }, 4, 0);
    let nodes =
        |prefix: &str| g.iter().filter(|(_, n)| n.path.starts_with(prefix)).map(|(id, _)| id).collect();
    let spec = |path: &str, prefix: &str, removable| BlockSpec {
        path: path.to_owned(),
        nodes: nodes(prefix),
        removable,
    };
    let blocks = vec![
        spec("model.layers.1", "model.layers.1.", true),
        spec("model.layers.0.mlp", "model.layers.0.mlp", true),
        spec("lm_head", "lm_head", false),
    ];
    let r = cost(&g, &CostOptions { blocks: Some(blocks), ..CostOptions::default() }).unwrap();
    let got: Vec<_> = r.blocks.iter().map(|b| (b.path.as_str(), b.parameters, b.removable)).collect();
    // The head's weight stays when the head goes: the embedding uses it.
    let want = [
        ("model.layers.1", 202_383_360, true),
        ("model.layers.0.mlp", 3 * 4096 * 11008, true),
        ("lm_head", 0, false),
    ];
    assert_eq!(got, want);
}

#[test]
fn counting_is_fast() {
    let g = llama(LLAMA_7B, 128, 0);
    let start = std::time::Instant::now();
    let r = count(&g);
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(r.operators.len(), 579);
    assert!(seconds < 0.05, "{seconds} s");
}

#[test]
fn the_report_is_json_with_the_promised_fields() {
    let json: serde_json::Value =
        serde_json::from_str(&count(&llama(LLAMA_7B, 128, 0)).to_json().unwrap()).unwrap();
    assert_eq!(json["parameters"], 6_738_415_616_u64);
    assert_eq!(json["macs"]["full"], 850_000_871_424_u64);
    assert!(
        json["macs"]["thop"].is_u64() && json["weight_bytes"].is_u64() && json["architecture"].is_string()
    );
    assert_eq!(json["uncounted"], serde_json::json!([]));
    let block = json["blocks"][0].as_object().unwrap();
    for field in ["path", "parameters", "macs", "removable"] {
        assert!(block.contains_key(field), "{field}");
    }
    let back: CostReport = serde_json::from_value(json).unwrap();
    assert_eq!(back.blocks.len(), 32);
}
