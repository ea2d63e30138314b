//! Graphs for tests, with every shape written out, so that counts do not lean on shape inference.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use pomona_graph::*;

pub struct Build {
    pub graph: Graph,
    pub dtype: &'static str,
}

impl Build {
    pub fn new(dtype: &'static str) -> Self {
        Self { graph: Graph::new("model"), dtype }
    }

    pub fn value(&mut self, shape: &[usize], ty: ValueType) -> ValueId {
        self.graph.values.push(Value { shape: shape.iter().map(|&d| d.into()).collect(), ty });
        ValueId(self.graph.values.len() as u32 - 1)
    }

    pub fn input(&mut self, name: &str, shape: &[usize], ty: ValueType) -> ValueId {
        let value = self.value(shape, ty);
        self.graph.inputs.push(Port { name: name.to_owned(), value });
        value
    }

    pub fn output(&mut self, name: &str, value: ValueId) {
        self.graph.outputs.push(Port { name: name.to_owned(), value });
    }

    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> TensorId {
        self.graph.tensors.push(TensorDef {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: self.dtype.to_owned(),
            role: Role::Parameter,
            aliases: Vec::new(),
        });
        TensorId(self.graph.tensors.len() as u32 - 1)
    }

    pub fn node(
        &mut self,
        path: &str,
        op: Op,
        inputs: &[ValueId],
        weights: &[(Slot, TensorId)],
        out: &[usize],
    ) -> ValueId {
        let output = self.value(out, ValueType::Float);
        self.graph.nodes.push(Node {
            path: path.to_owned(),
            op,
            inputs: inputs.to_vec(),
            weights: weights.iter().copied().collect::<BTreeMap<_, _>>(),
            outputs: vec![output],
        });
        output
    }

    /// A node with one weight, which is named after it.
    pub fn layer(&mut self, path: &str, op: Op, x: ValueId, weight: &[usize], out: &[usize]) -> ValueId {
        let w = self.tensor(&format!("{path}.weight"), weight);
        self.node(path, op, &[x], &[(Slot::Weight, w)], out)
    }
}

/// Sizes of a LLaMA-like model.
#[derive(Clone, Copy)]
pub struct Llama {
    pub layers: usize,
    pub width: usize,
    pub ff: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocab: usize,
    pub tied: bool,
    pub dtype: &'static str,
}

pub const LLAMA_7B: Llama = Llama {
    layers: 32,
    width: 4096,
    ff: 11008,
    heads: 32,
    kv_heads: 32,
    vocab: 32000,
    tied: false,
    dtype: "f16",
};
pub const LLAMA_13B: Llama =
    Llama { layers: 40, width: 5120, ff: 13824, heads: 40, kv_heads: 40, ..LLAMA_7B };
pub const LLAMA_3_8B: Llama = Llama { ff: 14336, kv_heads: 8, vocab: 128256, ..LLAMA_7B };

/// The graph of `tokens` tokens behind `past` cached ones, batch 1.
pub fn llama(c: Llama, tokens: usize, past: usize) -> Graph {
    let mut b = Build::new(c.dtype);
    let (d, t, all, kv) = (c.width, tokens, past + tokens, c.width / c.heads * c.kv_heads);
    let norm = || Op::RmsNorm { eps: 1e-6, offset: 0.0 };
    let rope = |heads| {
        Op::Rope(RopeAttrs {
            heads,
            rotary: c.width / c.heads,
            theta: 1e4,
            pairing: RopePairing::Halves,
            scaling: RopeScaling::None,
        })
    };
    let ids = b.input("input_ids", &[1, t], ValueType::Int);
    let positions = b.input("positions", &[t], ValueType::Int);
    let table = b.tensor("model.embed_tokens.weight", &[c.vocab, d]);
    let mut x = b.node("model.embed_tokens", Op::Embedding {}, &[ids], &[(Slot::Weight, table)], &[1, t, d]);
    for i in 0..c.layers {
        let p = |name: &str| format!("model.layers.{i}.{name}");
        b.graph.modules.insert(format!("model.layers.{i}"), "LlamaDecoderLayer".to_owned());
        let n = b.layer(&p("input_layernorm"), norm(), x, &[d], &[1, t, d]);
        let q = b.layer(&p("self_attn.q_proj"), Op::Linear {}, n, &[d, d], &[1, t, d]);
        let k = b.layer(&p("self_attn.k_proj"), Op::Linear {}, n, &[kv, d], &[1, t, kv]);
        let v = b.layer(&p("self_attn.v_proj"), Op::Linear {}, n, &[kv, d], &[1, t, kv]);
        let q = b.node(&p("self_attn.q_rope"), rope(c.heads), &[q, positions], &[], &[1, t, d]);
        let k = b.node(&p("self_attn.k_rope"), rope(c.kv_heads), &[k, positions], &[], &[1, t, kv]);
        let mut cached = Vec::new();
        for (name, new) in [("key", k), ("value", v)] {
            let held = b.value(&[1, past, kv], ValueType::Float);
            let node = p(&format!("self_attn.{}_cache", &name[..1]));
            let whole = b.node(&node, Op::Concat { axis: 1 }, &[held, new], &[], &[1, all, kv]);
            let name = p(&format!("self_attn.{name}_cache"));
            b.graph.states.push(StatePort { name, input: held, output: whole, start: 0.0 });
            cached.push(whole);
        }
        let attention = Op::Attention(AttentionAttrs {
            heads: c.heads,
            kv_heads: c.kv_heads,
            scale: 0.088,
            causal: true,
            window: None,
            softcap: None,
        });
        let a = b.node(&p("self_attn.attention"), attention, &[q, cached[0], cached[1]], &[], &[1, t, d]);
        let o = b.layer(&p("self_attn.o_proj"), Op::Linear {}, a, &[d, d], &[1, t, d]);
        x = b.node(&p("self_attn_residual"), Op::Add {}, &[x, o], &[], &[1, t, d]);
        let n = b.layer(&p("post_attention_layernorm"), norm(), x, &[d], &[1, t, d]);
        let g = b.layer(&p("mlp.gate_proj"), Op::Linear {}, n, &[c.ff, d], &[1, t, c.ff]);
        let u = b.layer(&p("mlp.up_proj"), Op::Linear {}, n, &[c.ff, d], &[1, t, c.ff]);
        let silu = Op::Activation { function: Activation::Silu };
        let g = b.node(&p("mlp.act_fn"), silu, &[g], &[], &[1, t, c.ff]);
        let mul = Op::Binary { function: BinaryFn::Mul };
        let m = b.node(&p("mlp.gated"), mul, &[g, u], &[], &[1, t, c.ff]);
        let m = b.layer(&p("mlp.down_proj"), Op::Linear {}, m, &[d, c.ff], &[1, t, d]);
        x = b.node(&p("mlp_residual"), Op::Add {}, &[x, m], &[], &[1, t, d]);
    }
    let x = b.layer("model.norm", norm(), x, &[d], &[1, t, d]);
    let logits = if c.tied {
        b.node("lm_head", Op::Linear {}, &[x], &[(Slot::Weight, table)], &[1, t, c.vocab])
    } else {
        b.layer("lm_head", Op::Linear {}, x, &[c.vocab, d], &[1, t, c.vocab])
    };
    b.output("logits", logits);
    b.graph
}
