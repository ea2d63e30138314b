//! Vision transformers under timm's names: `vit_*` and `deit_*`, the queries, keys and values of a block in one matrix.
//!
//! Sources: Dosovitskiy et al., arXiv:2010.11929; Touvron et al., arXiv:2012.12877. Input `pixel_values` `[batch, channels,
//! height, width]`, output `logits` `[batch, classes]`. Options, in `model_args` or beside the architecture: `patch_size`,
//! `embed_dim`, `depth`, `num_heads`, `mlp_ratio`, `qkv_bias`, `img_size`, `in_chans`, `global_pool` (`token` or `avg`).

use pomona_graph::{
    Activation, BinaryFn, ConvAttrs, Dim, Graph, GraphBuilder, Op, ReduceFn, Slot, SplitMap, ValueId,
};
use serde_json::{Value, json};

use super::parts;
use crate::config::Fields;
use crate::config_edit::cut_config;
use crate::error::Result;
use crate::families::common::dtype;
use crate::families::network::Stock;
use crate::opaque::{number_after, numbers};
use crate::stock::Renumbering;

pub(super) const NAMES: &[&str] = &[
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_384",
    "vit_small_patch32_224",
    "vit_small_patch32_384",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_small_patch8_224",
    "vit_base_patch32_224",
    "vit_base_patch32_384",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch8_224",
    "vit_large_patch32_224",
    "vit_large_patch32_384",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "deit_base_patch16_384",
    "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit_base_distilled_patch16_384",
];
const EPS: f64 = 1e-6;
const BLOCKS: &str = "blocks";

struct Sizes {
    width: usize,
    heads: usize,
    inner: usize,
    qkv_bias: bool,
}

/// Width, depth and heads of a size's name.
fn named(name: &str) -> (usize, usize, usize) {
    match name.split('_').nth(1) {
        Some("tiny") => (192, 12, 3),
        Some("small") => (384, 12, 6),
        Some("large") => (1024, 24, 16),
        _ => (768, 12, 12),
    }
}

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let name = c.text_or("architecture", "")?;
    let (width, depth, heads) = named(name);
    let last = |i: usize| name.rsplit('_').nth(i).map(|p| p.trim_start_matches("patch"));
    let side = last(0).and_then(|s| s.parse().ok()).unwrap_or(224);
    let patch = last(1).and_then(|s| s.parse().ok()).unwrap_or(16);
    let (distilled, s) = (name.contains("distilled"), sizes(c, width, heads)?);
    let picture = parts::picture(c, side)?;
    let patch = parts::holder(c, "patch_size")?.sides("patch_size")?.unwrap_or([patch; 2]);
    let count = (picture.sides[0] / patch[0]).saturating_mul(picture.sides[1] / patch[1]);
    if count == 0 {
        return Err(c.fault("patch_size", format!("is {patch:?}; the picture has only {:?}", picture.sides)));
    }
    let pool = parts::holder(c, "global_pool")?.text_or("global_pool", "token")?;
    if !matches!(pool, "token" | "avg") || (pool == "avg" && distilled) {
        return Err(
            c.fault("global_pool", format!("is \"{pool}\"; token or avg (not with distilled) is known"))
        );
    }
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let x = parts::fixed_image(&mut b, picture);
    let attrs = ConvAttrs { stride: patch.to_vec(), ..ConvAttrs::square(1, 0) };
    let x = b.conv("patch_embed.proj", x, s.width, &patch, attrs)?;
    let x = parts::to_tokens(&mut b, "patch_embed", x)?;
    let mut tokens = vec![parts::token(&mut b, "cls_token", s.width)?];
    if distilled {
        tokens.push(parts::token(&mut b, "dist_token", s.width)?);
    }
    let prefix = tokens.len();
    tokens.push(x);
    let x = b.node("tokens", Op::Concat { axis: 1 }, &tokens, &[])?;
    let places = b.parameter("pos_embed", &[1, prefix + count, s.width])?;
    let places = b.node("pos_embed", Op::Constant {}, &[], &[(Slot::Weight, places)])?;
    let sum = || Op::Binary { function: BinaryFn::Add };
    let mut x = b.node("pos_add", sum(), &[x, places], &[])?;
    for i in 0..parts::bounded_depth(c, "depth", depth)? {
        x = block(&mut b, &format!("{BLOCKS}.{i}"), &s, x)?;
    }
    let classes = parts::classes(c, 1000)?;
    let logits = match pool {
        "avg" => {
            let end = b.shape(x)[1].clone();
            let patches = Op::Slice { axis: 1, start: prefix.into(), end, step: 1 };
            let x = b.node("pool.patches", patches, &[x], &[])?;
            let mean = Op::Reduce { function: ReduceFn::Mean, axes: vec![1], keep: false };
            let x = b.node("pool", mean, &[x], &[])?;
            let x = b.layer_norm("fc_norm", x, EPS)?;
            b.linear("head", x, classes, true)?
        }
        _ => {
            let x = b.layer_norm("norm", x, EPS)?;
            let first = parts::select(&mut b, "class_token", x, 0)?;
            let logits = b.linear("head", first, classes, true)?;
            if distilled {
                let second = parts::select(&mut b, "distillation_token", x, 1)?;
                let second = b.linear("head_dist", second, classes, true)?;
                let both = b.node("heads_sum", sum(), &[logits, second], &[])?;
                let half = Op::Scalar { function: BinaryFn::Div, value: 2.0, reversed: false };
                b.node("heads_mean", half, &[both], &[])?
            } else {
                logits
            }
        }
    };
    b.output(parts::LOGITS, logits);
    Ok(b.finish()?)
}

