//! Two whole nets, as `scripts/against_torch.py` defines them: a U-Net of 10.3M parameters and a language model of 8.3M.

use std::collections::BTreeMap;

use anyhow::Result;
use pomona_exec::{
    AdamW, Device, Feeds, Loaded, Moving, Options, Tensor, Wrt, cross_entropy, evaluate, gradients_of_loss,
};
use pomona_graph::{
    Activation, AttentionAttrs, BinaryFn, ConvAttrs, Graph, GraphBuilder, Op, ResizeCoordinates, ResizeMode,
    TensorId, ValueId, ValueType,
};

use super::operations::{noise, weights};
use super::side::Runs;

pub const NAMES: [&str; 2] = ["unet", "lm"];

/// What a net is trained towards.
enum Target {
    /// Numbers: mean squared error.
    Numbers(Box<Tensor>),
    /// Classes of the last axis: cross-entropy.
    Classes(Vec<u32>),
}

struct Net {
    graph: Graph,
    feeds: Feeds,
    output: ValueId,
    target: Target,
}

/// `NET_train` or `NET_forward`, and the number of parameters.
pub fn make(name: &str) -> Result<Option<(Runs, u64)>> {
    let net = match name {
        "unet_train" | "unet_forward" => unet()?,
        "lm_train" | "lm_forward" => language_model()?,
        _ => return Ok(None),
    };
    let mut weights = weights(&net.graph)?;
    let parameters = weights.0.values().map(|t| t.elements() as u64).sum();
    if name.ends_with("_forward") {
        let run = move || {
            evaluate(&net.graph, &weights, &net.feeds, &[net.output], &Options::default())?;
            Ok(())
        };
        return Ok(Some((Box::new(run), parameters)));
    }
    let tensors: Vec<TensorId> = weights.0.keys().copied().collect();
    let mut moving: BTreeMap<TensorId, Moving> =
        weights.0.iter().map(|(id, t)| (*id, Moving::new(t.elements()))).collect();
    let run = move || step(&net, &mut weights, &mut moving, &tensors);
    Ok(Some((Box::new(run), parameters)))
}

fn step(
    net: &Net,
    weights: &mut Loaded,
    moving: &mut BTreeMap<TensorId, Moving>,
    tensors: &[TensorId],
) -> Result<()> {
    let wrt = Wrt { values: &[], weights: tensors };
    let loss = |out: &[Tensor]| {
        Ok(vec![match &net.target {
            Target::Classes(t) => loss_gradient(&out[0], t)?,
            Target::Numbers(y) => out[0].sub(y)?.scale(2.0 / y.elements() as f32)?,
        }])
    };
    let found =
        gradients_of_loss(&net.graph, weights, &net.feeds, &[net.output], wrt, &Options::default(), loss)?;
    let rule = AdamW { rate: 1e-4, ..AdamW::default() };
    for (id, gradient) in &found.weights {
        if let (Some(w), Some(m)) = (weights.0.get_mut(id), moving.get_mut(id)) {
            rule.step(w, gradient, m)?;
        }
    }
    Ok(())
}

/// Of the mean cross-entropy, whose value is worked out with it.
pub fn loss_gradient(logits: &Tensor, targets: &[u32]) -> pomona_exec::Result<Tensor> {
    let mut values = logits.to_f32()?;
    cross_entropy(&mut values, logits.elements() / targets.len(), targets, 1.0 / targets.len() as f32);
    Tensor::from_f32(values, logits.shape(), logits.device())
}

const WIDTHS: [usize; 4] = [64, 128, 256, 256];

fn residual(b: &mut GraphBuilder, path: &str, x: ValueId, inputs: usize, outputs: usize) -> Result<ValueId> {
    let mut half = |name: &str, x: ValueId| -> Result<ValueId> {
        let h = b.group_norm(&format!("{path}.norm{name}"), x, 8, 1e-5)?;
        let h = b.activation(&format!("{path}.silu{name}"), Activation::Silu, h)?;
        Ok(b.conv(&format!("{path}.conv{name}"), h, outputs, &[3, 3], ConvAttrs::square(1, 1))?)
    };
    let h = half("1", x)?;
    let h = half("2", h)?;
    let skip = if inputs == outputs {
        x
    } else {
        b.conv(&format!("{path}.skip"), x, outputs, &[1, 1], ConvAttrs::square(1, 0))?
    };
    Ok(b.add(&format!("{path}.add"), &[h, skip])?)
}

