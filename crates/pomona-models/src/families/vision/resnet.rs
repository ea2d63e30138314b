//! ResNets for ImageNet, under the names that torchvision and timm share.
//!
//! Sources: He et al., arXiv:1512.03385; the stride stands in the 3x3 convolution of a bottleneck, as both libraries have
//! it. Input `pixel_values` `[batch, 3, height, width]`, output `logits` `[batch, classes]`.
//!
//! Besides the named depths a config may give `layers` (blocks of each stage), `width` (channels of the first stage, 64)
//! and `block` (`basic` or `bottleneck`).

use pomona_graph::{Activation, ConvAttrs, Graph, GraphBuilder, Op, PoolKind, ValueId};

use super::parts::{self, any_image, average, batch_norm, conv};
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::dtype;

pub(super) const NAMES: &[&str] = &["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet"];
const EPS: f64 = 1e-5;
/// More stages than a picture has halvings.
const MAX_STAGES: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Block {
    Basic,
    Bottleneck,
}

impl Block {
    /// Channels of the output over the block's width.
    fn expansion(self) -> usize {
        match self {
            Block::Basic => 1,
            Block::Bottleneck => 4,
        }
    }
}

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let (block, layers) = shape(c)?;
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let x = any_image(&mut b, parts::picture(c, 224)?);
    let width = parts::option_or(c, "width", 64)?;
    let x = conv(&mut b, "conv1", x, width, 7, ConvAttrs::square(2, 3))?;
    let x = batch_norm(&mut b, "bn1", x, EPS)?;
    let x = b.activation("relu", Activation::Relu, x)?;
    let pool = Op::Pool {
        kind: PoolKind::Max,
        kernel: vec![3; 2],
        stride: vec![2; 2],
        padding: vec![[1; 2]; 2],
        ceil: false,
        count_padding: false,
    };
    let mut x = b.node("maxpool", pool, &[x], &[])?;
    for (stage, count) in layers.iter().enumerate() {
        for i in 0..*count {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let path = format!("layer{}.{i}", stage + 1);
            x = residual(&mut b, &path, x, block, width << stage, stride)?;
        }
    }
    let x = average(&mut b, "avgpool", x)?;
    let logits = b.linear("fc", x, parts::classes(c, 1000)?, true)?;
    b.output(parts::LOGITS, logits);
    Ok(b.finish()?)
}

/// The kind of block and the number of them in each stage.
fn shape(c: &Fields<'_>) -> Result<(Block, Vec<usize>)> {
    let (block, layers): (_, &[usize]) = match c.text_or("architecture", "resnet")? {
        "resnet18" => (Block::Basic, &[2, 2, 2, 2]),
        "resnet34" => (Block::Basic, &[3, 4, 6, 3]),
        "resnet101" => (Block::Bottleneck, &[3, 4, 23, 3]),
        "resnet152" => (Block::Bottleneck, &[3, 8, 36, 3]),
        _ => (Block::Bottleneck, &[3, 4, 6, 3]),
    };
    let block = match parts::holder(c, "block")?.maybe_text("block")? {
        None => block,
        Some("basic") => Block::Basic,
        Some("bottleneck") => Block::Bottleneck,
        Some(other) => {
            return Err(c.fault("block", format!("is \"{other}\"; basic or bottleneck was expected")));
        }
    };
    let layers = parts::holder(c, "layers")?.sizes_or("layers", layers)?;
    if layers.len() > MAX_STAGES || layers.iter().sum::<usize>() > crate::config::MAX_DEPTH {
        let message = format!("has {} stages; at most {MAX_STAGES} are built", layers.len());
        return Err(c.fault("layers", message));
    }
    Ok((block, layers))
}

fn residual(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    block: Block,
    width: usize,
    stride: usize,
) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, if block == Block::Basic { "BasicBlock" } else { "Bottleneck" });
    let out = width * block.expansion();
    let plan: &[(usize, usize, usize)] = match block {
        Block::Basic => &[(3, width, stride), (3, width, 1)],
        Block::Bottleneck => &[(1, width, 1), (3, width, stride), (1, out, 1)],
    };
    let mut h = x;
    for (i, (kernel, channels, stride)) in plan.iter().enumerate() {
        let attrs = ConvAttrs::square(*stride, kernel / 2);
        h = conv(b, &at(&format!("conv{}", i + 1)), h, *channels, *kernel, attrs)?;
        h = batch_norm(b, &at(&format!("bn{}", i + 1)), h, EPS)?;
        if i + 1 < plan.len() {
            h = b.activation(&at(&format!("relu{}", i + 1)), Activation::Relu, h)?;
        }
    }
    let mut short = x;
    if stride != 1 || parts::channels(b, path, x)? != out {
        short = conv(b, &at("downsample.0"), x, out, 1, ConvAttrs::square(stride, 0))?;
        short = batch_norm(b, &at("downsample.1"), short, EPS)?;
    }
    let sum = b.add(&at("add"), &[short, h])?;
    b.activation(&at("relu"), Activation::Relu, sum)
}
