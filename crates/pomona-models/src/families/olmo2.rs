//! OLMo 2: norms behind the branches, and of q and k over all heads together.
//!
//! Source: OLMo Team, "2 OLMo 2 Furious", arXiv:2501.00656.

use super::Family;
use super::common::Reading;
use crate::config::Fields;
use crate::decoder::{Decoder, LLAMA, Names, Order, QkNorm};
use crate::error::Result;
use crate::gguf::Layout;

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout::named("olmo2")),
    ..Family::decoder("olmo2", "Olmo2ForCausalLM", &READING, describe)
};

const NAMES: Names = Names {
    attention_norm: "",
    attention_post_norm: "post_attention_layernorm",
    mlp_norm: "",
    mlp_post_norm: "post_feedforward_layernorm",
    ..LLAMA
};

const READING: Reading =
    Reading { class: "Olmo2DecoderLayer", names: &NAMES, eps: ("rms_norm_eps", 1e-5), ..Reading::LLAMA };

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let bias = c.flag_or("attention_bias", false)?;
    let read = READING.read(c)?;
    Ok(Decoder { order: Order::Post, qk_norm: QkNorm::Whole, qkv_bias: bias, out_bias: bias, ..read })
}
