//! A conditional U-Net in small: skip, time embedding, cross-attention, strided and transposed convolution.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Build;
use pomona_cost::{CostOptions, Macs, cost, decode_bindings, default_bindings};
use pomona_graph::*;

const W: Slot = Slot::Weight;
const B: Slot = Slot::Bias;

fn conv(b: &mut Build, path: &str, x: ValueId, weight: [usize; 4], stride: usize, out: &[usize]) -> ValueId {
    let w = b.tensor(&format!("{path}.weight"), &weight);
    let bias = b.tensor(&format!("{path}.bias"), &weight[..1]);
    b.node(path, Op::Conv(ConvAttrs::square(stride, weight[2] / 2)), &[x], &[(W, w), (B, bias)], out)
}

/// `[1, 4, 16, 16]` down to `[1, 8, 8, 8]` and back, with 5 text tokens of width 6.
fn toy() -> Graph {
    let mut b = Build::new("f32");
    let (large, small) = ([1, 4, 16, 16], [1, 8, 8, 8]);
    let x = b.input("sample", &large, ValueType::Float);
    let t = b.input("timestep", &[1], ValueType::Float);
    let text = b.input("text", &[1, 5, 6], ValueType::Float);
    let sinusoid = Op::Sinusoid { width: 10, max_period: 1e4, cosine_first: true, shift: 0.0 };
    let t = b.node("time_proj", sinusoid, &[t], &[], &[1, 10]);
    let t = b.layer("time_embedding.linear", Op::Linear {}, t, &[8, 10], &[1, 8]);

    let skip = conv(&mut b, "conv_in", x, [4, 4, 3, 3], 1, &large);
    let h = conv(&mut b, "down.0", skip, [8, 4, 3, 3], 2, &small);
    let (gw, gb) = (b.tensor("mid.norm.weight", &[8]), b.tensor("mid.norm.bias", &[8]));
    let h = b.node("mid.norm", Op::GroupNorm { groups: 2, eps: 1e-5 }, &[h], &[(W, gw), (B, gb)], &small);
    let t = b.node(
        "mid.time",
        Op::Reshape { shape: [1, 8, 1, 1].map(Dim::from).into() },
        &[t],
        &[],
        &[1, 8, 1, 1],
    );
    let h = b.node("mid.add_time", Op::Binary { function: BinaryFn::Add }, &[h, t], &[], &small);
    let flat =
        b.node("mid.flat", Op::Reshape { shape: [1, 8, 64].map(Dim::from).into() }, &[h], &[], &[1, 8, 64]);
    let tokens = b.node("mid.tokens", Op::Transpose { axes: vec![0, 2, 1] }, &[flat], &[], &[1, 64, 8]);
    let q = b.layer("mid.attn.to_q", Op::Linear {}, tokens, &[8, 8], &[1, 64, 8]);
    let k = b.layer("mid.attn.to_k", Op::Linear {}, text, &[8, 6], &[1, 5, 8]);
    let v = b.layer("mid.attn.to_v", Op::Linear {}, text, &[8, 6], &[1, 5, 8]);
    let attrs =
        AttentionAttrs { heads: 2, kv_heads: 2, scale: 0.5, causal: false, window: None, softcap: None };
    let a = b.node("mid.attn.attention", Op::Attention(attrs), &[q, k, v], &[], &[1, 64, 8]);
    let a = b.layer("mid.attn.to_out", Op::Linear {}, a, &[8, 8], &[1, 64, 8]);
    let h = b.node("mid.attn_residual", Op::Add {}, &[tokens, a], &[], &[1, 64, 8]);
    let h = b.node("mid.grid", Op::Transpose { axes: vec![0, 2, 1] }, &[h], &[], &[1, 8, 64]);
    let h = b.node("mid.image", Op::Reshape { shape: small.map(Dim::from).into() }, &[h], &[], &small);
    let w = b.tensor("up.0.weight", &[8, 4, 2, 2]);
    let up = Op::ConvTranspose { conv: ConvAttrs::square(2, 0), output_padding: vec![0, 0] };
    let h = b.node("up.0", up, &[h], &[(W, w)], &large);
    let h = b.node("up.concat", Op::Concat { axis: 1 }, &[h, skip], &[], &[1, 8, 16, 16]);
    let y = conv(&mut b, "conv_out", h, [4, 8, 3, 3], 1, &large);
    b.output("sample", y);
    b.graph
}

#[test]
fn totals_are_those_of_hand_computation() {
    let r = cost(&toy(), &CostOptions::default()).unwrap();
    let parameters = 80 + (4 * 36 + 4) + (8 * 36 + 8) + 16 + (64 + 48 + 48 + 64) + 8 * 4 * 4 + (4 * 72 + 4);
    assert_eq!((r.parameters, r.weight_bytes), (parameters, 4 * parameters));
    let plain = 80 + 256 * 4 * 36 + 64 * 8 * 36 + 64 * 64 + 2 * 5 * 48 + 64 * 64 + 256 * 4 * 72;
    let attention = 64 * 5 * (8 + 8);
    // Transposed: 64 input positions, or 256 output positions, of 8 x 4 x 2 x 2.
    assert_eq!(r.macs, Macs { full: plain + attention + 64 * 128, thop: plain + 256 * 128 });
    let biases = 1024 + 512 + 1024;
    let norm = 512 * 7;
    let rest = 2 * 10 + 512 + 2 * 64 * 5 * 6 + 512;
    assert_eq!(r.other_ops, biases + norm + rest);
    assert_eq!(r.uncounted, []);
    // At the concatenation: the inputs (1024 + 1 + 30), the upsampled image, the skip and both together.
    assert_eq!(
        (r.peak_activations.bytes, r.peak_activations.at.as_str()),
        (4 * (1055 + 1024 + 1024 + 2048), "up.concat")
    );
}

#[test]
fn default_sizes_are_given_to_the_symbols_that_are_there() {
    let mut b = Build::new("f32");
    let x = b.input("input_ids", &[1, 1], ValueType::Int);
    b.graph.values[x.0 as usize].shape = vec!["batch".into(), "tokens".into()];
    let sizes =
        |pairs: &[(&str, i64)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<Bindings>();
    assert_eq!(default_bindings(&b.graph), sizes(&[("batch", 1), ("tokens", 128)]));
    let held = b.value(&[1, 1, 8], ValueType::Float);
    b.graph.values[held.0 as usize].shape = vec!["batch".into(), "past".into(), 8.into()];
    b.graph.states.push(StatePort { name: "cache".to_owned(), input: held, output: held, start: 0.0 });
    assert_eq!(default_bindings(&b.graph), sizes(&[("batch", 1), ("tokens", 128), ("past", 0)]));
    assert_eq!(decode_bindings(&b.graph, 99), sizes(&[("batch", 1), ("tokens", 1), ("past", 99)]));
    assert_eq!(default_bindings(&toy()), Bindings::new());
}
