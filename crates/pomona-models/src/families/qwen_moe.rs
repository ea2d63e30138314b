//! Qwen1.5-MoE and Qwen2-MoE (`qwen2_moe`), Qwen3-MoE (`qwen3_moe`): experts in most blocks.
//!
//! Sources: Yang et al., arXiv:2407.10671 and arXiv:2505.09388.

use super::common::Reading;
use super::qwen2::late_windows;
use super::{Family, mixtral, qwen3};
use crate::config::{Fields, MAX_DEPTH};
use crate::decoder::{Decoder, Experts, QkNorm};
use crate::error::Result;

pub(super) const QWEN2: Family = Family::decoder("qwen2_moe", "Qwen2MoeForCausalLM", &READING2, describe2);
pub(super) const QWEN3: Family = Family::decoder("qwen3_moe", "Qwen3MoeForCausalLM", &READING3, describe3);

const READING2: Reading = Reading { class: "Qwen2MoeDecoderLayer", kv_default: Some(16), ..Reading::LLAMA };
const READING3: Reading = Reading { class: "Qwen3MoeDecoderLayer", kv_default: Some(4), ..qwen3::READING };

fn describe2(c: &Fields<'_>) -> Result<Decoder> {
    let read = READING2.read(c)?;
    let mut decoder = Decoder { qkv_bias: c.flag_or("qkv_bias", true)?, ..read };
    late_windows(c, &mut decoder)?;
    let shared = Some(c.size_or("shared_expert_intermediate_size", 5632)?);
    place_experts(c, &mut decoder, (60, 4, 1408), shared)?;
    Ok(decoder)
}

fn describe3(c: &Fields<'_>) -> Result<Decoder> {
    let bias = c.flag_or("attention_bias", false)?;
    let read = READING3.read(c)?;
    let mut decoder = Decoder { qk_norm: QkNorm::Head, qkv_bias: bias, out_bias: bias, ..read };
    let window = match c.flag_or("use_sliding_window", false)? {
        true => Some(c.size_or("sliding_window", 4096)?),
        false => None,
    };
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    place_experts(c, &mut decoder, (128, 8, 768), None)?;
    Ok(decoder)
}

/// Experts in every `decoder_sparse_step`-th block but those of `mlp_only_layers`; defaults are count, used and width.
fn place_experts(
    c: &Fields<'_>,
    decoder: &mut Decoder,
    default: (usize, usize, usize),
    shared: Option<usize>,
) -> Result<()> {
    let key = if c.get("num_local_experts").is_some() { "num_local_experts" } else { "num_experts" };
    let count = c.experts(key, default.0, decoder.layers.len())?;
    let used = match c.get("num_experts_per_tok") {
        None => default.1,
        Some(_) => mixtral::used(c, count)?,
    };
    let width = c.size_or("moe_intermediate_size", default.2)?;
    let normalised = c.flag_or("norm_topk_prob", false)?;
    let step = c.size_or("decoder_sparse_step", 1)?;
    let dense = c.counts("mlp_only_layers", MAX_DEPTH)?;
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        if (i + 1) % step == 0 && !dense.contains(&i) {
            layer.experts = Some(Experts { count, used, width, normalised, shared });
        }
    }
    Ok(())
}
