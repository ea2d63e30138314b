//! Networks of depthwise separable convolutions under timm's names: MobileNetV1, MobileNetV2, EfficientNet-Lite.
//!
//! Sources: Howard et al., arXiv:1704.04861; Sandler et al., arXiv:1801.04381; Tan and Le, arXiv:1905.11946, in the form
//! without squeeze-and-excitation and with ReLU6. Input `pixel_values` `[batch, 3, height, width]`, output `logits`.
//! Names that begin with `tf_` pad as TensorFlow does, so that their picture has a fixed size.

use pomona_graph::{Activation, ConvAttrs, Dim, Graph, GraphBuilder, ValueId};

use super::parts::{self, average, batch_norm, conv};
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::dtype;

pub(super) const NAMES: &[&str] = &[
    "mobilenetv1_100",
    "mobilenetv1_100h",
    "mobilenetv1_125",
    "mobilenetv2_035",
    "mobilenetv2_050",
    "mobilenetv2_075",
    "mobilenetv2_100",
    "mobilenetv2_110d",
    "mobilenetv2_120d",
    "mobilenetv2_140",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "tf_efficientnet_lite3",
    "tf_efficientnet_lite4",
];

/// Blocks of one resolution.
#[derive(Clone, Copy)]
struct Stage {
    /// Channels inside over channels of the input; 0 for a separable convolution without expansion.
    expand: usize,
    kernel: usize,
    /// Of the first block.
    stride: usize,
    channels: usize,
    repeats: usize,
}

const fn stage(expand: usize, kernel: usize, stride: usize, channels: usize, repeats: usize) -> Stage {
    Stage { expand, kernel, stride, channels, repeats }
}

const V1: &[Stage] = &[
    stage(0, 3, 1, 64, 1),
    stage(0, 3, 2, 128, 2),
    stage(0, 3, 2, 256, 2),
    stage(0, 3, 2, 512, 6),
    stage(0, 3, 2, 1024, 2),
];
const V2: &[Stage] = &[
    stage(0, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 3, 2, 32, 3),
    stage(6, 3, 2, 64, 4),
    stage(6, 3, 1, 96, 3),
    stage(6, 3, 2, 160, 3),
    stage(6, 3, 1, 320, 1),
];
const LITE: &[Stage] = &[
    stage(0, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];

/// A named network.
struct Design {
    stages: &'static [Stage],
    width: f64,
    depth: f64,
    /// Stem, head and the depth of the first and last stage are not scaled.
    fixed_ends: bool,
    /// MobileNetV1: an activation behind every pointwise convolution, and no residual joins.
    plain: bool,
    /// Channels of the head's convolution.
    head: Option<usize>,
    /// Side of the picture.
    side: usize,
    eps: f64,
    same_padding: bool,
}

fn design(name: &str) -> Design {
    let (tf, name) = name.strip_prefix("tf_").map_or((false, name), |rest| (true, rest));
    let (width, depth, side) = match name {
        "mobilenetv1_125" => (1.25, 1.0, 224),
        "mobilenetv2_035" => (0.35, 1.0, 224),
        "mobilenetv2_050" => (0.5, 1.0, 224),
        "mobilenetv2_075" => (0.75, 1.0, 224),
        "mobilenetv2_110d" => (1.1, 1.2, 224),
        "mobilenetv2_120d" => (1.2, 1.4, 224),
        "mobilenetv2_140" => (1.4, 1.0, 224),
        "efficientnet_lite1" => (1.0, 1.1, 240),
        "efficientnet_lite2" => (1.1, 1.2, 260),
        "efficientnet_lite3" => (1.2, 1.4, 300),
        "efficientnet_lite4" => (1.4, 1.8, 380),
        _ => (1.0, 1.0, 224),
    };
    let (stages, head) = match name.get(..11) {
        Some("mobilenetv1") => (V1, name.ends_with('h').then_some(1024)),
        Some("mobilenetv2") => (V2, Some(1280)),
        _ => (LITE, Some(1280)),
    };
    let lite = name.starts_with("efficientnet");
    let fixed_ends = lite || name.ends_with('d');
    let head = head.map(|n: usize| if fixed_ends { n } else { n.max(divisible(n as f64 * width)) });
    let eps = if tf { 1e-3 } else { 1e-5 };
    Design {
        stages,
        width,
        depth,
        fixed_ends,
        plain: name.starts_with("mobilenetv1"),
        head,
        side,
        eps,
        same_padding: tf,
    }
}

/// The nearest multiple of 8 that is not below nine tenths.
pub(super) fn divisible(channels: f64) -> usize {
    let near = (((channels + 4.0) / 8.0).floor() as usize * 8).max(8);
    if (near as f64) < 0.9 * channels { near + 8 } else { near }
}

/// The builder with what all blocks of a network share.
struct Net {
    b: GraphBuilder,
    eps: f64,
    same_padding: bool,
    plain: bool,
}

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let d = design(c.text_or("architecture", "")?);
    let picture = parts::picture(c, d.side)?;
    let mut n = Net {
        b: GraphBuilder::new("model", dtype(c)?),
        eps: d.eps,
        same_padding: d.same_padding,
        plain: d.plain,
    };
    let x = match d.same_padding {
        true => parts::fixed_image(&mut n.b, picture),
        false => parts::any_image(&mut n.b, picture),
    };
    let stem = if d.fixed_ends { 32 } else { divisible(32.0 * d.width) };
    let x = n.square("conv_stem", x, stem, 3, 2)?;
    let mut x = n.normed("bn1", x, true)?;
    for (s, stage) in d.stages.iter().enumerate() {
        let end = s == 0 || s + 1 == d.stages.len();
        let depth = if d.fixed_ends && end { 1.0 } else { d.depth };
        let repeats = (stage.repeats as f64 * depth).ceil() as usize;
        let channels = divisible(stage.channels as f64 * d.width);
        for i in 0..repeats {
            let stride = if i == 0 { stage.stride } else { 1 };
            x = n.block(&format!("blocks.{s}.{i}"), x, *stage, channels, stride)?;
        }
    }
    if let Some(head) = d.head {
        x = n.square("conv_head", x, head, 1, 1)?;
        x = n.normed("bn2", x, true)?;
    }
    let mut b = n.b;
    let x = average(&mut b, "global_pool", x)?;
    let x = parts::dropout(&mut b, "dropout", x, super::rate(c, "drop_rate", 0.0)?)?;
    let logits = b.linear("classifier", x, parts::classes(c, 1000)?, true)?;
    b.output(parts::LOGITS, logits);
    Ok(b.finish()?)
}

