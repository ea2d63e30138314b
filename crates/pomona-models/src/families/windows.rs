//! Which blocks see a window only.

use crate::config::Fields;
use crate::decoder::Decoder;
use crate::error::Result;

/// Windows of `window` tokens where `layer_types` says so; without that list, where the rule by number does.
pub(super) fn place(
    c: &Fields<'_>,
    decoder: &mut Decoder,
    window: Option<usize>,
    by_number: impl Fn(usize) -> bool,
) -> Result<()> {
    let slides = sliding(c, decoder.layers.len(), by_number)?;
    for (layer, slides) in decoder.layers.iter_mut().zip(&slides) {
        layer.window = window.filter(|_| *slides);
        layer.slides = *slides;
    }
    Ok(())
}

fn sliding(c: &Fields<'_>, depth: usize, by_number: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    let Some(types) = c.maybe_texts("layer_types", depth)? else {
        return Ok((0..depth).map(by_number).collect());
    };
    let one = |(i, kind): (usize, &&str)| match *kind {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => {
            let message = format!("has \"{other}\" at {i}; full_attention or sliding_attention was expected");
            Err(c.fault("layer_types", message))
        }
    };
    types.iter().enumerate().map(one).collect()
}
