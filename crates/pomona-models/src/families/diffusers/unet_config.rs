//! What the configs of `UNet2DConditionModel` and `UNet2DModel` say.

use pomona_graph::Activation;
use serde_json::Value;

use super::parts::Style;
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::named_activation;

/// Far more levels than a picture has halvings.
const MAX_LEVELS: usize = 16;
/// Far more resnets than any level has.
const MAX_LAYERS: usize = 64;

/// A U-Net of residual blocks with skips.
#[derive(Clone, Debug)]
pub(super) struct UNet {
    pub in_channels: usize,
    pub out_channels: usize,
    /// Sides of the default input.
    pub sample: Option<[usize; 2]>,
    pub style: Style,
    /// From the outermost to the innermost.
    pub levels: Vec<Level>,
    pub mid: Option<Mid>,
    /// The first activation of the time embedding and the last one of the network.
    pub activation: Activation,
    pub time: Time,
    pub classes: Classes,
    /// SDXL's second embedding.
    pub added: Option<Added>,
    pub downsample_padding: usize,
    pub linear_projection: bool,
    pub center_input: bool,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
}

/// A resolution: a down block and the up block across from it.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub width: usize,
    /// Resnets of the down block; the up block has one more.
    pub layers: usize,
    pub down: Mixing,
    pub up: Mixing,
    /// Heads of its transformers.
    pub heads: usize,
    /// Heads of its attentions over the pixels.
    pub pixel_heads: usize,
    /// Transformer blocks of an attention.
    pub depth: usize,
    /// Width of the text embedding that its cross-attentions read; 0 in an unconditional network.
    pub text: usize,
}

/// What stands behind each resnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mixing {
    None,
    /// Attention over the pixels.
    Pixels,
    /// A transformer that reads the text.
    Text,
}

/// The innermost part.
#[derive(Clone, Debug)]
pub(super) struct Mid {
    pub mixing: Mixing,
    /// Resnet, then as many pairs of attention and resnet.
    pub pairs: usize,
    /// What its residual sums are divided by.
    pub divisor: f64,
    /// Whether a pair has an attention.
    pub attention: bool,
}

/// The embedding of the time step.
#[derive(Clone, Debug)]
pub(super) struct Time {
    /// Features of the sinusoid.
    pub features: usize,
    pub width: usize,
    pub cosine_first: bool,
    pub shift: f64,
}

/// The embedding of a class, summed with that of the time step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Classes {
    None,
    /// A table of this many rows.
    Table(usize),
    /// A number, embedded like the time step.
    Timestep,
    /// The vector itself.
    Identity,
    /// A vector of this width through two linear layers.
    Projection(usize),
    /// A vector of this width through one linear layer.
    SimpleProjection(usize),
}

/// SDXL: pooled text and sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    /// Features of each size.
    pub features: usize,
    /// Width of everything together.
    pub input: usize,
}

