//! What the decoder families read in the same way.

use pomona_graph::Activation;

use super::rope;
use crate::config::Fields;
use crate::decoder::{Decoder, Layer};
use crate::error::Result;

/// Where a family departs from the shared reading.
pub(super) struct Traits {
    pub class: &'static str,
    /// `num_key_value_heads` where the key is missing; none: as many as heads.
    pub default_kv_heads: Option<usize>,
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
}

/// Reads the keys that every family has; windows are the families' own.
pub(super) fn read(c: &Fields<'_>, traits: Traits) -> Result<Decoder> {
    let depth = c.depth("num_hidden_layers")?;
    let width = c.size("hidden_size")?;
    let heads = c.size("num_attention_heads")?;
    // A null means "as many as heads", a missing key the family's default.
    let kv_default = if c.has("num_key_value_heads") { None } else { traits.default_kv_heads };
    let kv_heads = c.size_or("num_key_value_heads", kv_default.unwrap_or(heads))?;
    if heads % kv_heads != 0 {
        return Err(c.fault(
            "num_key_value_heads",
            format!("is {kv_heads}; a divisor of num_attention_heads ({heads}) was expected"),
        ));
    }
    let head_dim = match c.maybe_size("head_dim")? {
        Some(n) => n,
        None if width % heads == 0 => width / heads,
        None => {
            return Err(c.fault(
                "hidden_size",
                format!("is {width}; a multiple of num_attention_heads ({heads}) was expected, or head_dim"),
            ));
        }
    };
    if head_dim % 2 != 0 {
        return Err(c.fault("head_dim", format!("is {head_dim}; rotary attention needs an even number")));
    }
    let rope = rope::read(c)?;
    let feed_forward = c.size("intermediate_size")?;
    let layer = Layer { heads, kv_heads, feed_forward, window: None };
    Ok(Decoder {
        class: traits.class,
        vocab: c.size("vocab_size")?,
        width,
        head_dim,
        eps: c.positive_or("rms_norm_eps", 1e-6)?,
        activation: activation(c, "silu")?,
        rope_theta: rope.theta,
        rope_scaling: rope.scaling,
        tied: c.flag_or("tie_word_embeddings", false)?,
        qkv_bias: traits.qkv_bias,
        out_bias: traits.out_bias,
        mlp_bias: traits.mlp_bias,
        layers: vec![layer; depth],
    })
}

/// `hidden_act` of transformers configs.
pub(super) fn activation(c: &Fields<'_>, default: &'static str) -> Result<Activation> {
    named_activation(c, "hidden_act", default)
}

/// An activation by the name that transformers, diffusers and timm have for it.
pub(super) fn named_activation(c: &Fields<'_>, key: &str, default: &'static str) -> Result<Activation> {
    Ok(match c.text_or(key, default)? {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        "tanh" => Activation::Tanh,
        "mish" => Activation::Mish,
        other => {
            let known = "silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, tanh, mish";
            return Err(c.fault(key, format!("is \"{other}\"; known are {known}")));
        }
    })
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
