//! Networks with seeded weights, and the two ways to lose channels: cut, or masked behind the norm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "tests")]

use std::collections::BTreeMap;

use pomona_exec::{Device, Feeds, Loaded, Options, Tensor, WeightProvider, evaluate};
use pomona_graph::*;
use pomona_task::{EditedWeights, Weights, empty_states};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// All weights in memory.
pub struct Seeded(pub Loaded);

impl WeightProvider for Seeded {
    fn get(&self, id: TensorId) -> pomona_exec::Result<Tensor> {
        self.0.get(id)
    }
}

impl Weights for Seeded {
    fn release(&self) {}
}

/// Uniform weights of a sensible size; running variances positive, shifts of norms not zero.
pub fn seeded(graph: &Graph, seed: u64) -> Seeded {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut all = BTreeMap::new();
    for (id, t) in graph.iter_tensors() {
        let n = t.elements() as usize;
        let fan: usize = t.shape.iter().skip(1).product();
        let bound = if t.shape.len() > 1 { (3.0 / fan as f32).sqrt() } else { 0.5 };
        let base = if t.shape.len() == 1 && !t.name.ends_with("bias") { 1.0 } else { 0.0 };
        let values = (0..n).map(|_| base + bound * (2.0 * rng.random::<f32>() - 1.0)).collect();
        all.insert(id, Tensor::from_f32(values, &t.shape, &Device::cpu()).unwrap());
    }
    Seeded(Loaded(all))
}

/// Seeded values on the only input.
pub fn feeds(graph: &Graph, seed: u64) -> Feeds {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let input = graph.inputs[0].value;
    let shape: Vec<usize> = graph.value(input).shape.iter().map(|d| d.as_int().unwrap() as usize).collect();
    let values = (0..shape.iter().product()).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect();
    Feeds::from([(input, Tensor::from_f32(values, &shape, &Device::cpu()).unwrap())])
}

pub fn run(graph: &Graph, weights: &dyn WeightProvider, feeds: &Feeds) -> Vec<f32> {
    let out = graph.outputs[0].value;
    evaluate(graph, weights, feeds, &[out], &Options::default()).unwrap()[0].to_f32().unwrap()
}

/// The output of the graph that the edits make.
pub fn run_cut(graph: &Graph, weights: &dyn Weights, feeds: &Feeds, edits: &[Edit]) -> Vec<f32> {
    let (edited, recipe) = apply(graph, edits).unwrap();
    let cut = EditedWeights::new(graph, weights, (&edited, &recipe), &Device::cpu());
    let again = |p: &Port| (edited.input(&p.name).unwrap(), feeds[&p.value].clone());
    let mut fed: Feeds = graph.inputs.iter().map(again).collect();
    // Caches have other widths where heads are gone.
    let batch = feeds[&graph.inputs[0].value].shape()[0];
    fed.extend(empty_states(&edited, batch, &Device::cpu()).unwrap());
    run(&edited, &cut, &fed)
}

/// The output of the whole graph with channels put to zero where they enter the rest of the network: behind the norm that
/// follows the layer which makes them.
pub fn run_masked(
    graph: &Graph,
    weights: &dyn Weights,
    feeds: &Feeds,
    groups: &[ChannelGroup],
    kept: &BTreeMap<usize, Vec<u32>>,
) -> Vec<f32> {
    let consumers = graph.consumers();
    let mut masks: BTreeMap<ValueId, Vec<bool>> = BTreeMap::new();
    for (g, kept) in kept {
        let group = &groups[*g];
        for (id, _) in group.makers(graph) {
            let node = graph.node(id);
            let weight = node.weights[&Slot::Weight];
            let member = group.members.iter().find(|m| m.tensor == weight && m.side == Side::Makes).unwrap();
            let mut value = node.outputs[0];
            while let [(next, _)] = consumers[value.0 as usize].as_slice() {
                if !matches!(graph.node(*next).op, Op::BatchNorm { .. }) {
                    break;
                }
                value = graph.node(*next).outputs[0];
            }
            let mask = masks.entry(value).or_insert_with(|| vec![true; member.channel.len()]);
            for (m, c) in mask.iter_mut().zip(&member.channel) {
                *m &= c.is_none_or(|c| kept.contains(&c));
            }
        }
    }
    let mut feeds = feeds.clone();
    let order = graph.nodes.iter().flat_map(|n| n.outputs.iter().copied());
    for v in order.filter(|v| masks.contains_key(v)).collect::<Vec<_>>() {
        let t = evaluate(graph, weights, &feeds, &[v], &Options::default()).unwrap().remove(0);
        let (shape, mut data) = (t.shape().to_vec(), t.to_f32().unwrap());
        let inner: usize = shape[2..].iter().product();
        for (i, run) in data.chunks_mut(inner).enumerate() {
            if !masks[&v][i % shape[1]] {
                run.fill(0.0);
            }
        }
        feeds.insert(v, Tensor::from_f32(data, &shape, &Device::cpu()).unwrap());
    }
    run(graph, weights, &feeds)
}