/// Reads a config; `conditional` is the class with text.
pub(super) fn read(c: &Fields<'_>, conditional: bool) -> Result<UNet> {
    let default_widths: &[usize] = if conditional { &[320, 640, 1280, 1280] } else { &[224, 448, 672, 896] };
    let widths = c.sizes_or("block_out_channels", default_widths)?;
    let n = widths.len();
    if n == 0 || n > MAX_LEVELS {
        return Err(
            c.fault("block_out_channels", format!("has {n} entries; 1 to {MAX_LEVELS} were expected"))
        );
    }
    refuse_unknown(c)?;
    let (down, up) = mixings(c, n, conditional)?;
    let layers = c.each_size("layers_per_block", n, 2)?;
    let heads = heads(c, &widths, conditional)?;
    let depth = c.each_size("transformer_layers_per_block", n, 1)?;
    let text = if conditional { c.each_size("cross_attention_dim", n, 1280)? } else { vec![0; n] };
    if let Some(bad) = layers.iter().chain(&depth).find(|l| **l > MAX_LAYERS) {
        return Err(c.fault("layers_per_block", format!("is {bad}; at most {MAX_LAYERS} are built")));
    }
    let levels: Vec<Level> = (0..n)
        .map(|i| Level {
            width: widths[i],
            layers: layers[i],
            down: down[i],
            up: up[n - 1 - i],
            heads: heads[i].0,
            pixel_heads: heads[i].1,
            depth: depth[i],
            text: text[i],
        })
        .collect();
    let scale_shift = match c.text_or("resnet_time_scale_shift", "default")? {
        "default" => false,
        "scale_shift" => true,
        other => {
            let message = format!("is \"{other}\"; default and scale_shift are read");
            return Err(c.fault("resnet_time_scale_shift", message));
        }
    };
    let style = Style {
        groups: c.size_or("norm_num_groups", 32)?,
        eps: c.positive_or("norm_eps", 1e-5)?,
        activation: named_activation(c, "act_fn", "silu")?,
        dropout: share(c, "dropout")?,
        scale_shift,
    };
    let channels = if conditional { 4 } else { 3 };
    let time = Time {
        features: widths[0],
        width: c.size_or("time_embedding_dim", 4 * widths[0])?,
        cosine_first: c.flag_or("flip_sin_to_cos", true)?,
        shift: c.number_or("freq_shift", 0.0)?,
    };
    Ok(UNet {
        in_channels: c.size_or("in_channels", channels)?,
        out_channels: c.size_or("out_channels", channels)?,
        sample: c.sides("sample_size")?,
        activation: if conditional { style.activation } else { Activation::Silu },
        mid: mid(c, conditional)?,
        classes: classes(c)?,
        added: added(c)?,
        downsample_padding: c.count_or("downsample_padding", 1)?,
        linear_projection: c.flag_or("use_linear_projection", false)?,
        center_input: c.flag_or("center_input_sample", false)?,
        conv_in_kernel: odd(c, "conv_in_kernel")?,
        conv_out_kernel: odd(c, "conv_out_kernel")?,
        style,
        levels,
        time,
    })
}

/// A share between 0 and 1.
fn share(c: &Fields<'_>, key: &str) -> Result<f64> {
    let rate = c.number_or(key, 0.0)?;
    match (0.0..1.0).contains(&rate) {
        true => Ok(rate),
        false => Err(c.fault(key, format!("is {rate}; a share from 0 to below 1 was expected"))),
    }
}

fn odd(c: &Fields<'_>, key: &str) -> Result<usize> {
    let n = c.size_or(key, 3)?;
    match n % 2 == 1 && n < 64 {
        true => Ok(n),
        false => Err(c.fault(key, format!("is {n}; an odd number below 64 was expected"))),
    }
}

/// Settings of relatives that compute something else.
fn refuse_unknown(c: &Fields<'_>) -> Result<()> {
    for key in [
        "dual_cross_attention",
        "resnet_skip_time_act",
        "class_embeddings_concat",
        "mid_block_only_cross_attention",
    ] {
        if c.flag_or(key, false)? {
            return Err(c.fault(key, "is true, which is not read by this version"));
        }
    }
    for key in [
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
        "cross_attention_norm",
        "attn_norm_num_groups",
        "reverse_transformer_layers_per_block",
        "num_attention_heads",
    ] {
        if let Some(v) = c.get(key) {
            return Err(c.fault(key, format!("is {v}, which is not read by this version")));
        }
    }
    let any_cross =
        |v: &Value| v.as_bool() == Some(true) || v.as_array().is_some_and(|a| a.iter().any(|x| x == true));
    if c.get("only_cross_attention").is_some_and(any_cross) {
        return Err(c.fault("only_cross_attention", "is true, which is not read by this version"));
    }
    for (key, wanted) in [
        ("time_embedding_type", "positional"),
        ("attention_type", "default"),
        ("downsample_type", "conv"),
        ("upsample_type", "conv"),
    ] {
        let found = c.maybe_text(key)?.unwrap_or(wanted);
        if found != wanted {
            return Err(c.fault(key, format!("is \"{found}\"; {wanted} is read")));
        }
    }
    let scale = c.positive_or("resnet_out_scale_factor", 1.0)?;
    if scale != 1.0 {
        return Err(c.fault("resnet_out_scale_factor", format!("is {scale}; 1 is read")));
    }
    Ok(())
}

