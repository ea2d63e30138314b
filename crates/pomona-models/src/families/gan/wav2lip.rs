//! The Wav2Lip generator: an encoder of a face, one of speech, and a decoder that starts from the speech and joins the face's
//! features at each resolution; and the same network without its residual convolutions, at a quarter of the widths.
//!
//! Source: Prajwal et al., arXiv:2008.10010, and Kim et al., arXiv:2304.00471 (`nota_wav2lip`); module names are those of both
//! published PyTorch implementations, so state dicts of either load. Inputs `audio_sequences` `[batch, 1, 80, 16]`, a mel
//! spectrogram, and `face_sequences` `[batch, 6, x_size, x_size]`, the masked frame above a reference, 0 to 1; output `output`
//! `[batch, 3, x_size, x_size]`, 0 to 1. The five frames of a training window are part of the batch.

use std::collections::{BTreeMap, BTreeSet};

use pomona_graph::{
    Activation, BatchStatistics, ConvAttrs, Dim, Graph, GraphBuilder, Op, ValueId, ValueType,
};
use serde_json::Value;

use super::parts::{self, Kernel};
use crate::config::Fields;
use crate::error::Result;
use crate::families::common::dtype;
use crate::families::network::Stock;
use crate::stock::Renumbering;

const FULL: &str = "wav2lip";
const COMPACT: &str = "nota_wav2lip";
pub(super) const NAMES: &[&str] = &[FULL, COMPACT];

const FACE: &str = "face_encoder_blocks";
const AUDIO: &str = "audio_encoder";
const DECODER: &str = "face_decoder_blocks";

/// Residual convolutions behind each halving of the face.
const FACE_RESIDUALS: [usize; 5] = [2, 3, 2, 2, 1];
/// Strides of the speech encoder's convolutions, and the residual ones behind each.
const AUDIO_STEPS: [([usize; 2], usize); 4] = [([1, 1], 2), ([3, 1], 2), ([3, 3], 2), ([3, 2], 1)];
/// Widths of the decoder's doublings in units of `ndf`, and the residual convolutions behind each.
const DECODER_STEPS: [(usize, usize); 6] = [(16, 1), (16, 2), (12, 2), (8, 2), (4, 2), (2, 2)];

struct Net {
    b: GraphBuilder,
    residual: bool,
}

pub(super) fn graph(c: &Fields<'_>) -> Result<Graph> {
    let compact = c.text_or("architecture", FULL)? == COMPACT;
    let [nef, naf, ndf] = if compact { [4, 8, 8] } else { [16, 32, 32] };
    let (nef, naf, ndf) = (c.size_or("nef", nef)?, c.size_or("naf", naf)?, c.size_or("ndf", ndf)?);
    let side = c.size_or("x_size", 96)?;
    if ![96, 128].contains(&side) {
        return Err(c.fault("x_size", format!("is {side}; 96 or 128 was expected")));
    }
    let mut n = Net { b: GraphBuilder::new("model", dtype(c)?), residual: c.flag_or("residual", !compact)? };
    let image =
        |channels: usize, h: usize, w: usize| vec![Dim::symbol("batch"), channels.into(), h.into(), w.into()];
    let audio = n.b.input("audio_sequences", image(1, 80, 16), ValueType::Float);
    let face = n.b.input("face_sequences", image(6, side, side), ValueType::Float);
    let features = n.face(face, nef, side / 32)?;
    let embedding = n.audio(audio, naf)?;
    let x = n.decoder(embedding, features, naf.saturating_mul(16), ndf, side / 32)?;
    let x = n.unit("output_block.0", x, ndf, Kernel::square(3, 1, 1, true))?;
    let x = parts::conv(&mut n.b, "output_block.1", x, 3, Kernel::square(1, 1, 0, true))?;
    let x = n.b.activation("output_block.2", Activation::Sigmoid, x)?;
    n.b.output("output", x);
    Ok(n.b.finish()?)
}

type Built = pomona_graph::Result<ValueId>;

impl Net {
    /// Features at each resolution, finest first.
    fn face(&mut self, x: ValueId, nef: usize, last: usize) -> pomona_graph::Result<Vec<ValueId>> {
        let first = self.unit(&format!("{FACE}.0.0"), x, nef, Kernel::square(7, 1, 3, true))?;
        let mut features = vec![first];
        let (mut x, mut width) = (first, nef);
        for (i, residuals) in FACE_RESIDUALS.into_iter().enumerate() {
            let block = format!("{FACE}.{}", i + 1);
            width = width.saturating_mul(2);
            x = self.unit(&format!("{block}.0"), x, width, Kernel::square(3, 2, 1, true))?;
            x = self.residuals(x, residuals, |r| format!("{block}.{}", r + 1))?;
            features.push(x);
        }
        x = self.unit(&format!("{FACE}.6.0"), x, width, Kernel::square(last, 1, 0, true))?;
        x = self.unit(&format!("{FACE}.6.1"), x, width, Kernel::square(1, 1, 0, true))?;
        features.push(x);
        Ok(features)
    }

