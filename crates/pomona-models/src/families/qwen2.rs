//! Qwen2 and Qwen2.5: Llama with biases at q, k and v, and windows from some layer on.
//!
//! Source: Yang et al., "Qwen2 Technical Report", arXiv:2407.10671.

use super::Family;
use super::common::{Traits, read};
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { gguf: "qwen2", gguf_pairs: false, ..Family::decoder("qwen2", "Qwen2ForCausalLM", describe) };

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let traits = Traits {
        class: "Qwen2DecoderLayer",
        default_kv_heads: Some(32),
        qkv_bias: true,
        out_bias: false,
        mlp_bias: false,
    };
    let mut decoder = read(c, traits)?;
    let depth = decoder.layers.len();
    let window = match c.flag_or("use_sliding_window", false)? {
        true => Some(c.size_or("sliding_window", 4096)?),
        false => None,
    };
    let types = c.maybe_texts("layer_types", depth)?;
    let first = c.count_or("max_window_layers", 28)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let slides = match types.as_ref().map(|t| t[i]) {
            None => i >= first,
            Some("sliding_attention") => true,
            Some("full_attention") => false,
            Some(other) => {
                let message =
                    format!("has \"{other}\" at {i}; full_attention or sliding_attention was expected");
                return Err(c.fault("layer_types", message));
            }
        };
        layer.window = window.filter(|_| slides);
    }
    Ok(decoder)
}
