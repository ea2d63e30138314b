//! Llama 1, 2 and 3, and what is built like them (SmolLM2, TinyLlama, Vicuna).
//!
//! Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", arXiv:2302.13971.

use super::Family;
use super::common::{Traits, read};
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::error::Result;

pub(super) const FAMILY: Family = Family::decoder("llama", "LlamaForCausalLM", describe);

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let attention_bias = c.flag_or("attention_bias", false)?;
    let traits = Traits {
        class: "LlamaDecoderLayer",
        default_kv_heads: None,
        qkv_bias: attention_bias,
        out_bias: attention_bias,
        mlp_bias: c.flag_or("mlp_bias", false)?,
    };
    read(c, traits)
}
