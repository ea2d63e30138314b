//! Mistral: Llama with a window on attention.
//!
//! Source: Jiang et al., "Mistral 7B", arXiv:2310.06825.

use super::Family;
use super::common::{Traits, read};
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::error::Result;

pub(super) const FAMILY: Family = Family::decoder("mistral", "MistralForCausalLM", describe);

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let traits = Traits {
        class: "MistralDecoderLayer",
        default_kv_heads: Some(8),
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
    };
    let mut decoder = read(c, traits)?;
    // A null means no window, a missing key the library's default.
    let window = match c.maybe_size("sliding_window")? {
        None if !c.has("sliding_window") => Some(4096),
        given => given,
    };
    for layer in &mut decoder.layers {
        layer.window = window;
    }
    Ok(decoder)
}
