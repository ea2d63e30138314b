//! GPT-2: learned positions, LayerNorm, one matrix for q, k and v. Its files hold matrices transposed.
//!
//! Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.

use super::Family;
use super::common::{Reading, only};
use crate::config::Fields;
use crate::decoder::{Decoder, LLAMA, Names, Norm, Positions, Qkv};
use crate::error::Result;
use crate::gguf::{Bias, GELUS, Layout};

pub(super) const FAMILY: Family = Family {
    transposed: &["attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"],
    gguf: Some(Layout { activations: GELUS, biases: [Bias::Always; 3], ..Layout::named("gpt2") }),
    ..Family::decoder("gpt2", "GPT2LMHeadModel", &READING, describe)
};

const NAMES: Names = Names {
    model: "transformer",
    blocks: "transformer.h",
    embed: "transformer.wte",
    positions: "transformer.wpe",
    norm: "transformer.ln_f",
    attention: "attn",
    attention_norm: "ln_1",
    qkv: "attn.c_attn",
    out: "attn.c_proj",
    mlp_norm: "ln_2",
    up: "mlp.c_fc",
    activation: "mlp.act",
    down: "mlp.c_proj",
    ..LLAMA
};

const READING: Reading = Reading {
    class: "GPT2Block",
    names: &NAMES,
    width: "n_embd",
    depth: "n_layer",
    heads: "n_head",
    kv_heads: "",
    feed_forward: "n_inner",
    feed_forward_times: Some(4),
    norm: Norm::Layer,
    eps: ("layer_norm_epsilon", 1e-5),
    activation: ("activation_function", "gelu_new"),
    tied: true,
    rope: None,
    ..Reading::LLAMA
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    only(c, "add_cross_attention", false)?;
    let read = READING.read(c)?;
    let positions = Some(Positions { rows: c.size_or("n_positions", 1024)?, offset: 0 });
    let bias = Decoder { qkv_bias: true, out_bias: true, mlp_bias: true, ..read };
    let mut decoder = Decoder { qkv: Qkv::Parts, gated: false, positions, ..bias };
    let scaled = c.flag_or("scale_attn_weights", true)?;
    let by_number = c.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let scale = if scaled { layer.scale } else { 1.0 };
        layer.scale = if by_number { scale / (i + 1) as f64 } else { scale };
    }
    Ok(decoder)
}
