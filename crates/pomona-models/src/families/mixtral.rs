//! Mixtral: Mistral with experts.
//!
//! Source: Jiang et al., "Mixtral of Experts", arXiv:2401.04088.

use super::Family;
use super::common::Reading;
use crate::config::Fields;
use crate::decoder::{Decoder, Experts, LLAMA, Names};
use crate::error::Result;

pub(super) const FAMILY: Family = Family::decoder("mixtral", "MixtralForCausalLM", &READING, describe);

const NAMES: Names = Names {
    mlp: "block_sparse_moe",
    router: "block_sparse_moe.gate",
    experts: "block_sparse_moe.experts",
    expert: ["w1", "w3", "w2"],
    ..LLAMA
};

const READING: Reading = Reading {
    class: "MixtralDecoderLayer",
    names: &NAMES,
    kv_default: Some(8),
    eps: ("rms_norm_eps", 1e-5),
    rope: Some(super::common::RopeKeys { theta_default: 1e6, ..super::common::RopeKeys::WHOLE }),
    ..Reading::LLAMA
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let mut decoder = READING.read(c)?;
    let count = c.experts("num_local_experts", 8, decoder.layers.len())?;
    let used = used(c, count)?;
    let window = c.maybe_size("sliding_window")?;
    for layer in &mut decoder.layers {
        let width = layer.feed_forward;
        layer.window = window;
        layer.experts = Some(Experts { count, used, width, normalised: true, shared: None });
    }
    Ok(decoder)
}

/// Experts that a token uses, at most all.
pub(super) fn used(c: &Fields<'_>, count: usize) -> Result<usize> {
    let key = "num_experts_per_tok";
    match c.size_or(key, 2)? {
        n if n <= count => Ok(n),
        n => Err(c.fault(key, format!("is {n}; at most the number of experts ({count}) was expected"))),
    }
}
