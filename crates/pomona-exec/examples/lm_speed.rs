//! How long a language model of 135 million weights takes: a pass over a batch, decoding with a cache, a gradient.
//!
//! `cargo run --release -p pomona-exec --example lm_speed`

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use pomona_exec::{Device, Feeds, Loaded, Options, Tensor, evaluate, gradients, start_states, step};
use pomona_graph::{
    Activation, AttentionAttrs, BinaryFn, Bindings, Dim, Graph, GraphBuilder, Op, RopeAttrs, RopePairing,
    RopeScaling, Slot, TensorId, ValueId, ValueRef, ValueType,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LAYERS: usize = 30;
const WIDTH: usize = 576;
const INNER: usize = 1536;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD: usize = 64;
const VOCABULARY: usize = 49152;
const BATCH: usize = 10;
const TOKENS: usize = 128;

fn block(b: &mut GraphBuilder, i: usize, x: ValueId, positions: ValueId) -> Result<ValueId> {
    let at = |name: &str| format!("model.layers.{i}.{name}");
    let rope = |heads| {
        Op::Rope(RopeAttrs {
            heads,
            rotary: HEAD,
            theta: 1e5,
            pairing: RopePairing::Halves,
            scaling: RopeScaling::None,
        })
    };
    let normed = b.rms_norm(&at("input_layernorm"), x, 1e-5)?;
    let q = b.linear(&at("self_attn.q_proj"), normed, HEADS * HEAD, false)?;
    let k = b.linear(&at("self_attn.k_proj"), normed, KV_HEADS * HEAD, false)?;
    let v = b.linear(&at("self_attn.v_proj"), normed, KV_HEADS * HEAD, false)?;
    let q = b.node(&at("self_attn.q_rope"), rope(HEADS), &[q, positions], &[])?;
    let k = b.node(&at("self_attn.k_rope"), rope(KV_HEADS), &[k, positions], &[])?;
    let mut cached = Vec::new();
    for (node, state, new) in [("k_cache", "key_cache", k), ("v_cache", "value_cache", v)] {
        let name = at(&format!("self_attn.{state}"));
        let shape = vec![Dim::symbol("batch"), Dim::symbol("past"), (KV_HEADS * HEAD).into()];
        let old = b.state(&name, shape, ValueType::Float, 0.0);
        let all = b.node(&at(&format!("self_attn.{node}")), Op::Concat { axis: 1 }, &[old, new], &[])?;
        b.set_state(&name, all)?;
        cached.push(all);
    }
    let attrs = AttentionAttrs {
        heads: HEADS,
        kv_heads: KV_HEADS,
        scale: 0.125,
        causal: true,
        window: None,
        softcap: None,
    };
    let a = b.node(&at("self_attn.attention"), Op::Attention(attrs), &[q, cached[0], cached[1]], &[])?;
    let a = b.linear(&at("self_attn.o_proj"), a, WIDTH, false)?;
    let x = b.add(&at("self_attn_residual"), &[x, a])?;
    let normed = b.rms_norm(&at("post_attention_layernorm"), x, 1e-5)?;
    let gate = b.linear(&at("mlp.gate_proj"), normed, INNER, false)?;
    let up = b.linear(&at("mlp.up_proj"), normed, INNER, false)?;
    let gate = b.activation(&at("mlp.act_fn"), Activation::Silu, gate)?;
    let gated = b.node(&at("mlp.gated"), Op::Binary { function: BinaryFn::Mul }, &[gate, up], &[])?;
    let down = b.linear(&at("mlp.down_proj"), gated, WIDTH, false)?;
    Ok(b.add(&at("mlp_residual"), &[x, down])?)
}

fn model() -> Result<Graph> {
    let mut b = GraphBuilder::new("model", "f32");
    let (batch, tokens) = (Dim::symbol("batch"), Dim::symbol("tokens"));
    let ids = b.input("input_ids", vec![batch, tokens.clone()], ValueType::Int);
    let positions = b.input("positions", vec![tokens], ValueType::Int);
    let mut x = b.embedding("model.embed_tokens", ids, VOCABULARY, WIDTH)?;
    for i in 0..LAYERS {
        x = block(&mut b, i, x, positions)?;
    }
    x = b.rms_norm("model.norm", x, 1e-5)?;
    let table = b.parameter("model.embed_tokens.weight", &[VOCABULARY, WIDTH])?;
    let logits = b.node("lm_head", Op::Linear {}, &[x], &[(Slot::Weight, table)])?;
    b.output("logits", logits);
    Ok(b.finish()?)
}

fn noise(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * scale).collect()
}

fn weights(graph: &Graph) -> Result<Loaded> {
    let mut all: BTreeMap<TensorId, Tensor> = BTreeMap::new();
    for (id, def) in graph.iter_tensors() {
        let count = def.shape.iter().product();
        let values = match def.shape.len() {
            1 => vec![1.0; count],
            _ => noise(count, u64::from(id.0) + 1, (3.0 / def.shape[1] as f32).sqrt()),
        };
        all.insert(id, Tensor::from_f32(values, &def.shape, &Device::cpu())?);
    }
    Ok(Loaded(all))
}

fn sizes(batch: usize) -> Bindings {
    [("batch".to_owned(), batch as i64)].into_iter().collect()
}