impl Net {
    fn square(
        &mut self,
        path: &str,
        x: ValueId,
        out: usize,
        kernel: usize,
        stride: usize,
    ) -> pomona_graph::Result<ValueId> {
        let padding = self.padding(path, x, kernel, stride)?;
        let attrs = ConvAttrs { padding, ..ConvAttrs::square(stride, 0) };
        conv(&mut self.b, path, x, out, kernel, attrs)
    }

    fn depthwise(
        &mut self,
        path: &str,
        x: ValueId,
        kernel: usize,
        stride: usize,
    ) -> pomona_graph::Result<ValueId> {
        let (groups, padding) = (parts::channels(&self.b, path, x)?, self.padding(path, x, kernel, stride)?);
        let attrs = ConvAttrs { padding, groups, ..ConvAttrs::square(stride, 0) };
        conv(&mut self.b, path, x, groups, kernel, attrs)
    }

    /// TensorFlow's rule makes `ceil(size / stride)` pixels and puts the odd row of zeros at the end.
    fn padding(
        &self,
        path: &str,
        x: ValueId,
        kernel: usize,
        stride: usize,
    ) -> pomona_graph::Result<Vec<[usize; 2]>> {
        if !self.same_padding {
            return Ok(vec![[kernel / 2; 2]; 2]);
        }
        let side = |axis: usize| {
            let size = self.b.shape(x).get(axis).unwrap_or(&Dim::from(0)).size(path)?;
            let reach = (size.div_ceil(stride).max(1) - 1) * stride + kernel;
            let more = reach.saturating_sub(size);
            Ok([more / 2, more - more / 2])
        };
        Ok(vec![side(2)?, side(3)?])
    }

    fn normed(&mut self, path: &str, x: ValueId, active: bool) -> pomona_graph::Result<ValueId> {
        let x = batch_norm(&mut self.b, path, x, self.eps)?;
        if active { self.b.activation(&format!("{path}.act"), Activation::Relu6, x) } else { Ok(x) }
    }

    fn block(
        &mut self,
        path: &str,
        x: ValueId,
        stage: Stage,
        out: usize,
        stride: usize,
    ) -> pomona_graph::Result<ValueId> {
        let at = |name: &str| format!("{path}.{name}");
        let input = parts::channels(&self.b, path, x)?;
        let h = if stage.expand == 0 {
            self.b.module(path, "DepthwiseSeparableConv");
            let h = self.depthwise(&at("conv_dw"), x, stage.kernel, stride)?;
            let h = self.normed(&at("bn1"), h, true)?;
            let h = self.square(&at("conv_pw"), h, out, 1, 1)?;
            self.normed(&at("bn2"), h, self.plain)?
        } else {
            self.b.module(path, "InvertedResidual");
            let inner = divisible((input * stage.expand) as f64);
            let h = self.square(&at("conv_pw"), x, inner, 1, 1)?;
            let h = self.normed(&at("bn1"), h, true)?;
            let h = self.depthwise(&at("conv_dw"), h, stage.kernel, stride)?;
            let h = self.normed(&at("bn2"), h, true)?;
            let h = self.square(&at("conv_pwl"), h, out, 1, 1)?;
            self.normed(&at("bn3"), h, false)?
        };
        let joined = stride == 1 && input == out && !self.plain;
        if joined { self.b.add(&at("add"), &[h, x]) } else { Ok(h) }
    }
}
