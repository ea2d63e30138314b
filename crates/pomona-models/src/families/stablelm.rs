//! StableLM: Llama with LayerNorm, partial rotation and, in some, parallel branches behind one norm.
//!
//! Source: Bellagente et al., "Stable LM 2 1.6B Technical Report", arXiv:2402.17834.

use super::Family;
use super::common::{Reading, RopeKeys, only};
use crate::config::Fields;
use crate::decoder::{Decoder, Norm, Order};
use crate::error::Result;
use crate::gguf::{Bias, Layout};

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout {
        parallel_key: true,
        parallel_by_norm: true,
        biases: [Bias::Optional, Bias::Never, Bias::Never],
        ..Layout::named("stablelm")
    }),
    ..Family::decoder("stablelm", "StableLmForCausalLM", &READING, describe)
};

const READING: Reading = Reading {
    class: "StableLmDecoderLayer",
    kv_default: Some(32),
    norm: Norm::Layer,
    eps: ("layer_norm_eps", 1e-5),
    rope: Some(RopeKeys { partial: Some(("partial_rotary_factor", 0.25)), ..RopeKeys::WHOLE }),
    ..Reading::LLAMA
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    // Norms of q and k with a weight of its own for each head (StableLM 2 12B).
    only(c, "qk_layernorm", false)?;
    let qkv_bias = c.flag_or("use_qkv_bias", false)?;
    let order = match c.flag_or("use_parallel_residual", false)? {
        true => Order::Parallel { shared: true },
        false => Order::Pre,
    };
    Ok(Decoder { qkv_bias, order, ..READING.read(c)? })
}