fn value(graph: &Graph, name: &str) -> Result<ValueId> {
    Ok(graph.resolve(&ValueRef(name.to_owned())).ok_or_else(|| format!("no value {name}"))?)
}

fn inputs(graph: &Graph, batch: usize, from: usize, tokens: usize) -> Result<Feeds> {
    let cpu = Device::cpu();
    let ids: Vec<i64> = (0..batch * tokens).map(|i| ((i + from) * 7919 % VOCABULARY) as i64).collect();
    let positions: Vec<i64> = (from..from + tokens).map(|p| p as i64).collect();
    let mut feeds = Feeds::new();
    feeds.insert(value(graph, "@input_ids")?, Tensor::from_i64(ids, &[batch, tokens], &cpu)?);
    feeds.insert(value(graph, "@positions")?, Tensor::from_i64(positions, &[tokens], &cpu)?);
    Ok(feeds)
}

fn timed<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let out = run()?;
    println!("{what:<40} {:>9.1} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(out)
}

/// Time of each node of a block, given everything before it.
fn by_node(graph: &Graph, weights: &Loaded, feeds: &Feeds, prefix: &str) -> Result<()> {
    let mut have = feeds.clone();
    for (_, node) in graph.iter().filter(|(_, n)| n.path.starts_with(prefix)) {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            let made = evaluate(graph, weights, &have, &node.outputs, &Options::default())?;
            best = best.min(start.elapsed());
            if have.contains_key(&node.outputs[0]) {
                continue;
            }
            drop(made);
        }
        let made = evaluate(graph, weights, &have, &node.outputs, &Options::default())?;
        have.extend(node.outputs.iter().copied().zip(made));
        println!("    {:<36} {:>9.3} ms", node.path, best.as_secs_f64() * 1e3);
    }
    Ok(())
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    line.map_or("peak memory unknown".to_owned(), |l| format!("peak memory {}", &l[6..].trim()))
}

fn main() -> Result<()> {
    let graph = model()?;
    println!("{} parameters", graph.parameters());
    let weights = timed("random weights", || weights(&graph))?;
    let options = Options::default();
    let (first, last, logits) = (
        value(&graph, "model.embed_tokens")?,
        value(&graph, &format!("model.layers.{}.mlp_residual", LAYERS - 1))?,
        value(&graph, "lm_head")?,
    );

    println!("{BATCH} x {TOKENS} tokens");
    let mut feeds = inputs(&graph, BATCH, 0, TOKENS)?;
    feeds.extend(start_states(&graph, &sizes(BATCH), &Device::cpu())?);
    for _ in 0..2 {
        let hidden =
            timed("  embedding and blocks", || Ok(evaluate(&graph, &weights, &feeds, &[last], &options)?))?;
        let mut at_head = feeds.clone();
        at_head.insert(last, hidden[0].clone());
        timed("  final norm and head", || Ok(evaluate(&graph, &weights, &at_head, &[logits], &options)?))?;
    }
    println!("  {}", peak_memory());
    let mut at_block = feeds.clone();
    at_block.insert(first, evaluate(&graph, &weights, &feeds, &[first], &options)?.remove(0));
    by_node(&graph, &weights, &at_block, "model.layers.0.")?;

    println!("decoding, one sequence");
    let mut states = start_states(&graph, &sizes(1), &Device::cpu())?;
    timed("  prompt of 16 tokens", || {
        Ok(step(&graph, &weights, &inputs(&graph, 1, 0, 16)?, &mut states, "logits", &options)?)
    })?;
    let start = Instant::now();
    let steps = 64;
    for i in 0..steps {
        let now = inputs(&graph, 1, 16 + i, 1)?;
        step(&graph, &weights, &now, &mut states, "logits", &options)?;
    }
    println!("  {:.1} tokens/s", steps as f64 / start.elapsed().as_secs_f64());
    let mut one = inputs(&graph, 1, 80, 1)?;
    one.extend(states);
    let mut at_block = one.clone();
    at_block.insert(first, evaluate(&graph, &weights, &one, &[first], &options)?.remove(0));
    by_node(&graph, &weights, &at_block, "model.layers.0.")?;
    at_block.insert(last, at_block[&first].clone());
    timed("  final norm and head", || Ok(evaluate(&graph, &weights, &at_block, &[logits], &options)?))?;

    println!("gradients of a block, {BATCH} x {TOKENS} tokens");
    let out = value(&graph, "model.layers.0.mlp_residual")?;
    let mut at_block = feeds.clone();
    at_block.insert(first, evaluate(&graph, &weights, &feeds, &[first], &options)?.remove(0));
    let up = Tensor::full(1e-3, &[BATCH, TOKENS, WIDTH], &Device::cpu())?;
    let own: Vec<TensorId> = graph
        .iter_tensors()
        .filter(|(_, t)| t.name.starts_with("model.layers.0."))
        .map(|(id, _)| id)
        .collect();
    for _ in 0..2 {
        timed("  forward", || Ok(evaluate(&graph, &weights, &at_block, &[out], &options)?))?;
        timed("  forward and backward", || {
            let upstream = [(out, up.clone())];
            Ok(gradients(&graph, &weights, &at_block, &upstream, &[first], &own, &options)?)
        })?;
    }
    println!("{}", peak_memory());
    Ok(())
}
