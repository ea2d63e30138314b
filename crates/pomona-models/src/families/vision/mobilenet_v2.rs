//! MobileNetV2 under torchvision's names.
//!
//! Source: Sandler et al., arXiv:1801.04381. `width_mult` scales the channels.
//! Input `pixel_values` `[batch, 3, height, width]`, output `logits`.

use pomona_graph::{Activation, ConvAttrs, Graph, GraphBuilder, ValueId};

use super::parts::{self, any_image, average, batch_norm, conv};
use super::separable::divisible;
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::dtype;

pub(super) const NAMES: &[&str] = &["mobilenet_v2"];
const EPS: f64 = 1e-5;
/// Expansion, channels, repeats, stride of the first.
const TABLE: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let scale = c.positive_or("width_mult", 1.0)?;
    if scale > 64.0 {
        return Err(c.fault("width_mult", format!("is {scale}; at most 64 was expected")));
    }
    let mut b = GraphBuilder::new("model", dtype(c)?);
    let x = any_image(&mut b, parts::picture(c, 224)?);
    let mut x = step(&mut b, "features.0", x, divisible(32.0 * scale), 3, ConvAttrs::square(2, 1))?;
    let mut number = 1;
    for [expand, channels, repeats, stride] in TABLE {
        for i in 0..repeats {
            let stride = if i == 0 { stride } else { 1 };
            let out = divisible(channels as f64 * scale);
            x = inverted(&mut b, &format!("features.{number}"), x, expand, out, stride)?;
            number += 1;
        }
    }
    let last = divisible(1280.0 * scale.max(1.0));
    let x = step(&mut b, &format!("features.{number}"), x, last, 1, ConvAttrs::square(1, 0))?;
    let x = average(&mut b, "avgpool", x)?;
    let x = parts::dropout(&mut b, "classifier.0", x, super::rate(c, "dropout", 0.2)?)?;
    let logits = b.linear("classifier.1", x, parts::classes(c, 1000)?, true)?;
    b.output(parts::LOGITS, logits);
    Ok(b.finish()?)
}

/// Convolution, norm and ReLU6.
fn step(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    out: usize,
    kernel: usize,
    attrs: ConvAttrs,
) -> pomona_graph::Result<ValueId> {
    let x = conv(b, &format!("{path}.0"), x, out, kernel, attrs)?;
    let x = batch_norm(b, &format!("{path}.1"), x, EPS)?;
    b.activation(&format!("{path}.2"), Activation::Relu6, x)
}

fn inverted(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    expand: usize,
    out: usize,
    stride: usize,
) -> pomona_graph::Result<ValueId> {
    let at = |i: usize| format!("{path}.conv.{i}");
    b.module(path, "InvertedResidual");
    let input = parts::channels(b, path, x)?;
    let inner = input * expand;
    let mut h = x;
    let mut i = 0;
    if expand != 1 {
        h = step(b, &at(i), h, inner, 1, ConvAttrs::square(1, 0))?;
        i += 1;
    }
    let depthwise = ConvAttrs { groups: inner, ..ConvAttrs::square(stride, 1) };
    h = step(b, &at(i), h, inner, 3, depthwise)?;
    h = conv(b, &at(i + 1), h, out, 1, ConvAttrs::square(1, 0))?;
    h = batch_norm(b, &at(i + 2), h, EPS)?;
    if stride == 1 && input == out { b.add(&format!("{path}.add"), &[x, h]) } else { Ok(h) }
}
