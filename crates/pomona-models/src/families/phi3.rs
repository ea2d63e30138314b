//! Phi-3 and Phi-4-mini: Llama with q, k and v, and gate and up, as one matrix each.
//!
//! Source: Abdin et al., "Phi-3 Technical Report", arXiv:2404.14219.

use super::Family;
use super::common::{Reading, RopeKeys};
use super::rope::longrope_attention;
use crate::config::Fields;
use crate::decoder::{Decoder, LLAMA, Names, Qkv};
use crate::error::Result;
use crate::gguf::Layout;

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout::named("phi3")),
    ..Family::decoder("phi3", "Phi3ForCausalLM", &READING, describe)
};

const NAMES: Names = Names {
    qkv: "self_attn.qkv_proj",
    gate_up: "mlp.gate_up_proj",
    activation: "mlp.activation_fn",
    ..LLAMA
};

const READING: Reading = Reading {
    class: "Phi3DecoderLayer",
    names: &NAMES,
    eps: ("rms_norm_eps", 1e-5),
    rope: Some(RopeKeys { partial: Some(("partial_rotary_factor", 1.0)), longrope: true, ..RopeKeys::WHOLE }),
    ..Reading::LLAMA
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let mut decoder = Decoder { qkv: Qkv::Parts, gate_up_fused: true, ..READING.read(c)? };
    let window = c.maybe_size("sliding_window")?;
    // Sines and cosines are scaled where the context was stretched: on whole heads that scales the logits.
    let factor =
        longrope_attention(c, decoder.head_dim, decoder.layers.first().and_then(|l| l.rope.as_ref()))?;
    for layer in &mut decoder.layers {
        layer.window = window;
        layer.scale *= factor * factor;
    }
    Ok(decoder)
}
