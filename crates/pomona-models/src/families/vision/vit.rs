//! Vision transformers of transformers: `vit` and `deit`.
//!
//! Sources: Dosovitskiy et al., arXiv:2010.11929; Touvron et al., arXiv:2012.12877. Input `pixel_values` `[batch, channels,
//! height, width]`. The classes with a head give `logits` `[batch, labels]` (of a distilled DeiT the mean of both heads),
//! the bare ones `last_hidden_state` `[batch, tokens, width]` and, with a pooler, `pooler_output`.

use pomona_graph::{Activation, BinaryFn, ConvAttrs, Graph, GraphBuilder, Op, Slot, ValueId};

use super::parts::{self, Picture};
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::{dtype, named_activation};

/// What differs between the two families.
struct Kind {
    /// Prefix of the encoder where it has a head.
    prefix: &'static str,
    class: &'static str,
    /// A second token behind the class token.
    distilled: bool,
}

const VIT: Kind = Kind { prefix: "vit", class: "ViT", distilled: false };
const DEIT: Kind = Kind { prefix: "deit", class: "DeiT", distilled: true };

pub(super) fn vit(c: &Fields<'_>) -> Result<Graph> {
    graph(c, &VIT)
}

pub(super) fn deit(c: &Fields<'_>) -> Result<Graph> {
    graph(c, &DEIT)
}

/// What stands behind the encoder.
#[derive(Clone, Copy, PartialEq)]
enum Head {
    None,
    Classifier,
    Distilled,
}

/// Sizes of the encoder.
struct Sizes {
    width: usize,
    heads: usize,
    head_dim: usize,
    inner: usize,
    eps: f64,
    activation: Activation,
    qkv_bias: bool,
    dropout: f64,
    class: &'static str,
}

fn graph(c: &Fields<'_>, kind: &Kind) -> Result<Graph> {
    let head = head(c, kind)?;
    let s = sizes(c, kind)?;
    let depth = if c.has("num_hidden_layers") { c.depth("num_hidden_layers")? } else { 12 };
    let picture = Picture {
        channels: c.size_or("num_channels", 3)?,
        sides: c.sides("image_size")?.unwrap_or([224; 2]),
    };
    let patch = c.sides("patch_size")?.unwrap_or([16; 2]);
    let grid = [picture.sides[0] / patch[0], picture.sides[1] / patch[1]];
    if grid.contains(&0) {
        let message = format!("is {patch:?}; the picture has only {:?}", picture.sides);
        return Err(c.fault("patch_size", message));
    }
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let prefix = if head == Head::None { String::new() } else { format!("{}.", kind.prefix) };
    let at = |name: &str| format!("{prefix}{name}");
    let x = parts::fixed_image(&mut b, picture);
    let mut x = embeddings(&mut b, &at("embeddings"), &s, kind, x, patch, grid)?;
    for i in 0..depth {
        x = layer(&mut b, &at(&format!("encoder.layer.{i}")), &s, x)?;
    }
    let x = b.layer_norm(&at("layernorm"), x, s.eps)?;
    match head {
        Head::None => {
            b.output("last_hidden_state", x);
            if c.flag_or("add_pooling_layer", true)? {
                let first = parts::select(&mut b, "pooler.first_token", x, 0)?;
                let width = c.size_or("pooler_output_size", s.width)?;
                let pooled = b.linear("pooler.dense", first, width, true)?;
                let function = named_activation(c, "pooler_act", "tanh")?;
                let pooled = b.activation("pooler.activation", function, pooled)?;
                b.output("pooler_output", pooled);
            }
        }
        Head::Classifier => {
            let first = parts::select(&mut b, &at("class_token"), x, 0)?;
            let logits = b.linear("classifier", first, super::labels(c)?, true)?;
            b.output(parts::LOGITS, logits);
        }
        Head::Distilled => {
            let labels = super::labels(c)?;
            let first = parts::select(&mut b, &at("class_token"), x, 0)?;
            let second = parts::select(&mut b, &at("distillation_token"), x, 1)?;
            let first = b.linear("cls_classifier", first, labels, true)?;
            let second = b.linear("distillation_classifier", second, labels, true)?;
            let sum = b.node("sum", Op::Binary { function: BinaryFn::Add }, &[first, second], &[])?;
            let half = Op::Scalar { function: BinaryFn::Div, value: 2.0, reversed: false };
            let mean = b.node("mean", half, &[sum], &[])?;
            b.output(parts::LOGITS, mean);
        }
    }
    Ok(b.finish()?)
}

