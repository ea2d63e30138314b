//! BERT, a text encoder of post-norm blocks.
//!
//! Source: Devlin et al., arXiv:1810.04805. Inputs `input_ids`, `attention_mask` (1 where there is text) and
//! `token_type_ids`, integers `[batch, tokens]`. `BertModel` gives `last_hidden_state` `[batch, tokens, width]` and
//! `pooler_output` `[batch, width]`; the classes with a head give `logits`.

use pomona_graph::{Activation, BinaryFn, Dim, Graph, GraphBuilder, Op, Slot, ValueId, ValueType};

use super::parts;
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::{dtype, named_activation};

const CLASSES: &str = "BertModel, BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification";
/// What transformers adds to the logits of a masked key: the smallest f32.
const MASKED: f64 = f32::MIN as f64;

#[derive(Clone, Copy, PartialEq)]
enum Head {
    None,
    MaskedLm,
    Sequence,
    Token,
}

struct Sizes {
    width: usize,
    heads: usize,
    inner: usize,
    eps: f64,
    activation: Activation,
    dropout: f64,
}

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let head = head(c)?;
    let s = sizes(c)?;
    let depth = if c.has("num_hidden_layers") { c.depth("num_hidden_layers")? } else { 12 };
    let vocab = c.size_or("vocab_size", 30_522)?;
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let prefix = if head == Head::None { "" } else { "bert." };
    let at = |name: &str| format!("{prefix}{name}");
    let positions = c.size_or("max_position_embeddings", 512)?;
    b.default_size("tokens", positions.min(128));
    let text = vec![Dim::symbol("batch"), Dim::symbol("tokens")];
    let ids = b.input("input_ids", text.clone(), ValueType::Int);
    let mask = b.input("attention_mask", text.clone(), ValueType::Int);
    let types = b.input("token_type_ids", text, ValueType::Int);
    let mut x = embeddings(&mut b, c, &at("embeddings"), &s, ids, types)?;
    let mask = additive(&mut b, &at("encoder.mask"), mask)?;
    for i in 0..depth {
        x = layer(&mut b, &at(&format!("encoder.layer.{i}")), &s, x, mask)?;
    }
    match head {
        Head::None => {
            b.output("last_hidden_state", x);
            if c.flag_or("add_pooling_layer", true)? {
                let pooled = pooler(&mut b, "pooler", x, s.width)?;
                b.output("pooler_output", pooled);
            }
        }
        Head::Sequence => {
            let pooled = pooler(&mut b, "bert.pooler", x, s.width)?;
            classify(&mut b, c, &s, pooled)?;
        }
        Head::Token => classify(&mut b, c, &s, x)?,
        Head::MaskedLm => {
            let at = |name: &str| format!("cls.predictions.{name}");
            let h = b.linear(&at("transform.dense"), x, s.width, true)?;
            let h = b.activation(&at("transform.transform_act_fn"), s.activation, h)?;
            let h = b.layer_norm(&at("transform.LayerNorm"), h, s.eps)?;
            let decoder = at("decoder.weight");
            let weight = if c.flag_or("tie_word_embeddings", true)? {
                let words = b.parameter("bert.embeddings.word_embeddings.weight", &[vocab, s.width])?;
                b.alias(words, &decoder);
                words
            } else {
                b.parameter(&decoder, &[vocab, s.width])?
            };
            let bias = b.parameter(&at("bias"), &[vocab])?;
            b.alias(bias, &at("decoder.bias"));
            let logits =
                b.node(&at("decoder"), Op::Linear {}, &[h], &[(Slot::Weight, weight), (Slot::Bias, bias)])?;
            b.output(parts::LOGITS, logits);
        }
    }
    Ok(b.finish()?)
}

fn head(c: &Fields<'_>) -> Result<Head> {
    let class = c.maybe_texts("architectures", 1)?.map(|a| a[0]);
    Ok(match class {
        None | Some("BertModel") => Head::None,
        Some("BertForMaskedLM") => Head::MaskedLm,
        Some("BertForSequenceClassification") => Head::Sequence,
        Some("BertForTokenClassification") => Head::Token,
        Some(other) => return Err(c.fault("architectures", format!("is \"{other}\"; known are {CLASSES}"))),
    })
}

fn sizes(c: &Fields<'_>) -> Result<Sizes> {
    for key in ["is_decoder", "add_cross_attention"] {
        if c.flag_or(key, false)? {
            return Err(c.fault(key, "is true; only the encoder is known"));
        }
    }
    let places = c.text_or("position_embedding_type", "absolute")?;
    if places != "absolute" {
        return Err(c.fault("position_embedding_type", format!("is \"{places}\"; absolute was expected")));
    }
    let width = c.size_or("hidden_size", 768)?;
    let heads = c.size_or("num_attention_heads", 12)?;
    if width % heads != 0 {
        let message = format!("is {heads}; a divisor of hidden_size ({width}) was expected");
        return Err(c.fault("num_attention_heads", message));
    }
    Ok(Sizes {
        width,
        heads,
        inner: c.size_or("intermediate_size", 3072)?,
        eps: c.positive_or("layer_norm_eps", 1e-12)?,
        activation: named_activation(c, "hidden_act", "gelu")?,
        dropout: super::rate(c, "hidden_dropout_prob", 0.1)?,
    })
}