/// max |a - b| as a share of the allowed 1e-4 x max(1, max |a|).
pub fn gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / (1e-4 * scale)
}

pub struct Net(pub GraphBuilder);

impl Net {
    pub fn new(channels: usize, size: usize) -> (Net, ValueId) {
        let mut b = GraphBuilder::new("model", "f32");
        let shape = [1, channels, size, size].map(Dim::from).to_vec();
        let x = b.input("x", shape, ValueType::Float);
        (Net(b), x)
    }

    pub fn channels(&self, x: ValueId) -> usize {
        self.0.shape(x)[1].size("channels").unwrap()
    }

    /// A convolution without a bias.
    pub fn conv(&mut self, path: &str, x: ValueId, out: usize, kernel: usize, attrs: ConvAttrs) -> ValueId {
        let shape = [out, self.channels(x) / attrs.groups, kernel, kernel];
        let w = self.0.parameter(&format!("{path}.weight"), &shape).unwrap();
        self.0.node(path, Op::Conv(attrs), &[x], &[(Slot::Weight, w)]).unwrap()
    }

    pub fn up(&mut self, path: &str, x: ValueId, out: usize, bias: bool) -> ValueId {
        let w = self.0.parameter(&format!("{path}.weight"), &[self.channels(x), out, 4, 4]).unwrap();
        let mut weights = vec![(Slot::Weight, w)];
        if bias {
            weights.push((Slot::Bias, self.0.parameter(&format!("{path}.bias"), &[out]).unwrap()));
        }
        let op = Op::ConvTranspose { conv: ConvAttrs::square(2, 1), output_padding: vec![0, 0] };
        self.0.node(path, op, &[x], &weights).unwrap()
    }

    pub fn norm(&mut self, path: &str, x: ValueId, statistics: BatchStatistics) -> ValueId {
        let c = [self.channels(x)];
        let mut weights = vec![
            (Slot::Weight, self.0.parameter(&format!("{path}.weight"), &c).unwrap()),
            (Slot::Bias, self.0.parameter(&format!("{path}.bias"), &c).unwrap()),
        ];
        for (slot, name) in [(Slot::RunningMean, "running_mean"), (Slot::RunningVar, "running_var")] {
            weights.push((slot, self.0.tensor(&format!("{path}.{name}"), &c, "f32", Role::Buffer).unwrap()));
        }
        let op = Op::BatchNorm { eps: 1e-5, momentum: 0.1, statistics };
        self.0.node(path, op, &[x], &weights).unwrap()
    }

    pub fn act(&mut self, path: &str, f: Activation, x: ValueId) -> ValueId {
        self.0.activation(path, f, x).unwrap()
    }
}