fn head(c: &Fields<'_>, kind: &Kind) -> Result<Head> {
    let name = kind.class;
    let Some(class) = c.maybe_texts("architectures", 1)?.map(|a| a[0]) else { return Ok(Head::None) };
    match class.strip_prefix(name) {
        Some("Model") => Ok(Head::None),
        Some("ForImageClassification") => Ok(Head::Classifier),
        Some("ForImageClassificationWithTeacher") if kind.distilled => Ok(Head::Distilled),
        _ => {
            let more = if kind.distilled {
                format!(", {name}ForImageClassificationWithTeacher")
            } else {
                String::new()
            };
            Err(c.fault(
                "architectures",
                format!("is \"{class}\"; known are {name}Model, {name}ForImageClassification{more}"),
            ))
        }
    }
}

fn sizes(c: &Fields<'_>, kind: &Kind) -> Result<Sizes> {
    let width = c.size_or("hidden_size", 768)?;
    let heads = c.size_or("num_attention_heads", 12)?;
    let head_dim = match c.maybe_size("head_dim")? {
        Some(n) => n,
        None if width % heads == 0 => width / heads,
        None => {
            let message = format!("is {heads}; a divisor of hidden_size ({width}) was expected, or head_dim");
            return Err(c.fault("num_attention_heads", message));
        }
    };
    Ok(Sizes {
        width,
        heads,
        head_dim,
        inner: c.size_or("intermediate_size", 3072)?,
        eps: c.positive_or("layer_norm_eps", 1e-12)?,
        activation: named_activation(c, "hidden_act", "gelu")?,
        qkv_bias: c.flag_or("qkv_bias", true)?,
        dropout: super::rate(c, "hidden_dropout_prob", 0.0)?,
        class: kind.class,
    })
}

fn embeddings(
    b: &mut GraphBuilder,
    path: &str,
    s: &Sizes,
    kind: &Kind,
    image: ValueId,
    patch: [usize; 2],
    grid: [usize; 2],
) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, &format!("{}Embeddings", s.class));
    let attrs = ConvAttrs { stride: patch.to_vec(), ..ConvAttrs::square(1, 0) };
    let x = b.conv(&at("patch_embeddings.projection"), image, s.width, &patch, attrs)?;
    let x = parts::to_tokens(b, &at("patch_embeddings"), x)?;
    let mut tokens = vec![parts::token(b, &at("cls_token"), s.width)?];
    if kind.distilled {
        tokens.push(parts::token(b, &at("distillation_token"), s.width)?);
    }
    let count = tokens.len() + grid[0].saturating_mul(grid[1]);
    tokens.push(x);
    let x = b.node(&at("concat"), Op::Concat { axis: 1 }, &tokens, &[])?;
    let places = b.parameter(&at("position_embeddings"), &[1, count, s.width])?;
    let places = b.node(&at("position_embeddings"), Op::Constant {}, &[], &[(Slot::Weight, places)])?;
    let x = b.node(&at("add"), Op::Binary { function: BinaryFn::Add }, &[x, places], &[])?;
    parts::dropout(b, &at("dropout"), x, s.dropout)
}

fn layer(b: &mut GraphBuilder, path: &str, s: &Sizes, x: ValueId) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, &format!("{}Layer", s.class));
    b.module(&at("attention"), &format!("{}Attention", s.class));
    let h = b.layer_norm(&at("layernorm_before"), x, s.eps)?;
    let inside = |name: &str| format!("{path}.attention.attention.{name}");
    let q = b.linear(&inside("query"), h, s.heads * s.head_dim, s.qkv_bias)?;
    let k = b.linear(&inside("key"), h, s.heads * s.head_dim, s.qkv_bias)?;
    let v = b.linear(&inside("value"), h, s.heads * s.head_dim, s.qkv_bias)?;
    let h = b.node(&inside("attention"), parts::attention(s.heads, s.head_dim), &[q, k, v], &[])?;
    let h = b.linear(&at("attention.output.dense"), h, s.width, true)?;
    let h = parts::dropout(b, &at("attention.output.dropout"), h, s.dropout)?;
    let x = b.add(&at("attention_residual"), &[x, h])?;
    let h = b.layer_norm(&at("layernorm_after"), x, s.eps)?;
    let h = b.linear(&at("intermediate.dense"), h, s.inner, true)?;
    let h = b.activation(&at("intermediate.intermediate_act_fn"), s.activation, h)?;
    let h = b.linear(&at("output.dense"), h, s.width, true)?;
    let h = parts::dropout(b, &at("output.dropout"), h, s.dropout)?;
    b.add(&at("output_residual"), &[x, h])
}

/// A bare encoder's file has no prefix; one saved from a model with a head has it.
pub(super) fn other_names(name: &str) -> Vec<String> {
    match name.split_once('.') {
        Some(("vit" | "deit", rest)) => vec![rest.to_owned()],
        Some(("classifier" | "cls_classifier" | "distillation_classifier", _)) => Vec::new(),
        _ => vec![format!("vit.{name}"), format!("deit.{name}")],
    }
}
