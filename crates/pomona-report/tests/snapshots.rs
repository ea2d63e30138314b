//! Whole outputs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../pomona-cost/tests/common/mod.rs"]
mod common;

use common::{Build, LLAMA_7B, Llama, llama};
use pomona_cost::{BlockSpec, CostOptions, CostReport, cost, find_device, roofline};
use pomona_graph::*;
use pomona_report::*;

fn blocks(graph: &Graph) -> Vec<BlockSpec> {
    let layer = |i: usize| {
        let prefix = format!("model.layers.{i}.");
        let nodes: Vec<NodeId> =
            graph.iter().filter(|(_, n)| n.path.starts_with(&prefix)).map(|(id, _)| id).collect();
        (!nodes.is_empty()).then(|| BlockSpec { path: format!("model.layers.{i}"), nodes, removable: true })
    };
    (0..).map_while(layer).collect()
}

fn report(config: Llama, tokens: usize, past: usize) -> CostReport {
    let graph = llama(config, tokens, past);
    let options = CostOptions {
        architecture: "LlamaForCausalLM".to_owned(),
        blocks: Some(blocks(&graph)),
        ..CostOptions::default()
    };
    cost(&graph, &options).unwrap()
}

#[test]
fn inspect_of_llama_7b() {
    let device = find_device("h100-sxm", &[]).unwrap();
    let pi = find_device("raspberry-pi-4", &[]).unwrap();
    let (prefill, decode) = (report(LLAMA_7B, 128, 0), report(LLAMA_7B, 1, 128));
    let latencies = vec![
        ("prefill, 128 tokens".to_owned(), roofline(&prefill, &device).unwrap()),
        ("token behind 128".to_owned(), roofline(&decode, &device).unwrap()),
        ("token behind 128".to_owned(), roofline(&decode, &pi).unwrap()),
    ];
    let options = InspectOptions { latencies, ..InspectOptions::default() };
    insta::assert_snapshot!(inspect(&prefill, &options));
}

#[test]
fn deeper_and_apart() {
    let r = report(Llama { layers: 2, ..LLAMA_7B }, 128, 0);
    let options = TreeOptions { depth: 5, repeats: Repeats::Together };
    insta::assert_snapshot!("deeper", module_table(&r, &options, Style::Plain));
    let options = TreeOptions { depth: 3, repeats: Repeats::Apart };
    insta::assert_snapshot!("apart", module_table(&r, &options, Style::Plain));
    let options = TreeOptions { depth: 0, ..options };
    insta::assert_snapshot!("root_only", module_table(&r, &options, Style::Plain));
}

#[test]
fn before_and_after_six_blocks() {
    let (before, after) = (report(LLAMA_7B, 128, 0), report(Llama { layers: 26, ..LLAMA_7B }, 128, 0));
    let measures = [Measure {
        name: "perplexity".to_owned(),
        before: "12.62".to_owned(),
        after: "17.66".to_owned(),
        change: "x 1.40".to_owned(),
    }];
    insta::assert_snapshot!("compare", compare(&before, &after, &measures, Style::Plain));
    insta::assert_snapshot!(
        "compare_costs",
        compare_costs(&before.summary(), &after.summary(), &[], Style::Plain)
    );
}

#[test]
fn blocks_of_a_small_model() {
    let small = Llama { layers: 3, width: 576, ff: 1536, heads: 9, kv_heads: 3, vocab: 49152, ..LLAMA_7B };
    insta::assert_snapshot!(block_table(&report(small, 128, 0), Style::Plain));
}

#[test]
fn what_is_not_counted_and_tensors_alone() {
    let mut b = Build::new("q77");
    let x = b.input("x", &[1, 10], ValueType::Float);
    let y = b.layer("head", Op::Linear {}, x, &[40, 10], &[1, 40]);
    let y = b.node("choose", Op::TopK { k: 4 }, &[y], &[], &[1, 4]);
    b.output("y", y);
    let r = cost(&b.graph, &CostOptions::default()).unwrap();
    insta::assert_snapshot!("uncounted", inspect(&r, &InspectOptions::default()));

    let mut b = Build::new("bf16");
    for i in 0..3 {
        b.tensor(&format!("stack.{i}.mix.weight"), &[4, 4]);
    }
    let r = cost(&b.graph, &CostOptions { architecture: "mystery".to_owned(), ..CostOptions::default() })
        .unwrap();
    insta::assert_snapshot!("opaque", inspect(&r, &InspectOptions::default()));
}

#[test]
fn devices() {
    let all = pomona_cost::builtin_devices().unwrap();
    insta::assert_snapshot!(device_table(&all, Style::Plain));
}