/// The pix2pix generator: `levels` strided convolutions down and as many transposed ones up, joined by skips. Widths
/// `ngf x 1, 2, 4, 8, 8, ..`; no norm on the outermost and innermost way down; batch statistics, as trained with batch 1.
pub fn pix2pix(levels: usize, ngf: usize, size: usize) -> Graph {
    let (mut n, mut x) = Net::new(3, size);
    let width = |level: usize| ngf * [1, 2, 4, 8].get(level - 1).copied().unwrap_or(8);
    let mut skips = Vec::new();
    for level in 1..=levels {
        if level > 1 {
            x = n.act(&format!("down{level}.act"), Activation::LeakyRelu(0.2), x);
        }
        x = n.conv(&format!("down{level}.conv"), x, width(level), 4, ConvAttrs::square(2, 1));
        if level > 1 && level < levels {
            x = n.norm(&format!("down{level}.norm"), x, BatchStatistics::Batch);
        }
        skips.push(x);
    }
    skips.pop();
    for level in (1..=levels).rev() {
        let p = format!("up{level}");
        x = n.act(&format!("{p}.act"), Activation::Relu, x);
        let out = if level > 1 { width(level - 1) } else { 3 };
        x = n.up(&format!("{p}.conv"), x, out, level == 1);
        if level > 1 {
            x = n.norm(&format!("{p}.norm"), x, BatchStatistics::Batch);
            if level > 4 && level < levels {
                x = n.0.node(&format!("{p}.dropout"), Op::Dropout { rate: 0.5 }, &[x], &[]).unwrap();
            }
            let skip = skips.pop().unwrap();
            x = n.0.node(&format!("{p}.cat"), Op::Concat { axis: 1 }, &[skip, x], &[]).unwrap();
        }
    }
    let y = n.act("tanh", Activation::Tanh, x);
    n.0.output("y", y);
    n.0.finish().unwrap()
}

/// A residual network with BatchNorm, a depthwise block and a linear head.
pub fn resnet() -> Graph {
    residual(false)
}

/// The same; where the width changes, zeros are added to what is skipped, or a convolution makes it.
pub fn residual(zeros: bool) -> Graph {
    let (mut n, x) = Net::new(3, 16);
    let running = BatchStatistics::Running;
    let x = n.conv("conv1", x, 8, 3, ConvAttrs::square(1, 1));
    let x = n.norm("bn1", x, running);
    let mut x = n.act("relu1", Activation::Relu, x);
    for (i, (width, stride)) in [(8, 1), (16, 2), (16, 1)].into_iter().enumerate() {
        let p = format!("layers.{i}");
        let h = n.conv(&format!("{p}.conv1"), x, width, 3, ConvAttrs::square(stride, 1));
        let h = n.norm(&format!("{p}.bn1"), h, running);
        let h = n.act(&format!("{p}.relu1"), Activation::Relu, h);
        let h =
            n.conv(&format!("{p}.dw"), h, width, 3, ConvAttrs { groups: width, ..ConvAttrs::square(1, 1) });
        let h = n.norm(&format!("{p}.bn2"), h, running);
        let h = n.conv(&format!("{p}.conv2"), h, width, 1, ConvAttrs::square(1, 0));
        let h = n.norm(&format!("{p}.bn3"), h, running);
        let skip = if stride == 1 {
            x
        } else if zeros {
            // Every other pixel, with zeros for the new channels, as CIFAR's ResNets have it.
            let pool = Op::Pool {
                kind: PoolKind::Max,
                kernel: vec![1; 2],
                stride: vec![2; 2],
                padding: vec![[0; 2]; 2],
                ceil: false,
                count_padding: false,
            };
            let s = n.0.node(&format!("{p}.pixels"), pool, &[x], &[]).unwrap();
            let amounts = vec![[0; 2], [4; 2], [0; 2], [0; 2]];
            let pad = Op::Pad { amounts, mode: PadMode::Constant { value: 0.0 } };
            n.0.node(&format!("{p}.zeros"), pad, &[s], &[]).unwrap()
        } else {
            let s = n.conv(&format!("{p}.shortcut"), x, width, 1, ConvAttrs::square(stride, 0));
            n.norm(&format!("{p}.shortcut_bn"), s, running)
        };
        let sum = n.0.add(&format!("{p}.add"), &[skip, h]).unwrap();
        x = n.act(&format!("{p}.relu2"), Activation::Relu, sum);
    }
    let pool = Op::AdaptivePool { kind: PoolKind::Average, size: vec![2, 2] };
    let x = n.0.node("pool", pool, &[x], &[]).unwrap();
    let shape = vec![1.into(), 64.into()];
    let x = n.0.node("flat", Op::Reshape { shape }, &[x], &[]).unwrap();
    let y = n.0.linear("fc", x, 5, true).unwrap();
    n.0.output("y", y);
    n.0.finish().unwrap()
}
