//! Single operations as graphs of a node or two, run as every graph is.

use anyhow::{Context, Result, bail};
use pomona_exec::{Device, Feeds, Loaded, Options, Tensor, Wrt, evaluate, gradients, gradients_of_loss};
use pomona_graph::{
    Activation, AttentionAttrs, BatchStatistics, BinaryFn, ConvAttrs, Direction, Graph, GraphBuilder, Op,
    RecurrentCell, Slot, TensorId, ValueId, ValueType,
};

use super::nets::loss_gradient;
use super::side::Runs;

const NAMES: [&str; 24] = [
    "linear",
    "linear_wide",
    "conv64",
    "conv320",
    "conv1x1",
    "conv_stride2",
    "depthwise",
    "conv1d",
    "transposed",
    "group_norm",
    "group_norm_silu",
    "layer_norm",
    "rms_norm",
    "batch_norm",
    "softmax",
    "gelu",
    "swiglu",
    "attention",
    "attention_4096",
    "attention_causal",
    "cross_entropy",
    "embedding",
    "lstm",
    "gru",
];

pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

/// A tensor of numbers in [-1, 1) that look random, times a factor.
pub fn noise(seed: u64, shape: &[usize], factor: f32) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * factor
    };
    let n = shape.iter().product();
    Ok(Tensor::from_f32((0..n).map(|_| next()).collect(), shape, &Device::cpu())?)
}

struct Case {
    graph: Graph,
    feeds: Feeds,
    output: ValueId,
}

struct Builder {
    b: GraphBuilder,
    feeds: Feeds,
}

impl Builder {
    fn input(&mut self, shape: &[usize]) -> Result<ValueId> {
        let n = self.feeds.len();
        let id =
            self.b.input(&format!("x{n}"), shape.iter().map(|d| (*d).into()).collect(), ValueType::Float);
        self.feeds.insert(id, noise(n as u64 + 1, shape, 1.7)?);
        Ok(id)
    }

    fn finish(self, output: ValueId) -> Result<Case> {
        let Builder { mut b, feeds } = self;
        b.output("y", output);
        Ok(Case { graph: b.finish()?, feeds, output })
    }
}

fn line(padding: usize) -> ConvAttrs {
    ConvAttrs { stride: vec![1], padding: vec![[padding; 2]], dilation: vec![1], groups: 1 }
}

fn case(name: &str) -> Result<Case> {
    let mut c = Builder { b: GraphBuilder::new("operation", "f32"), feeds: Feeds::new() };
    let conv = |c: &mut Builder, x: &[usize], out: usize, k: usize, attrs: ConvAttrs| {
        let x = c.input(x)?;
        Ok::<_, anyhow::Error>(c.b.conv("conv", x, out, &vec![k; attrs.stride.len()], attrs)?)
    };
    let attention = |c: &mut Builder, [batch, heads, kv_heads, n, d]: [usize; 5], causal| {
        let scale = (d as f64).powf(-0.5);
        let attrs = AttentionAttrs { heads, kv_heads, scale, causal, window: None, softcap: None };
        let q = c.input(&[batch, n, heads * d])?;
        let k = c.input(&[batch, n, kv_heads * d])?;
        let v = c.input(&[batch, n, kv_heads * d])?;
        Ok::<_, anyhow::Error>(c.b.node("attention", Op::Attention(attrs), &[q, k, v], &[])?)
    };
    let y = match name {
        "linear" => {
            let x = c.input(&[1024, 1024])?;
            c.b.linear("linear", x, 1024, true)?
        }
        "linear_wide" => {
            let x = c.input(&[1024, 288])?;
            c.b.linear("linear", x, 4096, true)?
        }
        "conv64" => conv(&mut c, &[4, 64, 64, 64], 64, 3, ConvAttrs::square(1, 1))?,
        "conv320" => conv(&mut c, &[1, 320, 64, 64], 320, 3, ConvAttrs::square(1, 1))?,
        "conv1x1" => conv(&mut c, &[4, 128, 32, 32], 256, 1, ConvAttrs::square(1, 0))?,
        "conv_stride2" => conv(&mut c, &[4, 64, 64, 64], 128, 3, ConvAttrs::square(2, 1))?,
        "depthwise" => {
            conv(&mut c, &[4, 192, 56, 56], 192, 3, ConvAttrs { groups: 192, ..ConvAttrs::square(1, 1) })?
        }
        "conv1d" => conv(&mut c, &[4, 128, 512], 128, 5, line(2))?,
        "transposed" => {
            let x = c.input(&[4, 64, 32, 32])?;
            let w = c.b.parameter("conv.weight", &[64, 64, 4, 4])?;
            let bias = c.b.parameter("conv.bias", &[64])?;
            let op = Op::ConvTranspose { conv: ConvAttrs::square(2, 1), output_padding: vec![0; 2] };
            c.b.node("conv", op, &[x], &[(Slot::Weight, w), (Slot::Bias, bias)])?
        }
        "group_norm" | "group_norm_silu" => {
            let x = c.input(&[1, 320, 64, 64])?;
            let y = c.b.group_norm("norm", x, 32, 1e-5)?;
            if name == "group_norm" { y } else { c.b.activation("silu", Activation::Silu, y)? }
        }
        "layer_norm" => {
            let x = c.input(&[4096, 320])?;
            c.b.layer_norm("norm", x, 1e-5)?
        }
        "rms_norm" => {
            let x = c.input(&[2048, 576])?;
            c.b.rms_norm("norm", x, 1e-5)?
        }
        "batch_norm" => {
            let x = c.input(&[8, 64, 56, 56])?;
            let weights = [
                (Slot::Weight, "weight"),
                (Slot::Bias, "bias"),
                (Slot::RunningMean, "mean"),
                (Slot::RunningVar, "var"),
            ];
            let weights = weights.map(|(s, n)| Ok((s, c.b.parameter(n, &[64])?)));
            let weights = weights.into_iter().collect::<Result<Vec<_>>>()?;
            c.b.node(
                "norm",
                Op::BatchNorm { eps: 1e-5, momentum: 0.1, statistics: BatchStatistics::Batch },
                &[x],
                &weights,
            )?
        }
        "softmax" => {
            let x = c.input(&[8, 1024, 1024])?;
            c.b.node("softmax", Op::Softmax { axis: 2, log: false }, &[x], &[])?
        }
        "gelu" => {
            let x = c.input(&[4096, 1024])?;
            c.b.activation("gelu", Activation::Gelu, x)?
        }
        "swiglu" => {
            let (gate, up) = (c.input(&[2048, 1536])?, c.input(&[2048, 1536])?);
            let gate = c.b.activation("silu", Activation::Silu, gate)?;
            c.b.node("product", Op::Binary { function: BinaryFn::Mul }, &[gate, up], &[])?
        }
        "attention" => attention(&mut c, [1, 8, 8, 1024, 40], false)?,
        "attention_4096" => attention(&mut c, [1, 2, 2, 4096, 40], false)?,
        "attention_causal" => attention(&mut c, [2, 9, 3, 512, 64], true)?,
        "cross_entropy" => c.input(&[1024, 4096])?,
        "embedding" => {
            let ids = c.b.input("ids", vec![1024.into()], ValueType::Int);
            let values = (0..1024).map(|i| i * 37 % 4096).collect();
            c.feeds.insert(ids, Tensor::from_i64(values, &[1024], &Device::cpu())?);
            c.b.embedding("table", ids, 4096, 288)?
        }
        "lstm" | "gru" => {
            let (cell, gates) =
                if name == "lstm" { (RecurrentCell::Lstm, 4) } else { (RecurrentCell::Gru, 3) };
            let mut inputs = vec![c.input(&[8, 100, 128])?];
            for _ in 0..gates - 2 {
                inputs.push(c.input(&[8, 256])?);
            }
            let shapes: [(Slot, &str, &[usize]); 4] = [
                (Slot::WeightIh, "ih", &[gates * 256, 128]),
                (Slot::WeightHh, "hh", &[gates * 256, 256]),
                (Slot::BiasIh, "bias_ih", &[gates * 256]),
                (Slot::BiasHh, "bias_hh", &[gates * 256]),
            ];
            let weights = shapes.map(|(s, n, shape)| Ok((s, c.b.parameter(n, shape)?)));
            let weights = weights.into_iter().collect::<Result<Vec<_>>>()?;
            let op = Op::Recurrent { cell, hidden: 256, direction: Direction::Forward, reset_after: true };
            let outputs = c.b.node_multi("cell", op, &inputs, &weights)?;
            outputs[0]
        }
        other => bail!("there is no operation `{other}`"),
    };
    c.finish(y)
}

