//! A graph to GGUF: metadata and rotary divisors.

use pomona_graph::{Expr, Graph, Op, RopeAttrs, RopeScaling};
use pomona_store::{Encoding, Format, GgufValue};
use serde_json::Value;

use super::import::ROPE_FREQS;
use super::metadata::cut_metadata;
use super::refusals::described;
use crate::config::Fields;
use crate::decoder::{Norm, Order};
use crate::error::Result;
use crate::model::Model;
use crate::stock::StockForm;
use crate::tokenizer::Tokenizer;

const FILE_TYPE: &str = "general.file_type";

/// Metadata of the output: the source's own, cut to the new depth, or made from config and tokenizer. `decoded` is the
/// type into which everything was decoded, `main` the one that holds most bytes.
pub(crate) fn metadata(
    model: &Model,
    form: &StockForm,
    decoded: Option<Encoding>,
    main: Option<Encoding>,
    notes: &mut Vec<String>,
) -> Result<Vec<(String, GgufValue)>> {
    if let Some(file) = model.checkpoint().filter(|c| c.format() == Format::Gguf) {
        let mut out = cut_metadata(file.gguf_metadata(), form.depth, &form.kept);
        let found = model.family().and_then(|f| Some((f, f.gguf?)));
        if let Some((family, layout)) = found.filter(|(_, l)| l.window_every.is_some())
            && let Some(window) = layout.context(&described(model, family, form)?)
            && let Some((_, value)) =
                out.iter_mut().find(|(k, _)| *k == format!("{}.context_length", layout.architecture))
            && value.as_u64().is_some_and(|n| n > window as u64)
        {
            notes.push(shorter(window, value.as_u64().unwrap_or(0)));
            *value = GgufValue::U32(u32::try_from(window).unwrap_or(u32::MAX));
        }
        if let Some(now) = decoded.and_then(file_type)
            && let Some((_, value)) = out.iter_mut().find(|(k, _)| k == FILE_TYPE)
        {
            *value = GgufValue::U32(now);
        }
        return Ok(out);
    }
    made(model, form, main, notes)
}

/// llama.cpp's number for files whose matrices are of one plain type.
fn file_type(encoding: Encoding) -> Option<u32> {
    match encoding {
        Encoding::F32 => Some(0),
        Encoding::F16 => Some(1),
        Encoding::Bf16 => Some(32),
        _ => None,
    }
}

fn made(
    model: &Model,
    form: &StockForm,
    main: Option<Encoding>,
    notes: &mut Vec<String>,
) -> Result<Vec<(String, GgufValue)>> {
    let fields = Fields::new(&model.path, &form.config)?;
    let Some(family) = model.family() else { return Ok(Vec::new()) };
    let d = family.describe(&fields)?;
    let Some(layout) = family.gguf else { return Ok(Vec::new()) };
    let arch = layout.architecture;
    let text = |s: &str| GgufValue::String(s.to_owned());
    let size = |n: usize| GgufValue::U32(u32::try_from(n).unwrap_or(u32::MAX));
    let mut out = vec![
        ("general.architecture".to_owned(), text(arch)),
        ("general.type".to_owned(), text("model")),
        ("general.name".to_owned(), text(&crate::save::source_name(model))),
        ("general.quantization_version".to_owned(), GgufValue::U32(2)),
    ];
    if let Some(number) = main.and_then(file_type) {
        out.push((FILE_TYPE.to_owned(), GgufValue::U32(number)));
    }
    let mut put = |key: &str, value: GgufValue| out.push((format!("{arch}.{key}"), value));
    let key = if fields.get("n_positions").is_some() { "n_positions" } else { "max_position_embeddings" };
    let longest = fields.size_or(key, 2048)?;
    // Where llama.cpp has no windows, or other blocks have them: within the window the two agree.
    let window = layout.context(&d).filter(|w| *w < longest);
    if let Some(window) = window {
        notes.push(shorter(window, longest as u64));
    }
    let first = d.layers.first();
    put("block_count", size(d.layers.len()));
    put("context_length", size(window.unwrap_or(longest)));
    put("embedding_length", size(d.width));
    put("feed_forward_length", size(first.map_or(0, |l| l.feed_forward)));
    put("attention.head_count", size(first.map_or(0, |l| l.heads)));
    put("attention.head_count_kv", size(first.map_or(0, |l| l.kv_heads)));
    put("attention.key_length", size(d.head_dim));
    put("attention.value_length", size(d.head_dim));
    let eps = if d.norm == Norm::Layer { "layer_norm_epsilon" } else { "layer_norm_rms_epsilon" };
    put(&format!("attention.{eps}"), GgufValue::F32(d.eps as f32));
    for (key, value) in [("attn_logit_softcapping", d.softcap), ("final_logit_softcapping", d.logit_softcap)]
    {
        if let Some(value) = value {
            put(key, GgufValue::F32(value as f32));
        }
    }
    if layout.window_every.is_some() || layout.architecture == "phi3" {
        let window = d.layers.iter().find_map(|l| l.window);
        put("attention.sliding_window", size(window.unwrap_or(0)));
    }
    if layout.parallel_key {
        put("use_parallel_residual", GgufValue::Bool(matches!(d.order, Order::Parallel { .. })));
    }
    // The base of blocks that see everything, and beside it that of blocks with a window.
    let sees_all = d.layers.iter().find(|l| !l.slides).or(first);
    if let Some(rope) = sees_all.and_then(|l| l.rope.as_ref()) {
        put("rope.dimension_count", size(rope.rotary));
        put("rope.freq_base", GgufValue::F32(rope.theta as f32));
        if let RopeScaling::Linear { factor } = rope.scaling {
            put("rope.scaling.type", text("linear"));
            put("rope.scaling.factor", GgufValue::F32(factor as f32));
        }
    }
    if let Some(rope) = d.layers.iter().find(|l| l.slides && layout.window_base).and_then(|l| l.rope.as_ref())
    {
        put("rope.freq_base_swa", GgufValue::F32(rope.theta as f32));
    }
    put("vocab_size", size(d.vocab));
    match tokenizer(model)?.map(|t| t.gguf_metadata(d.vocab)) {
        Some(Ok(entries)) => out.extend(entries),
        None => notes.push("no tokenizer is written: there is no tokenizer.json".to_owned()),
        // A kind that llama.cpp does not have.
        Some(Err(e)) => notes.push(format!("no tokenizer is written: {e}")),
    }
    Ok(out)
}

