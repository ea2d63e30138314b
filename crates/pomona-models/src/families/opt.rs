//! OPT: learned positions from row 2 on, ReLU, LayerNorm; the 350M model has its norms behind the joins.
//!
//! Source: Zhang et al., "OPT: Open Pre-trained Transformer Language Models", arXiv:2205.01068.

use super::Family;
use super::common::{Reading, only};
use crate::config::Fields;
use crate::decoder::{Decoder, LLAMA, Names, Norm, Order, Positions};
use crate::error::Result;

pub(super) const FAMILY: Family = Family::decoder("opt", "OPTForCausalLM", &READING, describe);

const NAMES: Names = Names {
    model: "model.decoder",
    blocks: "model.decoder.layers",
    embed: "model.decoder.embed_tokens",
    positions: "model.decoder.embed_positions",
    project_in: "model.decoder.project_in",
    project_out: "model.decoder.project_out",
    norm: "model.decoder.final_layer_norm",
    attention_norm: "self_attn_layer_norm",
    out: "self_attn.out_proj",
    mlp: "",
    mlp_norm: "final_layer_norm",
    up: "fc1",
    activation: "activation_fn",
    down: "fc2",
    ..LLAMA
};

/// Rows of the table in front of position 0.
const OFFSET: usize = 2;

const READING: Reading = Reading {
    class: "OPTDecoderLayer",
    names: &NAMES,
    kv_heads: "",
    feed_forward: "ffn_dim",
    norm: Norm::Layer,
    eps: ("", 1e-5),
    activation: ("activation_function", "relu"),
    tied: true,
    rope: None,
    ..Reading::LLAMA
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    only(c, "layer_norm_elementwise_affine", true)?;
    let bias = c.flag_or("enable_bias", true)?;
    let before = c.flag_or("do_layer_norm_before", true)?;
    let read = READING.read(c)?;
    let rows = c.size_or("max_position_embeddings", 2048)? + OFFSET;
    let embed_width = c.maybe_size("word_embed_proj_dim")?.filter(|w| *w != read.width);
    let biases = Decoder { qkv_bias: bias, out_bias: bias, mlp_bias: bias, ..read };
    Ok(Decoder {
        gated: false,
        positions: Some(Positions { rows, offset: OFFSET }),
        embed_width,
        order: if before { Order::Pre } else { Order::AfterJoin },
        final_norm: before && !c.flag_or("_remove_final_layer_norm", false)?,
        ..biases
    })
}
