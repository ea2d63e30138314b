//! GPT-NeoX and Pythia: parallel branches, partial rotation, q, k and v in one matrix head by head.
//!
//! Source: Black et al., "GPT-NeoX-20B", arXiv:2204.06745.

use super::Family;
use super::common::{Reading, RopeKeys};
use crate::config::Fields;
use crate::decoder::{Decoder, LLAMA, Names, Norm, Order, Qkv};
use crate::error::Result;
use crate::gguf::{Bias, EXACT_GELUS, Layout};

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout {
        qkv_apart: true,
        activations: EXACT_GELUS,
        parallel_key: true,
        biases: [Bias::Always; 3],
        ..Layout::named("gptneox")
    }),
    ..Family::decoder("gpt_neox", "GPTNeoXForCausalLM", &READING, describe)
};

const NAMES: Names = Names {
    model: "gpt_neox",
    blocks: "gpt_neox.layers",
    embed: "gpt_neox.embed_in",
    norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    old_head: "lm_head",
    attention: "attention",
    qkv: "attention.query_key_value",
    out: "attention.dense",
    up: "mlp.dense_h_to_4h",
    activation: "mlp.act",
    down: "mlp.dense_4h_to_h",
    ..LLAMA
};

const READING: Reading = Reading {
    class: "GPTNeoXLayer",
    names: &NAMES,
    kv_heads: "",
    norm: Norm::Layer,
    eps: ("layer_norm_eps", 1e-5),
    activation: ("hidden_act", "gelu"),
    rope: Some(RopeKeys { theta: "rotary_emb_base", partial: Some(("rotary_pct", 0.25)), ..RopeKeys::WHOLE }),
    ..Reading::LLAMA
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let bias = c.flag_or("attention_bias", true)?;
    let order = match c.flag_or("use_parallel_residual", true)? {
        true => Order::Parallel { shared: false },
        false => Order::Pre,
    };
    let read = READING.read(c)?;
    let biases = Decoder { qkv_bias: bias, out_bias: bias, mlp_bias: true, ..read };
    Ok(Decoder { qkv: Qkv::ByHead, gated: false, order, ..biases })
}