fn unet() -> Result<Net> {
    let mut b = GraphBuilder::new("unet", "f32");
    let x = b.input("x", [8, 3, 32, 32].map(Into::into).to_vec(), ValueType::Float);
    let three = |b: &mut GraphBuilder, path: &str, x, out, stride| {
        b.conv(path, x, out, &[3, 3], ConvAttrs::square(stride, 1))
    };
    let mut h = three(&mut b, "first", x, WIDTHS[0], 1)?;
    let mut skips = Vec::new();
    let mut width = WIDTHS[0];
    for (i, w) in WIDTHS.into_iter().enumerate() {
        h = residual(&mut b, &format!("down.{i}"), h, width, w)?;
        width = w;
        skips.push(h);
        if i < 3 {
            h = three(&mut b, &format!("shrink.{i}"), h, w, 2)?;
        }
    }
    h = residual(&mut b, "middle", h, width, width)?;
    for (i, w) in WIDTHS.into_iter().rev().enumerate() {
        let skip = skips[3 - i];
        h = b.node(&format!("join.{i}"), Op::Concat { axis: 1 }, &[h, skip], &[])?;
        h = residual(&mut b, &format!("up.{i}"), h, width + w, w)?;
        width = w;
        if i < 3 {
            let size = vec![(8 << i).into(), (8 << i).into()];
            let op =
                Op::Resize { mode: ResizeMode::Nearest, coordinates: ResizeCoordinates::Asymmetric, size };
            h = b.node(&format!("resize.{i}"), op, &[h], &[])?;
            h = three(&mut b, &format!("grow.{i}"), h, w, 1)?;
        }
    }
    h = b.group_norm("norm", h, 8, 1e-5)?;
    h = b.activation("silu", Activation::Silu, h)?;
    let output = three(&mut b, "last", h, 3, 1)?;
    b.output("y", output);
    let feeds = Feeds::from([(x, noise(1, &[8, 3, 32, 32], 1.7)?)]);
    Ok(Net {
        graph: b.finish()?,
        feeds,
        output,
        target: Target::Numbers(Box::new(noise(2, &[8, 3, 32, 32], 1.7)?)),
    })
}

fn language_model() -> Result<Net> {
    const WIDTH: usize = 288;
    let mut b = GraphBuilder::new("lm", "f32");
    let ids = b.input("ids", vec![4.into(), 256.into()], ValueType::Int);
    let mut x = b.embedding("embed", ids, 4096, WIDTH)?;
    for i in 0..6 {
        let at = |name: &str| format!("blocks.{i}.{name}");
        let n = b.rms_norm(&at("norm1"), x, 1e-5)?;
        let q = b.linear(&at("q"), n, WIDTH, false)?;
        let k = b.linear(&at("k"), n, WIDTH, false)?;
        let v = b.linear(&at("v"), n, WIDTH, false)?;
        let scale = (WIDTH as f64 / 6.0).powf(-0.5);
        let attrs =
            AttentionAttrs { heads: 6, kv_heads: 6, scale, causal: true, window: None, softcap: None };
        let a = b.node(&at("attention"), Op::Attention(attrs), &[q, k, v], &[])?;
        let a = b.linear(&at("o"), a, WIDTH, false)?;
        x = b.add(&at("add1"), &[x, a])?;
        let n = b.rms_norm(&at("norm2"), x, 1e-5)?;
        let gate = b.linear(&at("gate"), n, 768, false)?;
        let up = b.linear(&at("up"), n, 768, false)?;
        let gate = b.activation(&at("silu"), Activation::Silu, gate)?;
        let inner = b.node(&at("product"), Op::Binary { function: BinaryFn::Mul }, &[gate, up], &[])?;
        let down = b.linear(&at("down"), inner, WIDTH, false)?;
        x = b.add(&at("add2"), &[x, down])?;
    }
    let n = b.rms_norm("norm", x, 1e-5)?;
    let output = b.linear("head", n, 4096, false)?;
    b.output("logits", output);
    let tokens: Vec<i64> = (0..1024).map(|i| i * 61 % 4096).collect();
    let feeds = Feeds::from([(ids, Tensor::from_i64(tokens, &[4, 256], &Device::cpu())?)]);
    let targets = (0..1024).map(|i| i * 97 % 4096).collect();
    Ok(Net { graph: b.finish()?, feeds, output, target: Target::Classes(targets) })
}
