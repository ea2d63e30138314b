//! ResNets for CIFAR: three stages of basic blocks of width 16, 32 and 64 at stride 1, 2, 2.
//!
//! Source: He et al., arXiv:1512.03385, section 4.2. Module names are those of the usual PyTorch implementation (`layerS.N`,
//! `linear`). `shortcut` is `A` (every other pixel, zeros for the new channels; the default) or `B` (a 1x1 convolution at
//! `shortcut.0` with its norm at `shortcut.1`). Input `pixel_values` `[batch, 3, height, width]`, output `logits`.

use pomona_graph::{Activation, ConvAttrs, Graph, GraphBuilder, Op, PadMode, ValueId};

use super::parts::{self, any_image, average, batch_norm, conv};
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::dtype;

pub(super) const NAMES: &[&str] =
    &["resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202", "resnet_cifar"];
const EPS: f64 = 1e-5;

#[derive(Clone, Copy, PartialEq)]
enum Shortcut {
    Zeros,
    Convolution,
}

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let shortcut = match c.text_or("shortcut", "A")? {
        "A" => Shortcut::Zeros,
        "B" => Shortcut::Convolution,
        other => return Err(c.fault("shortcut", format!("is \"{other}\"; A or B was expected"))),
    };
    // Two convolutions a block, the first one and the classifier.
    let named = c.text_or("architecture", "")?.trim_start_matches(|ch: char| !ch.is_ascii_digit());
    let blocks = named.parse::<usize>().map_or(3, |n| n.saturating_sub(2) / 6);
    let layers = c.sizes_or("layers", &[blocks; 3])?;
    if layers.len() > 8 || layers.iter().sum::<usize>() > crate::config::MAX_DEPTH {
        return Err(c.fault("layers", format!("has {} stages; at most 8 are built", layers.len())));
    }
    let width = c.size_or("width", 16)?;
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let x = any_image(&mut b, parts::picture(c, 32)?);
    let x = conv(&mut b, "conv1", x, width, 3, ConvAttrs::square(1, 1))?;
    let x = batch_norm(&mut b, "bn1", x, EPS)?;
    let mut x = b.activation("relu", Activation::Relu, x)?;
    for (stage, count) in layers.iter().enumerate() {
        for i in 0..*count {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            x = block(&mut b, &format!("layer{}.{i}", stage + 1), x, width << stage, stride, shortcut)?;
        }
    }
    let x = average(&mut b, "avgpool", x)?;
    let logits = b.linear("linear", x, parts::classes(c, 10)?, true)?;
    b.output(parts::LOGITS, logits);
    Ok(b.finish()?)
}

fn block(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    width: usize,
    stride: usize,
    shortcut: Shortcut,
) -> pomona_graph::Result<ValueId> {
    let at = |name: &str| format!("{path}.{name}");
    b.module(path, "BasicBlock");
    let before = parts::channels(b, path, x)?;
    let h = conv(b, &at("conv1"), x, width, 3, ConvAttrs::square(stride, 1))?;
    let h = batch_norm(b, &at("bn1"), h, EPS)?;
    let h = b.activation(&at("relu1"), Activation::Relu, h)?;
    let h = conv(b, &at("conv2"), h, width, 3, ConvAttrs::square(1, 1))?;
    let h = batch_norm(b, &at("bn2"), h, EPS)?;
    let short = match shortcut {
        _ if stride == 1 && before == width => x,
        Shortcut::Zeros => zeros(b, &at("shortcut"), x, width, stride)?,
        Shortcut::Convolution => {
            let s = conv(b, &at("shortcut.0"), x, width, 1, ConvAttrs::square(stride, 0))?;
            batch_norm(b, &at("shortcut.1"), s, EPS)?
        }
    };
    let sum = b.add(&at("add"), &[short, h])?;
    b.activation(&at("relu"), Activation::Relu, sum)
}

/// Every `stride`-th pixel, with as many channels of zeros on either side as make `width`.
fn zeros(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    width: usize,
    stride: usize,
) -> pomona_graph::Result<ValueId> {
    let mut x = x;
    for (axis, name) in [(2, "rows"), (3, "columns")] {
        let end = b.shape(x)[axis].clone();
        let op = Op::Slice { axis, start: 0.into(), end, step: stride };
        x = b.node(&format!("{path}.{name}"), op, &[x], &[])?;
    }
    let more = width.saturating_sub(parts::channels(b, path, x)?);
    let amounts = vec![[0; 2], [more / 2, more - more / 2], [0; 2], [0; 2]];
    b.node(path, Op::Pad { amounts, mode: PadMode::Constant { value: 0.0 } }, &[x], &[])
}
