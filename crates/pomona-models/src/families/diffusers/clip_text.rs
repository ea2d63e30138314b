//! CLIP's text encoder, `CLIPTextModel` and `CLIPTextModelWithProjection`.
//!
//! Source: Radford et al., arXiv:2103.00020. Input `input_ids` `[batch, tokens]`; outputs `last_hidden_state` `[batch,
//! tokens, width]`, `pooler_output` `[batch, width]` (the state at the end of the text), and with a projection
//! `text_embeds`.

use pomona_graph::{AttentionAttrs, BinaryFn, Dim, Graph, GraphBuilder, Op, ReduceFn, ValueId, ValueType};
use serde_json::Value;

use crate::config::Fields;
use crate::config_edit::cut_config;
use crate::error::Result;
use crate::families::common::{activation, dtype};
use crate::families::network::Stock;
use crate::opaque::{number_after, numbers};
use crate::stock::Renumbering;

const LAYERS: &str = "text_model.encoder.layers";

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let width = c.size_or("hidden_size", 512)?;
    let heads = c.size_or("num_attention_heads", 8)?;
    if width % heads != 0 {
        return Err(c.fault(
            "num_attention_heads",
            format!("is {heads}; a divisor of hidden_size ({width}) was expected"),
        ));
    }
    let inner = c.size_or("intermediate_size", 2048)?;
    let depth = if c.has("num_hidden_layers") { c.depth("num_hidden_layers")? } else { 12 };
    let positions = c.size_or("max_position_embeddings", 77)?;
    let (act, eps) = (activation(c, "quick_gelu")?, c.positive_or("layer_norm_eps", 1e-5)?);
    let mut b = GraphBuilder::new("model", dtype(c)?);
    b.default_size("tokens", positions);
    let (batch, tokens) = (Dim::symbol("batch"), Dim::symbol("tokens"));
    let ids = b.input("input_ids", vec![batch, tokens.clone()], ValueType::Int);
    b.module("text_model", "CLIPTextTransformer");
    let vocab = c.size_or("vocab_size", 49_408)?;
    let words = b.embedding("text_model.embeddings.token_embedding", ids, vocab, width)?;
    let range = b.node("text_model.embeddings.positions", Op::Range { end: tokens }, &[], &[])?;
    let places = b.embedding("text_model.embeddings.position_embedding", range, positions, width)?;
    let sum = Op::Binary { function: BinaryFn::Add };
    let mut x = b.node("text_model.embeddings.add", sum, &[words, places], &[])?;
    for i in 0..depth {
        let path = format!("{LAYERS}.{i}");
        let at = |name: &str| format!("{path}.{name}");
        b.module(&path, "CLIPEncoderLayer");
        let h = b.layer_norm(&at("layer_norm1"), x, eps)?;
        let h = attention(&mut b, &at("self_attn"), h, width, heads)?;
        x = b.add(&at("self_attn_residual"), &[x, h])?;
        let h = b.layer_norm(&at("layer_norm2"), x, eps)?;
        let h = b.linear(&at("mlp.fc1"), h, inner, true)?;
        let h = b.activation(&at("mlp.activation_fn"), act, h)?;
        let h = b.linear(&at("mlp.fc2"), h, width, true)?;
        x = b.add(&at("mlp_residual"), &[x, h])?;
    }
    let x = b.layer_norm("text_model.final_layer_norm", x, eps)?;
    b.output("last_hidden_state", x);
    let pooled = pooled(&mut b, ids, x, c.count_or("eos_token_id", 49_407)?)?;
    b.output("pooler_output", pooled);
    if projects(c)? {
        let embeds = b.linear("text_projection", pooled, c.size_or("projection_dim", 512)?, false)?;
        b.output("text_embeds", embeds);
    }
    Ok(b.finish()?)
}

fn projects(c: &Fields<'_>) -> Result<bool> {
    let class = c.maybe_texts("architectures", 1)?.map(|a| a[0]);
    Ok(class == Some("CLIPTextModelWithProjection"))
}

fn attention(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    width: usize,
    heads: usize,
) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, "CLIPAttention");
    let q = b.linear(&at("q_proj"), x, width, true)?;
    let k = b.linear(&at("k_proj"), x, width, true)?;
    let v = b.linear(&at("v_proj"), x, width, true)?;
    let attrs = AttentionAttrs {
        heads,
        kv_heads: heads,
        scale: 1.0 / ((width / heads) as f64).sqrt(),
        causal: true,
        window: None,
        softcap: None,
    };
    let a = b.node(&at("attention"), Op::Attention(attrs), &[q, k, v], &[])?;
    b.linear(&at("out_proj"), a, width, true)
}

/// The state at the end of each text: at the first end token, or where the config's end token is 2, as old configs have it
/// by mistake, at the token with the highest number.
fn pooled(b: &mut GraphBuilder, ids: ValueId, x: ValueId, end: usize) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("text_model.pooler.{name}");
    let (batch, tokens) = (Dim::symbol("batch"), Dim::symbol("tokens"));
    let found = match end {
        2 => ids,
        _ => {
            let equal = Op::Scalar { function: BinaryFn::Equal, value: end as f64, reversed: false };
            let is_end = b.node(&at("is_end"), equal, &[ids], &[])?;
            b.node(&at("is_end_number"), Op::Cast { to: ValueType::Int }, &[is_end], &[])?
        }
    };
    let place = b.node(&at("place"), Op::ArgMax { axis: 1, keep: true }, &[found], &[])?;
    let range = b.node(&at("range"), Op::Range { end: tokens.clone() }, &[], &[])?;
    let here = b.node(&at("here"), Op::Binary { function: BinaryFn::Equal }, &[range, place], &[])?;
    let mask = b.node(&at("mask"), Op::Cast { to: ValueType::Float }, &[here], &[])?;
    let shape = vec![batch, tokens, 1.into()];
    let mask = b.node(&at("mask_column"), Op::Reshape { shape }, &[mask], &[])?;
    let masked = b.node(&at("masked"), Op::Binary { function: BinaryFn::Mul }, &[x, mask], &[])?;
    let sum = Op::Reduce { function: ReduceFn::Sum, axes: vec![1], keep: false };
    b.node(&at("state"), sum, &[masked], &[])
}

/// Newer versions of the library save the encoder without its outer module.
pub(super) fn other_names(name: &str) -> Vec<String> {
    name.strip_prefix("text_model.").map(str::to_owned).into_iter().collect()
}

/// Fewer layers are a smaller `num_hidden_layers`.
pub(super) fn stock(config: &Value, before: &Graph, edited: &Graph) -> Stock {
    let all: Vec<usize> = numbers(before, LAYERS).into_iter().collect();
    let mut left = numbers(edited, LAYERS);
    left.extend(edited.nodes.iter().filter_map(|n| number_after(&n.path, LAYERS)));
    if left.is_empty() {
        return Err(vec!["no layer is left".to_owned()]);
    }
    let kept: Vec<usize> = (0..all.len()).filter(|i| left.contains(&all[*i])).collect();
    let config = cut_config(config, &["num_hidden_layers"], all.len(), &kept);
    Ok((config, Renumbering::blocks(LAYERS, 0, left)))
}