    fn audio(&mut self, mut x: ValueId, naf: usize) -> Built {
        let mut position = 0;
        let mut width = naf;
        for (i, (stride, residuals)) in AUDIO_STEPS.into_iter().enumerate() {
            width = if i == 0 { naf } else { width.saturating_mul(2) };
            let conv = ConvAttrs { stride: stride.to_vec(), ..ConvAttrs::square(1, 1) };
            x = self.unit(&format!("{AUDIO}.{position}"), x, width, Kernel { side: 3, conv, bias: true })?;
            position += 1;
            let start = position;
            x = self.residuals(x, residuals, |r| format!("{AUDIO}.{}", start + r))?;
            position += if self.residual { residuals } else { 0 };
        }
        width = width.saturating_mul(2);
        x = self.unit(&format!("{AUDIO}.{position}"), x, width, Kernel::square(3, 1, 0, true))?;
        self.unit(&format!("{AUDIO}.{}", position + 1), x, width, Kernel::square(1, 1, 0, true))
    }

    fn decoder(
        &mut self,
        embedding: ValueId,
        mut features: Vec<ValueId>,
        width: usize,
        ndf: usize,
        first: usize,
    ) -> Built {
        let mut x = self.unit(&format!("{DECODER}.0.0"), embedding, width, Kernel::square(1, 1, 0, true))?;
        x = self.join(0, x, &mut features)?;
        for (i, (width, residuals)) in DECODER_STEPS.into_iter().enumerate() {
            let block = format!("{DECODER}.{}", i + 1);
            let step = match i {
                0 => (Kernel::square(first, 1, 0, true), 0),
                _ => (Kernel::square(3, 2, 1, true), 1),
            };
            let path = format!("{block}.0");
            self.b.module(&path, "Conv2dTranspose");
            let out = ndf.saturating_mul(width);
            x = parts::up(&mut self.b, &format!("{path}.conv_block.0"), x, out, step)?;
            x = self.norm(&path, x)?;
            x = self.b.activation(&format!("{path}.act"), Activation::Relu, x)?;
            x = self.residuals(x, residuals, |r| format!("{block}.{}", r + 1))?;
            x = self.join(i + 1, x, &mut features)?;
        }
        Ok(x)
    }

    /// The decoder's value before the face's feature of the same resolution.
    fn join(&mut self, block: usize, x: ValueId, features: &mut Vec<ValueId>) -> Built {
        let operands: Vec<ValueId> = std::iter::once(x).chain(features.pop()).collect();
        self.b.node(&format!("{DECODER}.{block}.cat"), Op::Concat { axis: 1 }, &operands, &[])
    }

    fn norm(&mut self, path: &str, x: ValueId) -> Built {
        parts::norm(&mut self.b, &format!("{path}.conv_block.1"), x, (1e-5, BatchStatistics::Running))
    }

    /// Convolution, norm, ReLU.
    fn unit(&mut self, path: &str, x: ValueId, out: usize, kernel: Kernel) -> Built {
        self.b.module(path, "Conv2d");
        let h = parts::conv(&mut self.b, &format!("{path}.conv_block.0"), x, out, kernel)?;
        let h = self.norm(path, h)?;
        self.b.activation(&format!("{path}.act"), Activation::Relu, h)
    }

    /// Convolutions that add to what they read, before their ReLU; none where the network has no such.
    fn residuals(&mut self, mut x: ValueId, count: usize, path: impl Fn(usize) -> String) -> Built {
        for path in (0..if self.residual { count } else { 0 }).map(path) {
            self.b.module(&path, "Conv2d");
            let width = parts::channels(&self.b, &path, x)?;
            let conv = format!("{path}.conv_block.0");
            let h = parts::conv(&mut self.b, &conv, x, width, Kernel::square(3, 1, 1, true))?;
            let h = self.norm(&path, h)?;
            let h = self.b.add(&format!("{path}.add"), &[h, x])?;
            x = self.b.activation(&format!("{path}.act"), Activation::Relu, h)?;
        }
        Ok(x)
    }
}

/// The widths that are left, and whether the residual convolutions are; without them the speech encoder's modules move up.
pub(super) fn stock(config: &Value, _: &Graph, after: &Graph) -> Stock {
    let width = |path: &str| {
        let weight = after.find_tensor(&format!("{path}.conv_block.0.weight"));
        weight.and_then(|t| after.tensor(t).shape.first().copied())
    };
    let residual = after.nodes.iter().any(|n| matches!(n.op, Op::Add {}));
    let mut config = config.clone();
    if let Some(map) = config.as_object_mut() {
        for (key, first) in [
            ("nef", format!("{FACE}.0.0")),
            ("naf", format!("{AUDIO}.0")),
            ("ndf", "output_block.0".to_owned()),
        ] {
            let width = width(&first).ok_or_else(|| vec![format!("`{first}` is gone")])?;
            map.insert(key.to_owned(), width.into());
        }
        map.insert("residual".to_owned(), residual.into());
        map.insert("architecture".to_owned(), if residual { FULL } else { COMPACT }.into());
    }
    let number = |path: &str| path.strip_prefix(AUDIO)?.strip_prefix('.')?.split('.').next()?.parse().ok();
    let left: BTreeSet<usize> = after.nodes.iter().filter_map(|n| number(&n.path)).collect();
    let map: BTreeMap<String, String> = left
        .into_iter()
        .enumerate()
        .map(|(new, old)| (format!("{AUDIO}.{old}"), format!("{AUDIO}.{new}")))
        .collect();
    Ok((config, Renumbering::of(map)))
}