fn mixings(c: &Fields<'_>, n: usize, conditional: bool) -> Result<(Vec<Mixing>, Vec<Mixing>)> {
    let read = |key: &str, side: &str| -> Result<Vec<Mixing>> {
        let Some(names) = c.maybe_texts(key, n)? else {
            let inner = if conditional { Mixing::Text } else { Mixing::Pixels };
            let bare = if conditional == (side == "Down") { n - 1 } else { 0 };
            return Ok((0..n).map(|i| if i == bare { Mixing::None } else { inner }).collect());
        };
        let one = |name: &&str| {
            let plain = name.strip_prefix("UNetRes").unwrap_or(name);
            match plain.strip_suffix("Block2D").and_then(|p| p.strip_suffix(side)) {
                Some("") => Ok(Mixing::None),
                Some("Attn") => Ok(Mixing::Pixels),
                Some("CrossAttn") if conditional => Ok(Mixing::Text),
                _ => {
                    let cross = if conditional { format!(", CrossAttn{side}Block2D") } else { String::new() };
                    let known = format!("{side}Block2D, Attn{side}Block2D{cross}");
                    Err(c.fault(key, format!("has \"{name}\"; {known} are read")))
                }
            }
        };
        names.iter().map(one).collect()
    };
    Ok((read("down_block_types", "Down")?, read("up_block_types", "Up")?))
}

/// Heads of a transformer, and of an attention over the pixels: the field counts the heads of the former, whatever its
/// name says, and is the width of a head of the latter; null there means one head.
fn heads(c: &Fields<'_>, widths: &[usize], conditional: bool) -> Result<Vec<(usize, usize)>> {
    let key = "attention_head_dim";
    if c.has(key) && c.get(key).is_none() && !conditional {
        return Ok(vec![(1, 1); widths.len()]);
    }
    let given = c.each_size(key, widths.len(), 8)?;
    let heads = |(n, width): (&usize, &usize)| {
        let (text, pixels) = (*n, (width / n).max(1));
        let used = if conditional { text } else { pixels };
        if width % used != 0 {
            let message = format!("makes {used} heads of {width} channels, which do not divide them");
            return Err(c.fault(key, message));
        }
        Ok((text, pixels))
    };
    given.iter().zip(widths).map(heads).collect()
}

fn mid(c: &Fields<'_>, conditional: bool) -> Result<Option<Mid>> {
    let key = "mid_block_type";
    let divisor = c.positive_or("mid_block_scale_factor", 1.0)?;
    let default = if conditional { "UNetMidBlock2DCrossAttn" } else { "UNetMidBlock2D" };
    if c.has(key) && c.get(key).is_none() {
        return Ok(None);
    }
    match c.text_or(key, default)? {
        "UNetMidBlock2DCrossAttn" if conditional => {
            Ok(Some(Mid { mixing: Mixing::Text, pairs: 1, divisor, attention: true }))
        }
        "UNetMidBlock2D" if conditional => {
            Ok(Some(Mid { mixing: Mixing::None, pairs: 0, divisor, attention: false }))
        }
        "UNetMidBlock2D" => {
            let attention = c.flag_or("add_attention", true)?;
            Ok(Some(Mid { mixing: Mixing::Pixels, pairs: 1, divisor, attention }))
        }
        other => Err(c.fault(key, format!("is \"{other}\"; {default} and null are read"))),
    }
}

fn classes(c: &Fields<'_>) -> Result<Classes> {
    let width = || c.size("projection_class_embeddings_input_dim");
    Ok(match (c.maybe_text("class_embed_type")?, c.maybe_size("num_class_embeds")?) {
        (None, None) => Classes::None,
        (None, Some(n)) => Classes::Table(n),
        (Some("timestep"), _) => Classes::Timestep,
        (Some("identity"), _) => Classes::Identity,
        (Some("projection"), _) => Classes::Projection(width()?),
        (Some("simple_projection"), _) => Classes::SimpleProjection(width()?),
        (Some(other), _) => {
            let known = "timestep, identity, projection, simple_projection";
            return Err(c.fault("class_embed_type", format!("is \"{other}\"; {known} are read")));
        }
    })
}

fn added(c: &Fields<'_>) -> Result<Option<Added>> {
    match c.maybe_text("addition_embed_type")? {
        None => Ok(None),
        Some("text_time") => {
            let features = c.size("addition_time_embed_dim")?;
            Ok(Some(Added { features, input: c.size("projection_class_embeddings_input_dim")? }))
        }
        Some(other) => Err(c.fault("addition_embed_type", format!("is \"{other}\"; text_time is read"))),
    }
}
