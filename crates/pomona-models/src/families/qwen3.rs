//! Qwen3: Qwen2 without its biases, with norms of q and k by head.
//!
//! Source: Yang et al., "Qwen3 Technical Report", arXiv:2505.09388.

use super::Family;
use super::common::Reading;
use super::qwen2::late_windows;
use crate::config::Fields;
use crate::decoder::{Decoder, QkNorm};
use crate::error::Result;
use crate::gguf::Layout;

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout::named("qwen3")),
    ..Family::decoder("qwen3", "Qwen3ForCausalLM", &READING, describe)
};

pub(super) const READING: Reading =
    Reading { class: "Qwen3DecoderLayer", kv_default: Some(32), head_dim: Some(128), ..Reading::LLAMA };

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let bias = c.flag_or("attention_bias", false)?;
    let read = READING.read(c)?;
    let mut decoder = Decoder { qk_norm: QkNorm::Head, qkv_bias: bias, out_bias: bias, ..read };
    late_windows(c, &mut decoder)?;
    Ok(decoder)
}
