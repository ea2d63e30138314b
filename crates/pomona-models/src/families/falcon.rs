//! Falcon: parallel branches, one key head (7B) or groups of them (40B, 180B, Falcon2), all in one matrix.
//!
//! Source: Almazrouei et al., "The Falcon Series of Open Language Models", arXiv:2311.16867.

use super::Family;
use super::common::{Reading, only};
use crate::config::Fields;
use crate::decoder::{Decoder, LLAMA, Names, Norm, Order, Qkv};
use crate::error::Result;
use crate::gguf::{EXACT_GELUS, Layout};

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout {
        qkv_apart: true,
        activations: EXACT_GELUS,
        parallel: true,
        ..Layout::named("falcon")
    }),
    ..Family::decoder("falcon", "FalconForCausalLM", &READING, describe)
};

const NAMES: Names = Names {
    model: "transformer",
    blocks: "transformer.h",
    embed: "transformer.word_embeddings",
    norm: "transformer.ln_f",
    attention: "self_attention",
    qkv: "self_attention.query_key_value",
    out: "self_attention.dense",
    up: "mlp.dense_h_to_4h",
    activation: "mlp.act",
    down: "mlp.dense_4h_to_h",
    ..LLAMA
};

/// With a norm for each branch.
const TWO_NORMS: Names = Names { attention_norm: "ln_attn", mlp_norm: "ln_mlp", ..NAMES };

const READING: Reading = Reading {
    class: "FalconDecoderLayer",
    names: &NAMES,
    kv_heads: "",
    feed_forward: "ffn_hidden_size",
    feed_forward_times: Some(4),
    norm: Norm::Layer,
    eps: ("layer_norm_epsilon", 1e-5),
    activation: ("activation", "gelu"),
    tied: true,
    ..Reading::LLAMA
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    // Biases of attention by distance (Falcon-RW).
    only(c, "alibi", false)?;
    let bias = c.flag_or("bias", false)?;
    let new = c.flag_or("new_decoder_architecture", false)?;
    let parallel = c.flag_or("parallel_attn", true)?;
    let multi_query = c.flag_or("multi_query", true)?;
    let two_norms = parallel && c.count_or("num_ln_in_parallel_attn", if new { 2 } else { 1 })? == 2;
    if (new && !parallel) || (two_norms && !new) {
        let message = "does not go with the other norm settings: no published Falcon has both";
        return Err(c.fault("new_decoder_architecture", message));
    }
    let kv_heads = if new { "num_kv_heads" } else { "" };
    let names = if two_norms { &TWO_NORMS } else { &NAMES };
    let read = Reading { kv_heads, names, ..READING }.read(c)?;
    let biases = Decoder { qkv_bias: bias, out_bias: bias, mlp_bias: bias, ..read };
    let mut decoder = Decoder {
        gated: false,
        order: if parallel { Order::Parallel { shared: !two_norms } } else { Order::Pre },
        qkv: if multi_query && !new { Qkv::Parts } else { Qkv::ByHead },
        ..biases
    };
    if multi_query && !new {
        decoder.layers.iter_mut().for_each(|layer| layer.kv_heads = 1);
    }
    Ok(decoder)
}
