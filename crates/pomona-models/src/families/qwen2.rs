//! Qwen2 and Qwen2.5: Llama with biases at q, k and v, and windows from some layer on.
//!
//! Source: Yang et al., "Qwen2 Technical Report", arXiv:2407.10671.

use super::common::Reading;
use super::{Family, windows};
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::error::Result;
use crate::gguf::{Bias, Layout};

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout { biases: [Bias::Always, Bias::Never, Bias::Never], ..Layout::named("qwen2") }),
    ..Family::decoder("qwen2", "Qwen2ForCausalLM", &READING, describe)
};

const READING: Reading = Reading { class: "Qwen2DecoderLayer", kv_default: Some(32), ..Reading::LLAMA };

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let mut decoder = Decoder { qkv_bias: true, ..READING.read(c)? };
    late_windows(c, &mut decoder)?;
    Ok(decoder)
}

/// Windows, where they are switched on, from block `max_window_layers` on.
pub(super) fn late_windows(c: &Fields<'_>, decoder: &mut Decoder) -> Result<()> {
    let window = match c.flag_or("use_sliding_window", false)? {
        true => Some(c.size_or("sliding_window", 4096)?),
        false => None,
    };
    let first = c.count_or("max_window_layers", 28)?;
    windows::place(c, decoder, window, |i| i >= first)
}
