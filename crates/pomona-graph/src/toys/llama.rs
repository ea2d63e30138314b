//! A decoder shaped as LLaMA.

use crate::build::GraphBuilder;
use crate::dim::{Dim, Shape};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::op::{Activation, AttentionAttrs, BinaryFn, Op, RopeAttrs, RopePairing, RopeScaling, ValueType};
use crate::tensor::Slot;

const VOCABULARY: usize = 20;
const WIDTH: usize = 8;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 2;
const HIDDEN: usize = 12;

/// A decoder of `layers` layers with grouped queries, rotary positions, a gated feed-forward part, key-value caches as
/// state ports and a tied head, stored as bf16.
///
/// Inputs `input_ids` `[batch, tokens]` below 20 and `positions` `[tokens]`; output `logits` `[batch, tokens, 20]`; width 8,
/// 4 heads over 2 key-value heads of width 2, feed-forward width 12.
///
/// # Errors
/// None for any number of layers that fits memory; the builder's own otherwise.
pub fn llama(layers: usize) -> Result<Graph> {
    let mut b = GraphBuilder::new("model", "bf16");
    let dims = |d: &[&str]| d.iter().map(Dim::symbol).collect::<Shape>();
    let ids = b.input("input_ids", dims(&["batch", "tokens"]), ValueType::Int);
    let positions = b.input("positions", dims(&["tokens"]), ValueType::Int);
    let mut x = b.embedding("model.embed_tokens", ids, VOCABULARY, WIDTH)?;
    b.module("model", "LlamaModel");
    for i in 0..layers {
        let p = format!("model.layers.{i}");
        b.module(&p, "LlamaDecoderLayer");
        b.module(&format!("{p}.self_attn"), "LlamaAttention");
        let n = b.rms_norm(&format!("{p}.input_layernorm"), x, 1e-5)?;
        let o = attention(&mut b, &format!("{p}.self_attn"), n, positions)?;
        x = b.add(&format!("{p}.self_attn_residual"), &[x, o])?;
        let n = b.rms_norm(&format!("{p}.post_attention_layernorm"), x, 1e-5)?;
        let gate = b.linear(&format!("{p}.mlp.gate_proj"), n, HIDDEN, false)?;
        let up = b.linear(&format!("{p}.mlp.up_proj"), n, HIDDEN, false)?;
        let gate = b.activation(&format!("{p}.mlp.act_fn"), Activation::Silu, gate)?;
        let mul = Op::Binary { function: BinaryFn::Mul };
        let h = b.node(&format!("{p}.mlp.gated"), mul, &[gate, up], &[])?;
        let h = b.linear(&format!("{p}.mlp.down_proj"), h, WIDTH, false)?;
        x = b.add(&format!("{p}.mlp_residual"), &[x, h])?;
    }
    let x = b.rms_norm("model.norm", x, 1e-5)?;
    let tied = b.parameter("model.embed_tokens.weight", &[VOCABULARY, WIDTH])?;
    b.alias(tied, "lm_head.weight");
    let logits = b.node("lm_head", Op::Linear {}, &[x], &[(Slot::Weight, tied)])?;
    b.output("logits", logits);
    b.finish()
}

fn attention(b: &mut GraphBuilder, path: &str, x: ValueId, positions: ValueId) -> Result<ValueId> {
    let q = b.linear(&format!("{path}.q_proj"), x, HEADS * HEAD, false)?;
    let k = b.linear(&format!("{path}.k_proj"), x, KV_HEADS * HEAD, false)?;
    let v = b.linear(&format!("{path}.v_proj"), x, KV_HEADS * HEAD, false)?;
    let rope = |heads| {
        let (pairing, scaling) = (RopePairing::Halves, RopeScaling::None);
        Op::Rope(RopeAttrs { heads, rotary: HEAD, theta: 1e4, pairing, scaling })
    };
    let q = b.node(&format!("{path}.q_rope"), rope(HEADS), &[q, positions], &[])?;
    let k = b.node(&format!("{path}.k_rope"), rope(KV_HEADS), &[k, positions], &[])?;
    let k = cached(b, path, "key_cache", "k_cache", k)?;
    let v = cached(b, path, "value_cache", "v_cache", v)?;
    let attention = Op::Attention(AttentionAttrs {
        heads: HEADS,
        kv_heads: KV_HEADS,
        scale: 0.7,
        causal: true,
        window: None,
        softcap: None,
    });
    let o = b.node(&format!("{path}.attention"), attention, &[q, k, v], &[])?;
    b.linear(&format!("{path}.o_proj"), o, WIDTH, false)
}

fn cached(b: &mut GraphBuilder, path: &str, state: &str, node: &str, new: ValueId) -> Result<ValueId> {
    let name = format!("{path}.{state}");
    let shape = vec!["batch".into(), "past".into(), (KV_HEADS * HEAD).into()];
    let old = b.state(&name, shape, ValueType::Float, 0.0);
    let joined = b.node(&format!("{path}.{node}"), Op::Concat { axis: 1 }, &[old, new], &[])?;
    b.set_state(&name, joined)?;
    Ok(joined)
}