fn sizes(c: &Fields<'_>, width: usize, heads: usize) -> Result<Sizes> {
    let width = parts::option_or(c, "embed_dim", width)?;
    let heads = parts::option_or(c, "num_heads", heads)?;
    if width % heads != 0 {
        let message = format!("is {heads}; a divisor of embed_dim ({width}) was expected");
        return Err(c.fault("num_heads", message));
    }
    let ratio = parts::holder(c, "mlp_ratio")?.positive_or("mlp_ratio", 4.0)?;
    let inner = width as f64 * ratio;
    if !(1.0..1e9).contains(&inner) {
        return Err(c.fault("mlp_ratio", format!("is {ratio}, which gives {inner} channels")));
    }
    Ok(Sizes { width, heads, inner: inner as usize, qkv_bias: parts::flag_option_or(c, "qkv_bias", true)? })
}

fn block(b: &mut GraphBuilder, path: &str, s: &Sizes, x: ValueId) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, "Block");
    b.module(&at("attn"), "Attention");
    b.module(&at("mlp"), "Mlp");
    let h = b.layer_norm(&at("norm1"), x, EPS)?;
    let h = b.linear(&at("attn.qkv"), h, 3 * s.width, s.qkv_bias)?;
    let map = SplitMap::Parts { sizes: vec![Dim::from(s.width); 3] };
    let parts_of = b.node_multi(&at("attn.parts"), Op::Split { axis: 2, map }, &[h], &[])?;
    let attend = parts::attention(s.heads, s.width / s.heads);
    let h = b.node(&at("attn.attention"), attend, &parts_of, &[])?;
    let h = b.linear(&at("attn.proj"), h, s.width, true)?;
    let x = b.add(&at("attn_residual"), &[x, h])?;
    let h = b.layer_norm(&at("norm2"), x, EPS)?;
    let h = b.linear(&at("mlp.fc1"), h, s.inner, true)?;
    let h = b.activation(&at("mlp.act"), Activation::Gelu, h)?;
    let h = b.linear(&at("mlp.fc2"), h, s.width, true)?;
    b.add(&at("mlp_residual"), &[x, h])
}

/// Fewer blocks are a smaller `depth`, another hidden width another `mlp_ratio`, in the arguments that timm builds the
/// network with.
pub(super) fn stock(config: &Value, before: &Graph, edited: &Graph) -> Stock {
    let all: Vec<usize> = numbers(before, BLOCKS).into_iter().collect();
    let mut left = numbers(edited, BLOCKS);
    left.extend(edited.nodes.iter().filter_map(|n| number_after(&n.path, BLOCKS)));
    let Some(first) = left.first() else { return Err(vec!["no block is left".to_owned()]) };
    let kept: Vec<usize> = (0..all.len()).filter(|i| left.contains(&all[*i])).collect();
    let mut config = cut_config(config, &[], all.len(), &kept);
    let mut args = config.get("model_args").cloned().unwrap_or_else(|| json!({}));
    let size = |name: String, axis: usize| {
        let tensor = edited.tensor(edited.find_tensor(&name)?);
        tensor.shape.get(axis).copied()
    };
    let mut set = |key: &str, value: Value, default: bool| {
        // An option beside the architecture stays there.
        let place = if config.get(key).is_some() { &mut config } else { &mut args };
        if !default || place.get(key).is_some() {
            place[key] = value;
        }
    };
    set("depth", json!(left.len()), left.len() == all.len());
    let tokens = |g: &Graph| g.find_tensor("cls_token").and_then(|t| g.tensor(t).shape.last().copied());
    if let (Some(width), Some(inner)) = (tokens(edited), size(format!("{BLOCKS}.{first}.mlp.fc1.weight"), 0))
    {
        set("embed_dim", json!(width), tokens(before) == Some(width));
        // The product is rounded down: a little more than the quotient gives the width back.
        let ratio = (inner as f64 + 0.25) / width as f64;
        let plain = inner as f64 / width as f64;
        let exact = (width as f64 * plain) as usize == inner;
        set("mlp_ratio", json!(if exact { plain } else { ratio }), inner == 4 * width);
    }
    let heads = |g: &Graph| {
        g.nodes.iter().find_map(|n| match &n.op {
            Op::Attention(a) => Some(a.heads),
            _ => None,
        })
    };
    if let Some(n) = heads(edited) {
        set("num_heads", json!(n), heads(before) == Some(n));
    }
    if args.as_object().is_some_and(|a| !a.is_empty()) {
        config["model_args"] = args;
    }
    Ok((config, Renumbering::blocks(BLOCKS, 0, left)))
}
