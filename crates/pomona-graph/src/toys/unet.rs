//! A U-Net shaped as Stable Diffusion's.

use crate::build::GraphBuilder;
use crate::dim::{Dim, Shape};
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::op::{
    Activation, AttentionAttrs, BinaryFn, ConvAttrs, Op, ResizeCoordinates, ResizeMode, ValueType,
};

/// Sizes of the toy U-Net's inputs, numbers or symbols.
#[derive(Clone, Debug)]
pub struct UnetSizes {
    /// Samples.
    pub batch: Dim,
    /// Rows: even.
    pub height: Dim,
    /// Columns: even.
    pub width: Dim,
    /// Text tokens.
    pub text: Dim,
}

impl Default for UnetSizes {
    fn default() -> Self {
        Self { batch: 1.into(), height: 16.into(), width: 16.into(), text: 7.into() }
    }
}

impl UnetSizes {
    /// All symbols: `batch`, twice `rows`, twice `columns` (so that they are even), `text`.
    pub fn symbolic() -> Self {
        let even = |name: &str| Dim::symbol(name) * 2;
        Self {
            batch: Dim::symbol("batch"),
            height: even("rows"),
            width: even("columns"),
            text: Dim::symbol("text"),
        }
    }
}

/// What the blocks share.
struct Net {
    b: GraphBuilder,
    time: ValueId,
    text: ValueId,
}

impl Net {
    fn conv(&mut self, path: &str, x: ValueId, out: usize, kernel: usize, stride: usize) -> Result<ValueId> {
        let attrs = ConvAttrs::square(stride, kernel / 2);
        self.b.conv(path, x, out, &[kernel, kernel], attrs)
    }

    fn channels(&self, x: ValueId) -> Result<usize> {
        self.b.shape(x)[1].size("channels")
    }

    fn norm_act(&mut self, path: &str, x: ValueId) -> Result<ValueId> {
        let x = self.b.group_norm(path, x, 2, 1e-5)?;
        self.b.activation(&format!("{path}_act"), Activation::Silu, x)
    }

    fn resnet(&mut self, path: &str, x: ValueId, out: usize) -> Result<ValueId> {
        let channels = self.channels(x)?;
        let h = self.norm_act(&format!("{path}.norm1"), x)?;
        let h = self.conv(&format!("{path}.conv1"), h, out, 3, 1)?;
        let t = self.b.linear(&format!("{path}.time_emb_proj"), self.time, out, true)?;
        let shape = vec![self.b.shape(t)[0].clone(), out.into(), 1.into(), 1.into()];
        let t = self.b.node(&format!("{path}.time_emb_shape"), Op::Reshape { shape }, &[t], &[])?;
        let add = Op::Binary { function: BinaryFn::Add };
        let h = self.b.node(&format!("{path}.time_emb_add"), add, &[h, t], &[])?;
        let h = self.norm_act(&format!("{path}.norm2"), h)?;
        let h = self.conv(&format!("{path}.conv2"), h, out, 3, 1)?;
        let x = if channels == out { x } else { self.conv(&format!("{path}.conv_shortcut"), x, out, 1, 1)? };
        self.b.add(&format!("{path}.residual"), &[x, h])
    }

    fn attention(&mut self, path: &str, x: ValueId) -> Result<ValueId> {
        let c = self.channels(x)?;
        let b = &mut self.b;
        let shape: Shape = b.shape(x).to_vec();
        let n = b.group_norm(&format!("{path}.norm"), x, 2, 1e-5)?;
        let flat = vec![shape[0].clone(), shape[1].clone(), shape[2].clone() * shape[3].clone()];
        let t = b.node(&format!("{path}.flatten"), Op::Reshape { shape: flat }, &[n], &[])?;
        let turn = Op::Transpose { axes: vec![0, 2, 1] };
        let t = b.node(&format!("{path}.to_tokens"), turn.clone(), &[t], &[])?;
        let q = b.linear(&format!("{path}.to_q"), t, c, false)?;
        let k = b.linear(&format!("{path}.to_k"), self.text, c, false)?;
        let v = b.linear(&format!("{path}.to_v"), self.text, c, false)?;
        let attention = Op::Attention(AttentionAttrs {
            heads: 2,
            kv_heads: 2,
            scale: 0.5,
            causal: false,
            window: None,
            softcap: None,
        });
        let o = b.node(&format!("{path}.attention"), attention, &[q, k, v], &[])?;
        let o = b.linear(&format!("{path}.to_out.0"), o, c, true)?;
        let o = b.node(&format!("{path}.to_image"), turn, &[o], &[])?;
        let o = b.node(&format!("{path}.unflatten"), Op::Reshape { shape }, &[o], &[])?;
        b.add(&format!("{path}.residual"), &[x, o])
    }
}

