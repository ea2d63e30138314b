//! The parts that image networks share: what the config says of picture and classes, normalised convolutions, patches,
//! heads.

use pomona_graph::{
    AttentionAttrs, BatchStatistics, ConvAttrs, Dim, GraphBuilder, Op, PoolKind, Role, Slot, ValueId,
    ValueType,
};

use crate::config::Fields;
use crate::error::Result;

/// The input of every image network: `[batch, channels, height, width]`.
pub(super) const IMAGE: &str = "pixel_values";
/// What every classifier gives: `[batch, classes]`.
pub(super) const LOGITS: &str = "logits";

/// Channels and sides of the pictures that a network is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture {
    pub channels: usize,
    /// Height and width.
    pub sides: [usize; 2],
}

/// The section that has a key: timm keeps the arguments of the network in `model_args`, a plain config beside the rest.
pub(super) fn holder<'a>(c: &Fields<'a>, key: &str) -> Result<Fields<'a>> {
    let args = c.section("model_args")?.filter(|args| args.get(key).is_some());
    Ok(args.unwrap_or_else(|| c.clone()))
}

/// A count from 1 in either place.
pub(super) fn option_or(c: &Fields<'_>, key: &str, default: usize) -> Result<usize> {
    holder(c, key)?.size_or(key, default)
}

/// A true or false in either place.
pub(super) fn flag_option_or(c: &Fields<'_>, key: &str, default: bool) -> Result<bool> {
    holder(c, key)?.flag_or(key, default)
}

/// The picture of a config with an `architecture`: `img_size` and `in_chans`, else `input_size` (`[channels, height,
/// width]`) of the config or of its `pretrained_cfg`, else the architecture's own.
pub(super) fn picture(c: &Fields<'_>, default: usize) -> Result<Picture> {
    let section = c.section("pretrained_cfg")?;
    let place = if c.get("input_size").is_some() { Some(c.clone()) } else { section };
    let given = place.map(|p| p.sizes_or("input_size", &[])).transpose()?.unwrap_or_default();
    let (channels, sides) = match given.as_slice() {
        [channels, height, width] => (*channels, [*height, *width]),
        _ => (3, [default; 2]),
    };
    Ok(Picture {
        channels: option_or(c, "in_chans", channels)?,
        sides: holder(c, "img_size")?.sides("img_size")?.unwrap_or(sides),
    })
}

/// The number of classes of a config with an `architecture`.
pub(super) fn classes(c: &Fields<'_>, default: usize) -> Result<usize> {
    option_or(c, "num_classes", default)
}

/// A picture of any size.
pub(super) fn any_image(b: &mut GraphBuilder, picture: Picture) -> ValueId {
    b.default_size("height", picture.sides[0]);
    b.default_size("width", picture.sides[1]);
    let shape = vec!["batch".into(), picture.channels.into(), "height".into(), "width".into()];
    b.input(IMAGE, shape, ValueType::Float)
}

/// A picture of exactly this size.
pub(super) fn fixed_image(b: &mut GraphBuilder, picture: Picture) -> ValueId {
    let [height, width] = picture.sides;
    let shape = vec![Dim::symbol("batch"), picture.channels.into(), height.into(), width.into()];
    b.input(IMAGE, shape, ValueType::Float)
}

/// Channels of an image.
pub(super) fn channels(b: &GraphBuilder, path: &str, x: ValueId) -> pomona_graph::Result<usize> {
    b.shape(x).get(1).unwrap_or(&Dim::from(0)).size(path)
}

/// A square convolution without bias.
pub(super) fn conv(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    out: usize,
    kernel: usize,
    attrs: ConvAttrs,
) -> pomona_graph::Result<ValueId> {
    let per_group = channels(b, path, x)? / attrs.groups.max(1);
    let weight = b.parameter(&format!("{path}.weight"), &[out, per_group, kernel, kernel])?;
    b.node(path, Op::Conv(attrs), &[x], &[(Slot::Weight, weight)])
}

