//! Gemma 2: norms before and behind each branch, bounded logits, every other block with a window.
//!
//! Source: Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", arXiv:2408.00118.

use super::common::{Reading, only};
use super::{Family, gemma, windows};
use crate::config::Fields;
use crate::decoder::{Decoder, LLAMA, Names, Order};
use crate::error::Result;
use crate::gguf::{GELUS, Layout};

pub(super) const FAMILY: Family = Family {
    windows_by_number: true,
    gguf: Some(Layout {
        activations: GELUS,
        window_every: Some(2),
        softcap: true,
        logit_softcap: true,
        tied: true,
        scale_depth: Some(46),
        ..Layout::named("gemma2")
    }),
    ..Family::decoder("gemma2", "Gemma2ForCausalLM", &READING, describe)
};

/// Gemma 3 has the same.
pub(super) const NAMES: Names = Names {
    attention_post_norm: "post_attention_layernorm",
    mlp_norm: "pre_feedforward_layernorm",
    mlp_post_norm: "post_feedforward_layernorm",
    ..LLAMA
};

const READING: Reading =
    Reading { class: "Gemma2DecoderLayer", names: &NAMES, kv_default: Some(4), ..gemma::READING };

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let mut decoder = read(c, READING, (Some(50.0), Some(30.0)))?;
    windows::place(c, &mut decoder, window(c)?, |i| i % 2 == 0)?;
    Ok(decoder)
}

/// What Gemma 2 and 3 have in common; `softcaps` of attention and logits where the keys are missing.
pub(super) fn read(
    c: &Fields<'_>,
    reading: Reading,
    softcaps: (Option<f64>, Option<f64>),
) -> Result<Decoder> {
    only(c, "use_bidirectional_attention", false)?;
    let cap = |key: &str, default: Option<f64>| match c.maybe_positive(key)? {
        // A null switches it off.
        None if !c.has(key) => Ok(default),
        given => Ok::<_, crate::ModelError>(given),
    };
    let softcap = cap("attn_logit_softcapping", softcaps.0)?;
    let logit_softcap = cap("final_logit_softcapping", softcaps.1)?;
    let mut decoder = Decoder { order: Order::Both, softcap, logit_softcap, ..gemma::read(c, reading)? };
    let scalar = c.positive_or("query_pre_attn_scalar", 256.0)?;
    for layer in &mut decoder.layers {
        layer.scale = 1.0 / scalar.sqrt();
    }
    Ok(decoder)
}

/// A null means no window, a missing key the library's default.
pub(super) fn window(c: &Fields<'_>) -> Result<Option<usize>> {
    match c.maybe_size("sliding_window")? {
        None if !c.has("sliding_window") => Ok(Some(4096)),
        given => Ok(given),
    }
}