/// Two levels of 4 and 8 channels, two residual blocks a level with a time embedding, attention over the text at the inner
/// one, three skips a level, a middle block: its inner levels are as wide as one another, so that a level can go whole.
///
/// Inputs `sample` `[batch, 4, height, width]`, `timestep` `[1]` and `encoder_hidden_states` `[batch, text, 6]`; output `out`
/// as `sample`. Stored as f32.
///
/// # Errors
/// Where the sizes are not even.
pub fn unet(sizes: &UnetSizes) -> Result<Graph> {
    let UnetSizes { batch, height, width, text } = sizes.clone();
    let mut b = GraphBuilder::new("unet", "f32");
    let shape = vec![batch.clone(), 4.into(), height.clone(), width.clone()];
    let sample = b.input("sample", shape, ValueType::Float);
    let t = b.input("timestep", vec![1.into()], ValueType::Float);
    let text = b.input("encoder_hidden_states", vec![batch, text, 6.into()], ValueType::Float);
    let sinusoid = Op::Sinusoid { width: 4, max_period: 1e4, cosine_first: true, shift: 0.0 };
    let t = b.node("time_proj", sinusoid, &[t], &[])?;
    let t = b.linear("time_embedding.linear_1", t, 6, true)?;
    let time = b.activation("time_embedding.act", Activation::Silu, t)?;
    let mut n = Net { b, time, text };
    let mut x = n.conv("conv_in", sample, 4, 3, 1)?;
    let mut skips = vec![x];
    for (level, channels) in [4, 8].into_iter().enumerate() {
        for i in 0..2 {
            x = n.resnet(&format!("down_blocks.{level}.resnets.{i}"), x, channels)?;
            if level == 1 {
                x = n.attention(&format!("down_blocks.{level}.attentions.{i}"), x)?;
            }
            skips.push(x);
        }
        if level == 0 {
            x = n.conv("down_blocks.0.downsamplers.0.conv", x, 8, 3, 2)?;
            skips.push(x);
        }
    }
    x = n.resnet("mid_block.resnets.0", x, 8)?;
    x = n.attention("mid_block.attentions.0", x)?;
    x = n.resnet("mid_block.resnets.1", x, 8)?;
    for (level, channels) in [8, 4].into_iter().enumerate() {
        for i in 0..3 {
            let path = format!("up_blocks.{level}.resnets.{i}");
            let joined: Vec<ValueId> = std::iter::once(x).chain(skips.pop()).collect();
            x = n.b.node(&format!("{path}.concat"), Op::Concat { axis: 1 }, &joined, &[])?;
            x = n.resnet(&path, x, channels)?;
            if level == 0 {
                x = n.attention(&format!("up_blocks.{level}.attentions.{i}"), x)?;
            }
        }
        if level == 0 {
            let size = vec![height.clone(), width.clone()];
            let (mode, coordinates) = (ResizeMode::Nearest, ResizeCoordinates::Asymmetric);
            let resize = Op::Resize { mode, coordinates, size };
            x = n.b.node("up_blocks.0.upsamplers.0.resize", resize, &[x], &[])?;
            x = n.conv("up_blocks.0.upsamplers.0.conv", x, 8, 3, 1)?;
        }
    }
    x = n.norm_act("conv_norm_out", x)?;
    let out = n.conv("conv_out", x, 4, 3, 1)?;
    n.b.output("out", out);
    n.b.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_symbolic_unet_binds_to_the_default_one() {
        let graph = unet(&UnetSizes::symbolic()).unwrap();
        let sizes = [("batch", 1), ("rows", 8), ("columns", 8), ("text", 7)];
        let bound = graph.bind(&sizes.map(|(k, v)| (k.to_owned(), v)).into_iter().collect()).unwrap();
        assert_eq!(bound, unet(&UnetSizes::default()).unwrap());
    }
}
