//! Gemma 1: Llama with a scaled embedding and norms whose weights are differences from one.
//!
//! Source: Gemma Team, "Gemma: Open Models Based on Gemini Research and Technology", arXiv:2403.08295.

use pomona_graph::Activation;

use super::Family;
use super::common::Reading;
use crate::config::Fields;
use crate::decoder::{Decoder, Norm};
use crate::error::Result;
use crate::gguf::{GELUS, Layout};

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout { activations: GELUS, tied: true, ..Layout::named("gemma") }),
    ..Family::decoder("gemma", "GemmaForCausalLM", &READING, describe)
};

pub(super) const READING: Reading = Reading {
    class: "GemmaDecoderLayer",
    kv_default: Some(16),
    head_dim: Some(256),
    norm: Norm::Rms { offset: 1.0 },
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    tied: true,
    ..Reading::LLAMA
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let key = if c.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    let activation = (key, "gelu_pytorch_tanh");
    let mut decoder = read(c, Reading { activation, ..READING })?;
    // The first configs say `gelu` and mean its approximation by tanh.
    if key == "hidden_act" && decoder.activation == Activation::Gelu {
        decoder.activation = Activation::GeluTanh;
    }
    Ok(decoder)
}

/// What all Gemmas have.
pub(super) fn read(c: &Fields<'_>, reading: Reading) -> Result<Decoder> {
    let bias = c.flag_or("attention_bias", false)?;
    let read = reading.read(c)?;
    let scale = Some((read.width as f64).sqrt());
    Ok(Decoder { embed_scale: scale, qkv_bias: bias, out_bias: bias, ..read })
}
