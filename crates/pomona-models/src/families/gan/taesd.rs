//! Tiny auto-encoders as two state dicts, encoder and decoder: TAESD and its kin for other latents (`taef1`, `taef2`).
//!
//! Source: O. Bohan's `taesd`; module names are the positions in its two `Sequential`s. Three convolutions around the identity
//! make a block; in `taef2` the three blocks at the latent's resolution first add a 1x1 branch with a norm of four groups
//! (`mid_pool`), which diffusers' `AutoencoderTiny` has not. Encoder: `image` `[batch, 3, height, width]`, 0 to 1, to `latent`;
//! decoder: `latent` to `image`, about 0 to 1.

use pomona_graph::{Activation, BinaryFn, ConvAttrs, Dim, Graph, GraphBuilder, Op, ValueId, ValueType};

use super::parts::{self, Kernel};
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::dtype;
use crate::families::resize;

pub(super) const ENCODERS: &[&str] = &["taesd_encoder", "taef1_encoder", "taef2_encoder"];
pub(super) const DECODERS: &[&str] = &["taesd_decoder", "taef1_decoder", "taef2_decoder"];

/// Blocks at each resolution, finest first.
const BLOCKS: [usize; 4] = [1, 3, 3, 3];
const COLOURS: usize = 3;
/// Groups of the norm of a pooled branch, and its width in units of the block's.
const POOL_GROUPS: usize = 4;
const POOL_WIDTH: usize = 4;

struct Settings {
    latent: usize,
    width: usize,
    mid_pool: bool,
}

impl Settings {
    fn read(c: &Fields<'_>) -> Result<Settings> {
        let kind = c.text_or("architecture", "taesd")?;
        let latent = match kind.split('_').next() {
            Some("taef2") => 32,
            Some("taef1") => 16,
            _ => 4,
        };
        Ok(Settings {
            latent: c.size_or("latent_channels", latent)?,
            width: c.size_or("width", 64)?,
            mid_pool: c.flag_or("mid_pool", kind.starts_with("taef2"))?,
        })
    }
}

/// Positions of a `Sequential` in order.
fn numbered() -> impl FnMut() -> String {
    let mut next = 0;
    move || {
        next += 1;
        (next - 1).to_string()
    }
}

fn port(b: &mut GraphBuilder, name: &str, channels: usize, size: usize) -> ValueId {
    b.default_size("height", size);
    b.default_size("width", size);
    let shape = vec![Dim::symbol("batch"), channels.into(), Dim::symbol("height"), Dim::symbol("width")];
    b.input(name, shape, ValueType::Float)
}

pub(super) fn encoder(c: &Fields<'_>) -> Result<Graph> {
    let s = Settings::read(c)?;
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let mut x = port(&mut b, "image", COLOURS, 512);
    let mut at = numbered();
    for (i, blocks) in BLOCKS.into_iter().enumerate() {
        let kernel = if i == 0 { Kernel::square(3, 1, 1, true) } else { Kernel::square(3, 2, 1, false) };
        x = parts::conv(&mut b, &at(), x, s.width, kernel)?;
        for _ in 0..blocks {
            x = block(&mut b, &at(), x, s.mid_pool && i + 1 == BLOCKS.len())?;
        }
    }
    x = parts::conv(&mut b, &at(), x, s.latent, Kernel::square(3, 1, 1, true))?;
    b.output("latent", x);
    Ok(b.finish()?)
}

pub(super) fn decoder(c: &Fields<'_>) -> Result<Graph> {
    let s = Settings::read(c)?;
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let mut x = port(&mut b, "latent", s.latent, 64);
    let mut at = numbered();
    // Latents are held between -3 and 3.
    let clamp = at();
    x = scalar(&mut b, &format!("{clamp}.narrow"), BinaryFn::Div, x)?;
    x = b.activation(&format!("{clamp}.tanh"), Activation::Tanh, x)?;
    x = scalar(&mut b, &format!("{clamp}.widen"), BinaryFn::Mul, x)?;
    x = parts::conv(&mut b, &at(), x, s.width, Kernel::square(3, 1, 1, true))?;
    x = b.activation(&at(), Activation::Relu, x)?;
    for (i, blocks) in BLOCKS.into_iter().enumerate().rev() {
        for _ in 0..blocks {
            x = block(&mut b, &at(), x, s.mid_pool && i + 1 == BLOCKS.len())?;
        }
        if i > 0 {
            let size = resize::times(&b, x, 2);
            x = resize::nearest(&mut b, &at(), x, size)?;
            x = parts::conv(&mut b, &at(), x, s.width, Kernel::square(3, 1, 1, false))?;
        }
    }
    x = parts::conv(&mut b, &at(), x, COLOURS, Kernel::square(3, 1, 1, true))?;
    b.output("image", x);
    Ok(b.finish()?)
}

type Built = pomona_graph::Result<ValueId>;

fn scalar(b: &mut GraphBuilder, path: &str, function: BinaryFn, x: ValueId) -> Built {
    b.node(path, Op::Scalar { function, value: 3.0, reversed: false }, &[x], &[])
}

/// Three convolutions around the identity, then ReLU; before them the pooled branch, where there is one.
fn block(b: &mut GraphBuilder, path: &str, mut x: ValueId, pooled: bool) -> Built {
    b.module(path, "Block");
    let width = parts::channels(b, path, x)?;
    if pooled {
        let point = || Kernel { side: 1, conv: ConvAttrs::square(1, 0), bias: false };
        let wide = width.saturating_mul(POOL_WIDTH);
        let h = parts::conv(b, &format!("{path}.pool.0"), x, wide, point())?;
        let h = b.group_norm(&format!("{path}.pool.1"), h, POOL_GROUPS, 1e-5)?;
        let h = b.activation(&format!("{path}.pool.2"), Activation::Relu, h)?;
        let h = parts::conv(b, &format!("{path}.pool.3"), h, width, point())?;
        x = b.add(&format!("{path}.pooled"), &[x, h])?;
    }
    let same = || Kernel::square(3, 1, 1, true);
    let mut h = parts::conv(b, &format!("{path}.conv.0"), x, width, same())?;
    for i in [2, 4] {
        h = b.activation(&format!("{path}.conv.{}", i - 1), Activation::Relu, h)?;
        h = parts::conv(b, &format!("{path}.conv.{i}"), h, width, same())?;
    }
    let sum = b.add(&format!("{path}.add"), &[h, x])?;
    b.activation(&format!("{path}.fuse"), Activation::Relu, sum)
}

/// Names of the same layers in diffusers' directories.
pub(super) fn encoder_names(name: &str) -> Vec<String> {
    vec![format!("encoder.{name}"), format!("encoder.layers.{name}")]
}

/// In diffusers the clamp before the decoder has no position.
pub(super) fn decoder_names(name: &str) -> Vec<String> {
    let shifted = name.split_once('.').and_then(|(n, rest)| {
        let n: usize = n.parse().ok()?;
        Some(format!("decoder.layers.{}.{rest}", n.checked_sub(1)?))
    });
    std::iter::once(format!("decoder.{name}")).chain(shifted).collect()
}
