//! Gemma 3, its text part: Gemma 2 with norms of q and k instead of bounds, and a rotary base for blocks with a window.
//!
//! Source: Gemma Team, "Gemma 3 Technical Report", arXiv:2503.19786.

use super::common::{Reading, turning};
use super::{Family, gemma2, rope, windows};
use crate::config::Fields;
use crate::decoder::{Decoder, QkNorm};
use crate::error::Result;
use crate::gguf::{GELUS, Layout};

pub(super) const FAMILY: Family = Family {
    windows_by_number: true,
    gguf: Some(Layout {
        activations: GELUS,
        window_every: Some(6),
        scale_depth: Some(62),
        window_base: true,
        ..Layout::named("gemma3")
    }),
    ..Family::decoder("gemma3_text", "Gemma3ForCausalLM", &READING, describe)
};

const READING: Reading = Reading {
    class: "Gemma3DecoderLayer",
    names: &gemma2::NAMES,
    kv_default: Some(4),
    rope: None,
    ..super::gemma::READING
};

fn describe(c: &Fields<'_>) -> Result<Decoder> {
    let mut decoder = Decoder { qk_norm: QkNorm::Head, ..gemma2::read(c, READING, (None, None))? };
    let key = if c.get("sliding_window_pattern").is_some() {
        "sliding_window_pattern"
    } else {
        "_sliding_window_pattern"
    };
    let every = c.size_or(key, 6)?;
    windows::place(c, &mut decoder, gemma2::window(c)?, |i| (i + 1) % every != 0)?;
    let [full, sliding] = rope::by_layer_type(c, [1e6, 1e4])?;
    for layer in &mut decoder.layers {
        let rope = if layer.slides { &sliding } else { &full };
        let head = decoder.head_dim;
        layer.rope = Some(turning(c, head, rope.partial, rope.theta, rope.scaling.clone())?);
    }
    Ok(decoder)
}
