//! What the decoder families read in the same way.

use pomona_graph::{Activation, RopeScaling};

use super::rope;
use crate::config::Fields;
use crate::decoder::{Decoder, LLAMA, Layer, Names, Norm, Order, QkNorm, Qkv, Rope};
use crate::error::Result;

/// Keys of config.json and defaults. A family says where it departs from [`Reading::LLAMA`].
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    /// Class of a block.
    pub class: &'static str,
    pub names: &'static Names,
    pub width: &'static str,
    pub depth: &'static str,
    pub heads: &'static str,
    /// Key of the number of key heads; empty where there are as many as heads.
    pub kv_heads: &'static str,
    /// Where the key is missing; none: as many as heads.
    pub kv_default: Option<usize>,
    pub feed_forward: &'static str,
    /// Multiple of the width where the key is missing or null; none: the key must be there.
    pub feed_forward_times: Option<usize>,
    /// Where `head_dim` is missing; none: width / heads.
    pub head_dim: Option<usize>,
    pub norm: Norm,
    pub eps: (&'static str, f64),
    pub activation: (&'static str, &'static str),
    pub tied: bool,
    /// Rotary positions that are the same in every block.
    pub rope: Option<RopeKeys>,
}

/// Keys and defaults of rotary positions.
#[derive(Clone, Copy)]
pub(crate) struct RopeKeys {
    pub theta: &'static str,
    pub theta_default: f64,
    /// Key of the share of a head that turns, and its default; none where whole heads turn.
    pub partial: Option<(&'static str, f64)>,
    /// Whether the rule `longrope` is read; the family scales its attention then.
    pub longrope: bool,
}

impl RopeKeys {
    pub(super) const WHOLE: RopeKeys =
        RopeKeys { theta: "rope_theta", theta_default: 10_000.0, partial: None, longrope: false };
}

impl Reading {
    pub(crate) const LLAMA: Reading = Reading {
        class: "LlamaDecoderLayer",
        names: &LLAMA,
        width: "hidden_size",
        depth: "num_hidden_layers",
        heads: "num_attention_heads",
        kv_heads: "num_key_value_heads",
        kv_default: None,
        feed_forward: "intermediate_size",
        feed_forward_times: None,
        head_dim: None,
        norm: Norm::Rms { offset: 0.0 },
        eps: ("rms_norm_eps", 1e-6),
        activation: ("hidden_act", "silu"),
        tied: false,
        rope: Some(RopeKeys::WHOLE),
    };

    /// Reads the keys that every family has, into a decoder like Llama's; windows are the families' own.
    pub(super) fn read(&self, c: &Fields<'_>) -> Result<Decoder> {
        let depth = c.depth(self.depth)?;
        let width = c.size(self.width)?;
        let heads = c.size(self.heads)?;
        let kv_heads = self.kv_heads(c, heads)?;
        let head_dim = match (c.maybe_size("head_dim")?, self.head_dim) {
            (Some(n), _) => n,
            (None, Some(n)) if !c.has("head_dim") => n,
            _ if width % heads == 0 => width / heads,
            _ => {
                let message =
                    format!("is {width}; a multiple of {} ({heads}) was expected, or head_dim", self.heads);
                return Err(c.fault(self.width, message));
            }
        };
        let rope = match &self.rope {
            Some(keys) => {
                let found = rope::read(c, keys, head_dim)?;
                Some(turning(c, head_dim, found.partial, found.theta, found.scaling)?)
            }
            None => None,
        };
        let feed_forward = match (c.maybe_size(self.feed_forward)?, self.feed_forward_times) {
            (None, Some(times)) => times * width,
            _ => c.size(self.feed_forward)?,
        };
        let scale = Decoder::plain_scale(head_dim);
        let layer =
            Layer { heads, kv_heads, feed_forward, window: None, slides: false, scale, rope, experts: None };
        Ok(Decoder {
            class: self.class,
            names: self.names,
            vocab: c.size("vocab_size")?,
            width,
            head_dim,
            norm: self.norm,
            eps: c.positive_or(self.eps.0, self.eps.1)?,
            order: Order::Pre,
            activation: named_activation(c, self.activation.0, self.activation.1)?,
            gated: true,
            gate_up_fused: false,
            qkv: Qkv::Apart,
            qk_norm: QkNorm::None,
            softcap: None,
            positions: None,
            embed_scale: None,
            embed_width: None,
            final_norm: true,
            logit_softcap: None,
            tied: c.flag_or("tie_word_embeddings", self.tied)?,
            qkv_bias: false,
            out_bias: false,
            mlp_bias: false,
            layers: vec![layer; depth],
        })
    }

    fn kv_heads(&self, c: &Fields<'_>, heads: usize) -> Result<usize> {
        if self.kv_heads.is_empty() {
            return Ok(heads);
        }
        // A null means "as many as heads", a missing key the family's default.
        let default = if c.has(self.kv_heads) { None } else { self.kv_default };
        let kv_heads = c.size_or(self.kv_heads, default.unwrap_or(heads))?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(c.fault(
                self.kv_heads,
                format!("is {kv_heads}; a divisor of {} ({heads}) was expected", self.heads),
            ));
        }
        Ok(kv_heads)
    }
}

/// Rotary positions of a share of each head.
pub(super) fn turning(
    c: &Fields<'_>,
    head_dim: usize,
    partial: f64,
    theta: f64,
    scaling: RopeScaling,
) -> Result<Rope> {
    let rotary = (head_dim as f64 * partial) as usize;
    if rotary == 0 || !rotary.is_multiple_of(2) || rotary > head_dim {
        let (key, of) = match partial == 1.0 {
            true => ("head_dim", String::new()),
            false => ("partial_rotary_factor", format!(" of {head_dim} channels a head")),
        };
        return Err(c.fault(key, format!("is {rotary}{of}; rotary attention needs an even number")));
    }
    Ok(Rope { rotary, theta, scaling })
}

/// Refuses a setting that changes the computation in a way that is not built.
pub(super) fn only(c: &Fields<'_>, key: &str, wanted: bool) -> Result<()> {
    match c.flag_or(key, wanted)? {
        found if found == wanted => Ok(()),
        found => Err(c.fault(key, format!("is {found}; only {wanted} is read for this model_type"))),
    }
}

/// An activation by the name that transformers, diffusers and timm have for it.
pub(super) fn named_activation(c: &Fields<'_>, key: &str, default: &'static str) -> Result<Activation> {
    Ok(match c.text_or(key, default)? {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        "tanh" => Activation::Tanh,
        "mish" => Activation::Mish,
        other => {
            let known = "silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, relu, tanh, mish";
            return Err(c.fault(key, format!("is \"{other}\"; known are {known}")));
        }
    })
}

/// `hidden_act` of transformers configs.
pub(super) fn activation(c: &Fields<'_>, default: &'static str) -> Result<Activation> {
    named_activation(c, "hidden_act", default)
}

/// The type that the config gives its weights (`f32` where it gives none).
pub(super) fn dtype(c: &Fields<'_>) -> Result<&'static str> {
    let key = if c.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    Ok(match c.text_or(key, "float32")?.trim_start_matches("torch.") {
        "float32" | "float" => "f32",
        "float16" | "half" => "f16",
        "bfloat16" => "bf16",
        "float64" => "f64",
        "auto" => "f32",
        other => {
            return Err(
                c.fault(key, format!("is \"{other}\"; float32, float16, bfloat16 or float64 was expected"))
            );
        }
    })
}