/// Batch normalisation with running statistics.
pub(super) fn batch_norm(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    eps: f64,
) -> pomona_graph::Result<ValueId> {
    let width = channels(b, path, x)?;
    let weights = [
        (Slot::Weight, b.parameter(&format!("{path}.weight"), &[width])?),
        (Slot::Bias, b.parameter(&format!("{path}.bias"), &[width])?),
        (Slot::RunningMean, b.tensor(&format!("{path}.running_mean"), &[width], "f32", Role::Buffer)?),
        (Slot::RunningVar, b.tensor(&format!("{path}.running_var"), &[width], "f32", Role::Buffer)?),
    ];
    let op = Op::BatchNorm { eps, momentum: 0.1, statistics: BatchStatistics::Running };
    b.node(path, op, &[x], &weights)
}

/// The average of an image as a row: `[batch, channels, height, width] -> [batch, channels]`.
pub(super) fn average(b: &mut GraphBuilder, path: &str, x: ValueId) -> pomona_graph::Result<ValueId> {
    let pool = Op::AdaptivePool { kind: PoolKind::Average, size: vec![1, 1] };
    let x = b.node(&format!("{path}.pool"), pool, &[x], &[])?;
    let shape = b.shape(x)[..2].to_vec();
    b.node(&format!("{path}.flatten"), Op::Reshape { shape }, &[x], &[])
}

/// Nothing at rate 0.
pub(super) fn dropout(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    rate: f64,
) -> pomona_graph::Result<ValueId> {
    if rate == 0.0 {
        return Ok(x);
    }
    b.node(path, Op::Dropout { rate }, &[x], &[])
}

/// A tensor of the table, of leading size 1, once for each of the batch.
pub(super) fn token(b: &mut GraphBuilder, path: &str, width: usize) -> pomona_graph::Result<ValueId> {
    let weight = b.parameter(path, &[1, 1, width])?;
    let one = b.node(path, Op::Constant {}, &[], &[(Slot::Weight, weight)])?;
    let shape = vec![Dim::symbol("batch"), 1.into(), width.into()];
    b.node(&format!("{path}.expand"), Op::Expand { shape }, &[one], &[])
}

/// `[b, c, h, w] -> [b, h*w, c]`.
pub(super) fn to_tokens(b: &mut GraphBuilder, path: &str, x: ValueId) -> pomona_graph::Result<ValueId> {
    let shape = b.shape(x);
    let area = shape.iter().skip(2).try_fold(Dim::from(1), |n, d| n.checked_mul(d))?;
    let flat = shape.iter().take(2).cloned().chain([area]).collect();
    let flat = b.node(&format!("{path}.flatten"), Op::Reshape { shape: flat }, &[x], &[])?;
    b.node(&format!("{path}.to_tokens"), Op::Transpose { axes: vec![0, 2, 1] }, &[flat], &[])
}

/// Token `index` as a row: `[b, n, c] -> [b, c]`.
pub(super) fn select(
    b: &mut GraphBuilder,
    path: &str,
    x: ValueId,
    index: usize,
) -> pomona_graph::Result<ValueId> {
    let slice = Op::Slice { axis: 1, start: index.into(), end: (index + 1).into(), step: 1 };
    let one = b.node(&format!("{path}.slice"), slice, &[x], &[])?;
    let shape = b.shape(one);
    let shape = vec![shape[0].clone(), shape[2].clone()];
    b.node(path, Op::Reshape { shape }, &[one], &[])
}

/// Attention of every token to every token.
pub(super) fn attention(heads: usize, width: usize) -> Op {
    Op::Attention(AttentionAttrs {
        heads,
        kv_heads: heads,
        scale: 1.0 / (width as f64).sqrt(),
        causal: false,
        window: None,
        softcap: None,
    })
}

/// `depth` with an upper bound.
pub(super) fn bounded_depth(c: &Fields<'_>, key: &str, default: usize) -> Result<usize> {
    let holder = holder(c, key)?;
    if holder.has(key) { holder.depth(key) } else { Ok(default) }
}
