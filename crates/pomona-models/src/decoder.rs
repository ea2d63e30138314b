//! The decoder-only transformer that the language families share: a description, and the graph that it means.

use pomona_graph::{
    Activation, AttentionAttrs, BinaryFn, Dim, Graph, GraphBuilder, Op, RopeAttrs, RopePairing, RopeScaling,
    Slot, ValueId, ValueType,
};

/// A pre-norm decoder with rotary attention and a gated feed-forward part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decoder {
    /// Class of a block, for people (`LlamaDecoderLayer`).
    pub class: &'static str,
    pub vocab: usize,
    pub width: usize,
    pub head_dim: usize,
    pub eps: f64,
    pub activation: Activation,
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// The head reads the embedding's tensor.
    pub tied: bool,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
    pub layers: Vec<Layer>,
}

/// What can differ from block to block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layer {
    pub heads: usize,
    pub kv_heads: usize,
    pub feed_forward: usize,
    pub window: Option<usize>,
}

/// Path under which the blocks stand, by number.
pub(crate) const BLOCKS: &str = "model.layers";

impl Decoder {
    /// The graph, every tensor stored as `dtype`. Node paths and tensor names are those of the transformers library.
    pub(crate) fn graph(&self, dtype: &str) -> pomona_graph::Result<Graph> {
        let mut b = GraphBuilder::new("model", dtype);
        let (batch, tokens) = (Dim::symbol("batch"), Dim::symbol("tokens"));
        let ids = b.input("input_ids", vec![batch, tokens.clone()], ValueType::Int);
        let positions = b.input("positions", vec![tokens], ValueType::Int);
        b.module("model", "Model");
        let mut x = b.embedding("model.embed_tokens", ids, self.vocab, self.width)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.block(&mut b, &format!("{BLOCKS}.{i}"), layer, x, positions)?;
        }
        x = b.rms_norm("model.norm", x, self.eps)?;
        let logits = if self.tied {
            let table = b.parameter("model.embed_tokens.weight", &[self.vocab, self.width])?;
            b.alias(table, "lm_head.weight");
            b.node("lm_head", Op::Linear {}, &[x], &[(Slot::Weight, table)])?
        } else {
            b.linear("lm_head", x, self.vocab, false)?
        };
        b.output("logits", logits);
        b.finish()
    }

    fn block(
        &self,
        b: &mut GraphBuilder,
        path: &str,
        layer: &Layer,
        x: ValueId,
        positions: ValueId,
    ) -> pomona_graph::Result<ValueId> {
        let at = |name: &str| format!("{path}.{name}");
        b.module(path, self.class);
        b.module(&at("self_attn"), "Attention");
        b.module(&at("mlp"), "GatedMLP");
        let normed = b.rms_norm(&at("input_layernorm"), x, self.eps)?;
        let attended = self.attention(b, &at("self_attn"), layer, normed, positions)?;
        let x = b.add(&at("self_attn_residual"), &[x, attended])?;
        let normed = b.rms_norm(&at("post_attention_layernorm"), x, self.eps)?;
        let gate = b.linear(&at("mlp.gate_proj"), normed, layer.feed_forward, self.mlp_bias)?;
        let up = b.linear(&at("mlp.up_proj"), normed, layer.feed_forward, self.mlp_bias)?;
        let gate = b.activation(&at("mlp.act_fn"), self.activation, gate)?;
        let gated = b.node(&at("mlp.gated"), Op::Binary { function: BinaryFn::Mul }, &[gate, up], &[])?;
        let down = b.linear(&at("mlp.down_proj"), gated, self.width, self.mlp_bias)?;
        b.add(&at("mlp_residual"), &[x, down])
    }

    fn attention(
        &self,
        b: &mut GraphBuilder,
        path: &str,
        layer: &Layer,
        x: ValueId,
        positions: ValueId,
    ) -> pomona_graph::Result<ValueId> {
        let at = |name: &str| format!("{path}.{name}");
        let kv = layer.kv_heads * self.head_dim;
        let rope = |heads| {
            Op::Rope(RopeAttrs {
                heads,
                rotary: self.head_dim,
                theta: self.rope_theta,
                pairing: RopePairing::Halves,
                scaling: self.rope_scaling.clone(),
            })
        };
        let q = b.linear(&at("q_proj"), x, layer.heads * self.head_dim, self.qkv_bias)?;
        let k = b.linear(&at("k_proj"), x, kv, self.qkv_bias)?;
        let v = b.linear(&at("v_proj"), x, kv, self.qkv_bias)?;
        let q = b.node(&at("q_rope"), rope(layer.heads), &[q, positions], &[])?;
        let k = b.node(&at("k_rope"), rope(layer.kv_heads), &[k, positions], &[])?;
        let mut cached = Vec::with_capacity(2);
        for (node, state, new) in [("k_cache", "key_cache", k), ("v_cache", "value_cache", v)] {
            let shape = vec![Dim::symbol("batch"), Dim::symbol("past"), kv.into()];
            let old = b.state(&at(state), shape, ValueType::Float, 0.0);
            let all = b.node(&at(node), Op::Concat { axis: 1 }, &[old, new], &[])?;
            b.set_state(&at(state), all)?;
            cached.push(all);
        }
        let attrs = AttentionAttrs {
            heads: layer.heads,
            kv_heads: layer.kv_heads,
            scale: 1.0 / (self.head_dim as f64).sqrt(),
            causal: true,
            window: layer.window,
            softcap: None,
        };
        let a = b.node(&at("attention"), Op::Attention(attrs), &[q, cached[0], cached[1]], &[])?;
        b.linear(&at("o_proj"), a, self.width, self.out_bias)
    }
}
