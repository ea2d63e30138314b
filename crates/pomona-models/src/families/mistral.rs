//! Mistral: Llama with a window on attention.
//!
//! Source: Jiang et al., "Mistral 7B", arXiv:2310.06825.

use super::Family;
use super::common::Reading;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::error::Result;
use crate::gguf::Layout;

pub(super) const FAMILY: Family = Family {
    gguf: Some(Layout::LLAMA),
    ..Family::decoder("mistral", "MistralForCausalLM", &READING, describe)
};

const READING: Reading = Reading { class: "MistralDecoderLayer", kv_default: Some(8), ..Reading::LLAMA };

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let mut decoder = READING.read(c)?;
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
