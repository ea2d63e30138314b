//! Why llama.cpp could not run a model from GGUF.

use pomona_graph::RopeScaling;
use pomona_store::Format;

use super::import;
use super::layout::{Bias, Layout};
use crate::config::Fields;
use crate::decoder::{Decoder, Order};
use crate::error::Result;
use crate::families::Family;
use crate::model::Model;
use crate::stock::StockForm;

/// Reasons, a sentence each; empty where llama.cpp can run what is left.
pub(crate) fn refusals(model: &Model, form: &StockForm) -> Vec<String> {
    let found = model.family().filter(|_| !model.is_opaque()).and_then(|f| Some((f, f.gguf?)));
    let Some((family, layout)) = found else {
        return vec![format!("\"{}\" has no GGUF layout here", model.architecture)];
    };
    match described(model, family, form) {
        Ok(d) => reasons(&layout, &d),
        Err(e) => vec![e.to_string()],
    }
}

/// What is left, as the source describes it.
pub(super) fn described(model: &Model, family: &Family, form: &StockForm) -> Result<Decoder> {
    match model.checkpoint() {
        Some(file) if file.format() == Format::Gguf => import::cut_decoder(file, &form.kept),
        _ => family.describe(&Fields::new(&model.path, &form.config)?),
    }
}

fn reasons(layout: &Layout, d: &Decoder) -> Vec<String> {
    let mut out = Vec::new();
    let name = layout.architecture;
    if !layout.activations.contains(&d.activation) {
        out.push(format!(
            "its activation is {:?}; llama.cpp computes {:?} for {name}",
            d.activation, layout.activations[0]
        ));
    }
    let biases = [d.qkv_bias, d.out_bias, d.mlp_bias];
    for ((has, wanted), what) in
        biases.iter().zip(layout.biases).zip(["q, k, v", "attention's output", "the feed-forward part"])
    {
        match (has, wanted) {
            (true, Bias::Never) => {
                out.push(format!("{what} has biases, which llama.cpp does not read for {name}"))
            }
            (false, Bias::Always) => {
                out.push(format!("{what} has no biases, which llama.cpp asks for in {name}"))
            }
            _ => {}
        }
    }
    for (there, allowed, what) in [
        (d.softcap.is_some(), layout.softcap, "bounds its attention logits"),
        (d.logit_softcap.is_some(), layout.logit_softcap, "bounds its final logits"),
        (!d.tied, !layout.tied, "has a head of its own"),
        (!matches!(d.order, Order::Parallel { .. }), !layout.parallel, "has one branch behind the other"),
    ] {
        if there && !allowed {
            out.push(format!("it {what}, which llama.cpp does not do for {name}"));
        }
    }
    let wanted = layout.scale(d);
    if let Some(at) = d.layers.iter().position(|l| (l.scale - wanted).abs() > 1e-6 * wanted) {
        out.push(format!(
            "attention of block {at} is scaled by {:.6}; llama.cpp uses {wanted:.6} for {name} of {} blocks",
            d.layers[at].scale,
            d.layers.len()
        ));
    }
    // llama.cpp holds one table of divisors for files of Llama only.
    let divided = |l: &crate::decoder::Layer| {
        l.rope
            .as_ref()
            .is_some_and(|r| matches!(r.scaling, RopeScaling::Divisors { .. } | RopeScaling::Llama3 { .. }))
    };
    if name != "llama" && d.layers.iter().any(divided) {
        out.push(format!(
            "its rotary frequencies have divisors of their own, which are not written for {name}"
        ));
    }
    let scaled = |l: &crate::decoder::Layer| l.rope.as_ref().is_some_and(|r| r.scaling != RopeScaling::None);
    if let Some(at) = d.layers.iter().position(|l| layout.window_base && l.slides && scaled(l)) {
        out.push(format!(
            "block {at} has a window and scaled rotary positions, which llama.cpp scales for {name} in other blocks only"
        ));
    }
    let misplaced = layout.misplaced(d);
    if let (Some(first), true) = (misplaced.first(), layout.window_base) {
        let every = layout.window_every.unwrap_or(1);
        out.push(format!(
            "llama.cpp lets every {every}th block see everything, by its number, and turns it with another base: block \
             {first} of what is left is of the other kind; remove blocks so that the order of kinds stays, or use --format hf"
        ));
    }
    out
}
