//! Small models of two shapes, made with the builder.

use crate::*;

/// A decoder of `layers` layers of width 8, 4 heads and 2 key-value heads of width 2, feed-forward width 12.
pub fn llama(layers: usize) -> Graph {
    let mut b = GraphBuilder::new("model", "bf16");
    let dims = |d: &[&str]| d.iter().map(Dim::symbol).collect::<Shape>();
    let ids = b.input("input_ids", dims(&["batch", "tokens"]), ValueType::Int);
    let positions = b.input("positions", dims(&["tokens"]), ValueType::Int);
    let mut x = b.embedding("model.embed_tokens", ids, 20, 8).unwrap();
    b.module("model", "LlamaModel");
    for i in 0..layers {
        let p = format!("model.layers.{i}");
        b.module(&p, "LlamaDecoderLayer");
        b.module(&format!("{p}.self_attn"), "LlamaAttention");
        let n = b.rms_norm(&format!("{p}.input_layernorm"), x, 1e-5).unwrap();
        let a = format!("{p}.self_attn");
        let q = b.linear(&format!("{a}.q_proj"), n, 8, false).unwrap();
        let k = b.linear(&format!("{a}.k_proj"), n, 4, false).unwrap();
        let v = b.linear(&format!("{a}.v_proj"), n, 4, false).unwrap();
        let rope = |heads| {
            Op::Rope(RopeAttrs {
                heads,
                rotary: 2,
                theta: 1e4,
                pairing: RopePairing::Halves,
                scaling: RopeScaling::None,
            })
        };
        let q = b.node(&format!("{a}.q_rope"), rope(4), &[q, positions], &[]).unwrap();
        let k = b.node(&format!("{a}.k_rope"), rope(2), &[k, positions], &[]).unwrap();
        let cache = |b: &mut GraphBuilder, which: &str, new: ValueId| {
            let name = format!("{a}.{which}");
            let shape = vec!["batch".into(), "past".into(), 4.into()];
            let old = b.state(&name, shape, ValueType::Float, 0.0);
            let path = name.replace("key_cache", "k_cache").replace("value_cache", "v_cache");
            let joined = b.node(&path, Op::Concat { axis: 1 }, &[old, new], &[]).unwrap();
            b.set_state(&name, joined).unwrap();
            joined
        };
        let k = cache(&mut b, "key_cache", k);
        let v = cache(&mut b, "value_cache", v);
        let attention = Op::Attention(AttentionAttrs {
            heads: 4,
            kv_heads: 2,
            scale: 0.7,
            causal: true,
            window: None,
            softcap: None,
        });
        let o = b.node(&format!("{a}.attention"), attention, &[q, k, v], &[]).unwrap();
        let o = b.linear(&format!("{a}.o_proj"), o, 8, false).unwrap();
        x = b.add(&format!("{p}.self_attn_residual"), &[x, o]).unwrap();
        let n = b.rms_norm(&format!("{p}.post_attention_layernorm"), x, 1e-5).unwrap();
        let gate = b.linear(&format!("{p}.mlp.gate_proj"), n, 12, false).unwrap();
        let up = b.linear(&format!("{p}.mlp.up_proj"), n, 12, false).unwrap();
        let gate = b.activation(&format!("{p}.mlp.act_fn"), Activation::Silu, gate).unwrap();
        let mul = Op::Binary { function: BinaryFn::Mul };
        let h = b.node(&format!("{p}.mlp.gated"), mul, &[gate, up], &[]).unwrap();
        let h = b.linear(&format!("{p}.mlp.down_proj"), h, 8, false).unwrap();
        x = b.add(&format!("{p}.mlp_residual"), &[x, h]).unwrap();
    }
    let x = b.rms_norm("model.norm", x, 1e-5).unwrap();
    let tied = b.parameter("model.embed_tokens.weight", &[20, 8]).unwrap();
    b.alias(tied, "lm_head.weight");
    let logits = b.node("lm_head", Op::Linear {}, &[x], &[(Slot::Weight, tied)]).unwrap();
    b.output("logits", logits);
    b.finish().unwrap()
}

/// What the blocks of the U-shape share.
struct Net {
    b: GraphBuilder,
    time: ValueId,
    text: ValueId,
}

impl Net {
    fn conv(&mut self, path: &str, x: ValueId, out: usize, kernel: usize, stride: usize) -> ValueId {
        let attrs = ConvAttrs::square(stride, kernel / 2);
        self.b.conv(path, x, out, &[kernel, kernel], attrs).unwrap()
    }

    fn norm_act(&mut self, path: &str, x: ValueId) -> ValueId {
        let x = self.b.group_norm(path, x, 2, 1e-5).unwrap();
        self.b.activation(&format!("{path}_act"), Activation::Silu, x).unwrap()
    }