fn shorter(window: usize, longest: u64) -> String {
    format!("the context is {window} tokens, the window of attention, instead of {longest}")
}

/// The model's tokenizer; none where it has none. A damaged one is an error: the output would lack what its source has.
fn tokenizer(model: &Model) -> Result<Option<Tokenizer>> {
    if !model.path.join("tokenizer.json").is_file() {
        return Ok(None);
    }
    Ok(Some(Tokenizer::from_dir(&model.path)?))
}

/// The tensor of rotary divisors that the file needs; none where the frequencies are plain.
pub(crate) fn rope_divisors(model: &Model, graph: &Graph) -> Option<Expr> {
    // Only files of Llama hold such a table.
    model.family()?.gguf.filter(|l| l.pairs)?;
    let rope = graph.nodes.iter().find_map(|n| if let Op::Rope(r) = &n.op { Some(r) } else { None })?;
    if model.checkpoint().is_some_and(|c| c.format() == Format::Gguf && c.get(ROPE_FREQS).is_some()) {
        return Some(Expr::copy(ROPE_FREQS));
    }
    let RopeAttrs { rotary, theta, scaling, .. } = rope;
    let values = match scaling {
        RopeScaling::Divisors { divisors } => divisors.iter().map(|d| *d as f32).collect(),
        other => llama3_divisors(other, *theta, rotary / 2)?,
    };
    Some(Expr::Literal { shape: vec![values.len()], values })
}

/// Divisors of the rotary frequencies under Llama 3's rule; none for other rules.
pub(super) fn llama3_divisors(scaling: &RopeScaling, theta: f64, pairs: usize) -> Option<Vec<f32>> {
    let &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = scaling else {
        return None;
    };
    let original = original_context as f64;
    let (long, short) = (original / low_freq_factor, original / high_freq_factor);
    let divisor = |i: usize| {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(i as f64 / pairs as f64);
        if wavelength < short {
            1.0
        } else if wavelength > long {
            factor
        } else {
            let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Some((0..pairs).map(|i| divisor(i) as f32).collect())
}

/// `rope_scaling` of a config for Llama 3's rule.
pub(super) fn llama3_config(scaling: &RopeScaling) -> Option<Value> {
    let &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = scaling else {
        return None;
    };
    Some(serde_json::json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low_freq_factor,
        "high_freq_factor": high_freq_factor,
        "original_max_position_embeddings": original_context,
    }))
}
