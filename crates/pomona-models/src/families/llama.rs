//! Llama 1, 2 and 3, and what is built like them (SmolLM2, TinyLlama, Vicuna).
//!
//! Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", arXiv:2302.13971.

use super::Family;
use super::common::Reading;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::error::Result;
use crate::gguf::Layout;

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout::LLAMA),
    ..Family::decoder("llama", "LlamaForCausalLM", &Reading::LLAMA, describe)
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let bias = c.flag_or("attention_bias", false)?;
    let mlp_bias = c.flag_or("mlp_bias", false)?;
    Ok(Decoder { qkv_bias: bias, out_bias: bias, mlp_bias, ..Reading::LLAMA.read(c)? })
}