    fn resnet(&mut self, path: &str, x: ValueId, out: usize) -> ValueId {
        let channels = self.b.shape(x)[1].size("channels").unwrap();
        let h = self.norm_act(&format!("{path}.norm1"), x);
        let h = self.conv(&format!("{path}.conv1"), h, out, 3, 1);
        let t = self.b.linear(&format!("{path}.time_emb_proj"), self.time, out, true).unwrap();
        let shape = vec![1.into(), out.into(), 1.into(), 1.into()];
        let t = self.b.node(&format!("{path}.time_emb_shape"), Op::Reshape { shape }, &[t], &[]).unwrap();
        let add = Op::Binary { function: BinaryFn::Add };
        let h = self.b.node(&format!("{path}.time_emb_add"), add, &[h, t], &[]).unwrap();
        let h = self.norm_act(&format!("{path}.norm2"), h);
        let h = self.conv(&format!("{path}.conv2"), h, out, 3, 1);
        let x = if channels == out { x } else { self.conv(&format!("{path}.conv_shortcut"), x, out, 1, 1) };
        self.b.add(&format!("{path}.residual"), &[x, h]).unwrap()
    }

    fn attention(&mut self, path: &str, x: ValueId) -> ValueId {
        let b = &mut self.b;
        let shape = b.shape(x).to_vec();
        let c = shape[1].size("channels").unwrap();
        let n = b.group_norm(&format!("{path}.norm"), x, 2, 1e-5).unwrap();
        let flat = vec![shape[0].clone(), shape[1].clone(), shape[2].clone() * shape[3].clone()];
        let t = b.node(&format!("{path}.flatten"), Op::Reshape { shape: flat.clone() }, &[n], &[]).unwrap();
        let axes = vec![0, 2, 1];
        let t =
            b.node(&format!("{path}.to_tokens"), Op::Transpose { axes: axes.clone() }, &[t], &[]).unwrap();
        let q = b.linear(&format!("{path}.to_q"), t, c, false).unwrap();
        let k = b.linear(&format!("{path}.to_k"), self.text, c, false).unwrap();
        let v = b.linear(&format!("{path}.to_v"), self.text, c, false).unwrap();
        let attention = Op::Attention(AttentionAttrs {
            heads: 2,
            kv_heads: 2,
            scale: 0.5,
            causal: false,
            window: None,
            softcap: None,
        });
        let o = b.node(&format!("{path}.attention"), attention, &[q, k, v], &[]).unwrap();
        let o = b.linear(&format!("{path}.to_out.0"), o, c, true).unwrap();
        let o = b.node(&format!("{path}.to_image"), Op::Transpose { axes }, &[o], &[]).unwrap();
        let o = b.node(&format!("{path}.unflatten"), Op::Reshape { shape }, &[o], &[]).unwrap();
        b.add(&format!("{path}.residual"), &[x, o]).unwrap()
    }
}

/// Two levels of 4 and 8 channels, two residual blocks a level, attention at the inner one, three skips a level, a middle
/// block: the shape of a latent-diffusion U-Net, its inner levels as wide as one another.
pub fn unet() -> Graph {
    let mut b = GraphBuilder::new("unet", "f32");
    let sample = b.input("sample", vec![1.into(), 4.into(), 16.into(), 16.into()], ValueType::Float);
    let t = b.input("timestep", vec![1.into()], ValueType::Float);
    let text = b.input("encoder_hidden_states", vec![1.into(), 7.into(), 6.into()], ValueType::Float);
    let sinusoid = Op::Sinusoid { width: 4, max_period: 1e4, cosine_first: true, shift: 0.0 };
    let t = b.node("time_proj", sinusoid, &[t], &[]).unwrap();
    let t = b.linear("time_embedding.linear_1", t, 6, true).unwrap();
    let time = b.activation("time_embedding.act", Activation::Silu, t).unwrap();
    let mut n = Net { b, time, text };
    let mut x = n.conv("conv_in", sample, 4, 3, 1);
    let mut skips = vec![x];
    for (level, width) in [4, 8].into_iter().enumerate() {
        for i in 0..2 {
            x = n.resnet(&format!("down_blocks.{level}.resnets.{i}"), x, width);
            if level == 1 {
                x = n.attention(&format!("down_blocks.{level}.attentions.{i}"), x);
            }
            skips.push(x);
        }
        if level == 0 {
            x = n.conv("down_blocks.0.downsamplers.0.conv", x, 8, 3, 2);
            skips.push(x);
        }
    }
    x = n.resnet("mid_block.resnets.0", x, 8);
    x = n.attention("mid_block.attentions.0", x);
    x = n.resnet("mid_block.resnets.1", x, 8);
    for (level, width) in [8, 4].into_iter().enumerate() {
        for i in 0..3 {
            let path = format!("up_blocks.{level}.resnets.{i}");
            let skip = skips.pop().unwrap();
            x = n.b.node(&format!("{path}.concat"), Op::Concat { axis: 1 }, &[x, skip], &[]).unwrap();
            x = n.resnet(&path, x, width);
            if level == 0 {
                x = n.attention(&format!("up_blocks.{level}.attentions.{i}"), x);
            }
        }
        if level == 0 {
            let size = vec![16.into(), 16.into()];
            let resize =
                Op::Resize { mode: ResizeMode::Nearest, coordinates: ResizeCoordinates::Asymmetric, size };
            x = n.b.node("up_blocks.0.upsamplers.0.resize", resize, &[x], &[]).unwrap();
            x = n.conv("up_blocks.0.upsamplers.0.conv", x, 8, 3, 1);
        }
    }
    x = n.norm_act("conv_norm_out", x);
    let out = n.conv("conv_out", x, 4, 3, 1);
    n.b.output("out", out);
    n.b.finish().unwrap()
}