/// Weights of noise, as large as layers of their width are.
pub fn weights(graph: &Graph) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    for (i, def) in graph.tensors.iter().enumerate() {
        let id = TensorId(i as u32);
        let fan: usize = def.shape[1..].iter().product();
        let one = def.shape.len() == 1 && !def.name.contains("bias");
        let t = noise(u64::from(id.0) + 7, &def.shape, 1.7 / (fan as f32).sqrt())?;
        loaded.0.insert(id, if one { Tensor::full(1.0, &def.shape, &Device::cpu())? } else { t });
    }
    Ok(loaded)
}

/// `NAME_f` runs forward, `NAME_fb` forward and backward for all floats fed and all weights.
pub fn make(name: &str) -> Result<Runs> {
    let (stem, kind) = name.rsplit_once('_').context("an operation's name ends in _f or _fb")?;
    let Case { graph, feeds, output } = case(stem)?;
    let weights = weights(&graph)?;
    let options = Options::default();
    let targets: Vec<u32> = (0..1024).map(|i| i * 61 % 4096).collect();
    if kind == "f" {
        return Ok(Box::new(move || {
            let out = evaluate(&graph, &weights, &feeds, &[output], &options)?;
            if stem_is_loss(&graph) {
                loss_gradient(&out[0], &targets)?;
            }
            Ok(())
        }));
    }
    let floats: Vec<ValueId> = feeds
        .iter()
        .filter(|(_, t)| t.kind() == pomona_exec::Kind::Float)
        .map(|(v, _)| *v)
        .take(taken(stem))
        .collect();
    let tensors: Vec<_> = weights.0.keys().copied().collect();
    if stem_is_loss(&graph) {
        return Ok(Box::new(move || {
            let wrt = Wrt { values: &floats, weights: &tensors };
            gradients_of_loss(&graph, &weights, &feeds, &[output], wrt, &options, |out| {
                Ok(vec![loss_gradient(&out[0], &targets)?])
            })?;
            Ok(())
        }));
    }
    let shape = evaluate(&graph, &weights, &feeds, &[output], &options)?[0].shape().to_vec();
    let above = [(output, Tensor::full(1.0, &shape, &Device::cpu())?)];
    Ok(Box::new(move || {
        gradients(&graph, &weights, &feeds, &above, &floats, &tensors, &options)?;
        Ok(())
    }))
}

/// The loss is a graph without nodes.
fn stem_is_loss(graph: &Graph) -> bool {
    graph.nodes.is_empty()
}

/// PyTorch's recurrent layers are asked for gradients of their weights alone.
fn taken(stem: &str) -> usize {
    if matches!(stem, "lstm" | "gru") { 0 } else { usize::MAX }
}
