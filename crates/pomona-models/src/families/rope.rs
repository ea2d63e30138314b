//! Rotary settings in both layouts of config.json: `rope_theta` and `rope_scaling` (transformers 4), `rope_parameters` (5).

use pomona_graph::RopeScaling;

use super::common::RopeKeys;
use crate::config::Fields;
use crate::decoder::Rope;
use crate::error::Result;

/// Base, scaling, and the share of each head that turns.
pub(super) struct Found {
    pub theta: f64,
    pub scaling: RopeScaling,
    pub partial: f64,
}

pub(super) fn read(c: &Fields<'_>, keys: &RopeKeys, head_dim: usize) -> Result<Found> {
    let theta = c.positive_or(keys.theta, keys.theta_default)?;
    let outer = partial(c, keys, keys.partial.map_or("partial_rotary_factor", |p| p.0))?;
    let partial_default = outer.unwrap_or(keys.partial.map_or(1.0, |p| p.1));
    let Some((key, s)) = section(c)? else {
        return Ok(Found { theta, scaling: RopeScaling::None, partial: partial_default });
    };
    if s.is_nested() {
        return Err(c.fault(key, "differs by layer type, which is not read for this model_type"));
    }
    let share = partial(&s, keys, "partial_rotary_factor")?.unwrap_or(partial_default);
    let theta = s.positive_or("rope_theta", theta)?;
    let pairs = (head_dim as f64 * share) as usize / 2;
    Ok(Found { theta, scaling: scaling(c, &s, keys.longrope.then_some(pairs))?, partial: share })
}

/// Settings of blocks that see everything, and of those with a window; `default` are their bases.
pub(super) fn by_layer_type(c: &Fields<'_>, default: [f64; 2]) -> Result<[Found; 2]> {
    let outer = ["rope_theta", "rope_local_base_freq"];
    let theta = [c.positive_or(outer[0], default[0])?, c.positive_or(outer[1], default[1])?];
    let plain = |theta| Found { theta, scaling: RopeScaling::None, partial: 1.0 };
    let one = |s: Option<Fields<'_>>, theta: f64| match s {
        None => Ok(plain(theta)),
        Some(s) => {
            let share = partial(&s, &RopeKeys::WHOLE, "partial_rotary_factor")?.unwrap_or(1.0);
            let theta = s.positive_or("rope_theta", theta)?;
            Ok::<_, crate::ModelError>(Found { theta, scaling: scaling(c, &s, None)?, partial: share })
        }
    };
    let (key, s) = match section(c)? {
        None => return Ok(theta.map(plain)),
        Some(found) => found,
    };
    if key == "rope_parameters" && s.is_nested() {
        return Ok([
            one(s.section("full_attention")?, theta[0])?,
            one(s.section("sliding_attention")?, theta[1])?,
        ]);
    }
    // The old layout scales blocks that see everything, and no others.
    Ok([one(Some(s), theta[0])?, plain(theta[1])])
}

fn section<'a>(c: &Fields<'a>) -> Result<Option<(&'static str, Fields<'a>)>> {
    Ok(match c.section("rope_parameters")? {
        Some(s) => Some(("rope_parameters", s)),
        None => c.section("rope_scaling")?.map(|s| ("rope_scaling", s)),
    })
}

/// The share of a head that turns, where the key is there.
fn partial(c: &Fields<'_>, keys: &RopeKeys, key: &str) -> Result<Option<f64>> {
    match c.maybe_positive(key)? {
        Some(part) if part > 1.0 || (part != 1.0 && keys.partial.is_none()) => {
            let wanted = if keys.partial.is_none() { "1" } else { "at most 1" };
            Err(c.fault(key, format!("is {part}; {wanted} was expected for this model_type")))
        }
        found => Ok(found),
    }
}

/// The oldest configs say `type`.
fn kind_key(s: &Fields<'_>) -> &'static str {
    if s.get("rope_type").is_some() { "rope_type" } else { "type" }
}

/// `longrope`: the number of frequencies, where that rule is read.
fn scaling(c: &Fields<'_>, s: &Fields<'_>, longrope: Option<usize>) -> Result<RopeScaling> {
    let kind = kind_key(s);
    Ok(match (s.text_or(kind, "default")?, longrope) {
        ("default", _) => RopeScaling::None,
        ("linear", _) => RopeScaling::Linear { factor: s.positive("factor")? },
        ("llama3", _) => llama3(c, s)?,
        // Up to the context of the first training the short factors hold; the long ones are for what lies beyond.
        ("longrope" | "su", Some(pairs)) => {
            RopeScaling::Divisors { divisors: s.positives("short_factor", pairs)? }
        }
        (other, None) => {
            return Err(s.fault(kind, format!("is \"{other}\"; default, linear and llama3 are read")));
        }
        (other, Some(_)) => {
            let message = format!("is \"{other}\"; default, linear, llama3 and longrope are read");
            return Err(s.fault(kind, message));
        }
    })
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

/// The factor of sines and cosines under `longrope`, 1 under other rules. Where only a part of each head turns, no
/// operator can say it.
pub(super) fn longrope_attention(c: &Fields<'_>, head_dim: usize, rope: Option<&Rope>) -> Result<f64> {
    let Some((key, s)) = section(c)? else { return Ok(1.0) };
    if !matches!(s.text_or(kind_key(&s), "default")?, "longrope" | "su") {
        return Ok(1.0);
    }
    let original_key = "original_max_position_embeddings";
    let original = match c.maybe_size(original_key)? {
        Some(n) => n,
        None => s.size_or(original_key, 4096)?,
    } as f64;
    let longest = c.size_or("max_position_embeddings", 4096)? as f64;
    let stretch = s.maybe_positive("factor")?.unwrap_or(longest / original);
    let usual = if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / original.ln()).sqrt() };
    let factor = s.maybe_positive("attention_factor")?.unwrap_or(usual);
    if factor != 1.0 && rope.is_some_and(|r| r.rotary != head_dim) {
        let message = "scales the turned part of each head only, which no operator of the graph says";
        return Err(c.fault(key, message));
    }
    Ok(factor)
}