fn embeddings(
    b: &mut GraphBuilder,
    c: &Fields<'_>,
    path: &str,
    s: &Sizes,
    ids: ValueId,
    types: ValueId,
) -> Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, "BertEmbeddings");
    let words = b.embedding(&at("word_embeddings"), ids, c.size_or("vocab_size", 30_522)?, s.width)?;
    let kinds = c.size_or("type_vocab_size", 2)?;
    let kinds = b.embedding(&at("token_type_embeddings"), types, kinds, s.width)?;
    let range = b.node(&at("positions"), Op::Range { end: "tokens".into() }, &[], &[])?;
    let positions = c.size_or("max_position_embeddings", 512)?;
    let places = b.embedding(&at("position_embeddings"), range, positions, s.width)?;
    let sum = || Op::Binary { function: BinaryFn::Add };
    let x = b.node(&at("add_types"), sum(), &[words, kinds], &[])?;
    let x = b.node(&at("add_positions"), sum(), &[x, places], &[])?;
    let x = b.layer_norm(&at("LayerNorm"), x, s.eps)?;
    Ok(parts::dropout(b, &at("dropout"), x, s.dropout)?)
}

/// 1 and 0 of `[batch, tokens]` as 0 and the smallest number of `[batch, 1, 1, tokens]`.
fn additive(b: &mut GraphBuilder, path: &str, mask: ValueId) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    let x = b.node(&at("float"), Op::Cast { to: ValueType::Float }, &[mask], &[])?;
    let hidden = Op::Scalar { function: BinaryFn::Sub, value: 1.0, reversed: true };
    let x = b.node(&at("hidden"), hidden, &[x], &[])?;
    let low = Op::Scalar { function: BinaryFn::Mul, value: MASKED, reversed: false };
    let x = b.node(&at("low"), low, &[x], &[])?;
    let shape = vec![Dim::symbol("batch"), 1.into(), 1.into(), Dim::symbol("tokens")];
    b.node(&at("keys"), Op::Reshape { shape }, &[x], &[])
}

fn layer(
    b: &mut GraphBuilder,
    path: &str,
    s: &Sizes,
    x: ValueId,
    mask: ValueId,
) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, "BertLayer");
    b.module(&at("attention"), "BertAttention");
    let q = b.linear(&at("attention.self.query"), x, s.width, true)?;
    let k = b.linear(&at("attention.self.key"), x, s.width, true)?;
    let v = b.linear(&at("attention.self.value"), x, s.width, true)?;
    let attend = parts::attention(s.heads, s.width / s.heads);
    let h = b.node(&at("attention.self.attention"), attend, &[q, k, v, mask], &[])?;
    let h = b.linear(&at("attention.output.dense"), h, s.width, true)?;
    let h = parts::dropout(b, &at("attention.output.dropout"), h, s.dropout)?;
    let x = b.add(&at("attention.output.add"), &[x, h])?;
    let x = b.layer_norm(&at("attention.output.LayerNorm"), x, s.eps)?;
    let h = b.linear(&at("intermediate.dense"), x, s.inner, true)?;
    let h = b.activation(&at("intermediate.intermediate_act_fn"), s.activation, h)?;
    let h = b.linear(&at("output.dense"), h, s.width, true)?;
    let h = parts::dropout(b, &at("output.dropout"), h, s.dropout)?;
    let x = b.add(&at("output.add"), &[x, h])?;
    b.layer_norm(&at("output.LayerNorm"), x, s.eps)
}

fn pooler(b: &mut GraphBuilder, path: &str, x: ValueId, width: usize) -> pomona_graph::Result<ValueId> {
    let first = parts::select(b, &format!("{path}.first_token"), x, 0)?;
    let x = b.linear(&format!("{path}.dense"), first, width, true)?;
    b.activation(&format!("{path}.activation"), Activation::Tanh, x)
}

fn classify(b: &mut GraphBuilder, c: &Fields<'_>, s: &Sizes, x: ValueId) -> Result<()> {
    let rate = super::rate(c, "classifier_dropout", s.dropout)?;
    let x = parts::dropout(b, "dropout", x, rate)?;
    let logits = b.linear("classifier", x, super::labels(c)?, true)?;
    b.output(parts::LOGITS, logits);
    Ok(())
}

/// Files with and without the encoder's prefix; the first ones call the norms' tensors gamma and beta.
pub(super) fn other_names(name: &str) -> Vec<String> {
    let other = match name.strip_prefix("bert.") {
        Some(rest) => rest.to_owned(),
        None => format!("bert.{name}"),
    };
    let names = [name.to_owned(), other];
    let old = |n: &String| {
        let (module, last) = n.rsplit_once('.')?;
        let last = match last {
            "weight" => "gamma",
            "bias" => "beta",
            _ => return None,
        };
        module.ends_with("LayerNorm").then(|| format!("{module}.{last}"))
    };
    names.iter().skip(1).cloned().chain(names.iter().filter_map(old)).collect()
}
