//! Rotary settings in both layouts of config.json: `rope_theta` and `rope_scaling` (transformers 4), `rope_parameters` (5).

use pomona_graph::RopeScaling;

use crate::config::Fields;
use crate::error::Result;

pub(super) struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

pub(super) fn read(c: &Fields<'_>) -> Result<Rope> {
    let outer_theta = c.positive_or("rope_theta", 10_000.0)?;
    whole(c)?;
    let section = match c.section("rope_parameters")? {
        Some(s) => Some(("rope_parameters", s)),
        None => c.section("rope_scaling")?.map(|s| ("rope_scaling", s)),
    };
    let Some((key, s)) = section else {
        return Ok(Rope { theta: outer_theta, scaling: RopeScaling::None });
    };
    if s.is_nested() {
        return Err(c.fault(key, "differs by layer type, which is not read for this model_type"));
    }
    whole(&s)?;
    let theta = s.positive_or("rope_theta", outer_theta)?;
    // The oldest configs say `type`.
    let kind = if s.get("rope_type").is_some() { "rope_type" } else { "type" };
    let scaling = match s.text_or(kind, "default")? {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: s.positive("factor")? },
        "llama3" => llama3(c, &s)?,
        other => {
            let message = format!("is \"{other}\"; default, linear and llama3 are read");
            return Err(s.fault(kind, message));
        }
    };
    Ok(Rope { theta, scaling })
}

fn llama3(c: &Fields<'_>, s: &Fields<'_>) -> Result<RopeScaling> {
    let (low, high) = (s.positive("low_freq_factor")?, s.positive("high_freq_factor")?);
    if high <= low {
        return Err(s.fault(
            "high_freq_factor",
            format!("is {high}; more than low_freq_factor ({low}) was expected"),
        ));
    }
    let key = "original_max_position_embeddings";
    let original_context = match s.maybe_size(key)? {
        Some(n) => n,
        None => c.size("max_position_embeddings")?,
    };
    let factor = s.positive("factor")?;
    Ok(RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context })
}

/// Only whole heads turn in these families.
fn whole(c: &Fields<'_>) -> Result<()> {
    match c.maybe_positive("partial_rotary_factor")? {
        Some(part) if part != 1.0 => {
            Err(c.fault("partial_rotary_factor", format!("is {part}; 1 was expected for this model_type")))
        }
        _ => Ok(()),
    }
}
