//! The decoder-only transformer that the language families share: a description, and the graph that it means.
//!
//! A family says what differs from Llama: which norms stand where, how q, k and v are laid out, where positions come
//! from. What can differ from block to block is in [`Layer`].

mod attention;
mod experts;
mod feed_forward;
mod graph;
mod names;

use pomona_graph::{Activation, RopeScaling};

pub(crate) use experts::Experts;
pub(crate) use names::{LLAMA, Names};

/// A decoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decoder {
    /// Class of a block, for people (`LlamaDecoderLayer`).
    pub class: &'static str,
    pub names: &'static Names,
    pub vocab: usize,
    pub width: usize,
    pub head_dim: usize,
    pub norm: Norm,
    pub eps: f64,
    pub order: Order,
    pub activation: Activation,
    /// Whether the feed-forward part is `down(act(gate(x)) * up(x))`; else `down(act(up(x)))`.
    pub gated: bool,
    /// Gate and up are one matrix.
    pub gate_up_fused: bool,
    pub qkv: Qkv,
    pub qk_norm: QkNorm,
    pub softcap: Option<f64>,
    /// Learned positions: rows of the table, and what is added to a position.
    pub positions: Option<Positions>,
    /// Factor of the embedding.
    pub embed_scale: Option<f64>,
    /// Width of the embedding and of what the head reads, where it is not the stream's.
    pub embed_width: Option<usize>,
    /// Whether a norm stands behind the last block.
    pub final_norm: bool,
    pub logit_softcap: Option<f64>,
    /// The head reads the embedding's tensor.
    pub tied: bool,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
    pub layers: Vec<Layer>,
}

/// What can differ from block to block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layer {
    pub heads: usize,
    pub kv_heads: usize,
    pub feed_forward: usize,
    pub window: Option<usize>,
    /// Whether the block is of the kind that has a window, be it switched off.
    pub slides: bool,
    /// Factor of the attention logits.
    pub scale: f64,
    pub rope: Option<Rope>,
    /// A mixture of experts instead of the feed-forward part.
    pub experts: Option<Experts>,
}

/// The norm that the family uses throughout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Norm {
    /// RMSNorm; with `offset` 1 the stored weight is a difference from one.
    Rms { offset: f64 },
    /// LayerNorm with weight and bias.
    Layer,
}

/// Where norms stand, and how the two branches join the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `x + f(norm(x))`
    Pre,
    /// `x + norm(f(x))`
    Post,
    /// `x + norm(f(norm(x)))`
    Both,
    /// `norm(x + f(x))`
    AfterJoin,
    /// `x + attention(norm(x)) + mlp(norm(x))`, with one norm for both branches or one each.
    Parallel { shared: bool },
}

/// How q, k and v come from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qkv {
    /// Three matrices.
    Apart,
    /// One matrix: all of q, all of k, all of v.
    Parts,
    /// One matrix: for each head of k its heads of q, itself, its v.
    ByHead,
}

/// Norms of q and k before they are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QkNorm {
    None,
    /// One weight of a head's width for all heads.
    Head,
    /// Over all heads together.
    Whole,
}

/// A table of learned positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    pub rows: usize,
    pub offset: usize,
}

/// Rotary embedding of a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    /// Channels of a head that turn.
    pub rotary: usize,
    pub theta: f64,
    pub scaling: RopeScaling,
}

impl Decoder {
    /// Factor of the attention logits that a head's width asks for.
    pub(crate) fn plain_scale(head_dim: usize) -> f64 {
        1.0 / (head_dim as f64).sqrt()
    }
}
