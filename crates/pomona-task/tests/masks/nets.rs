//! Small networks from a list of bytes: every operator that ties axes, in any order.

use pomona_graph::*;

/// A picture through some blocks of convolutions, then its pixels as tokens through some blocks of a transformer or
/// recurrent cells, then a head.
pub fn generated(image: &[u8], tokens: &[u8]) -> Graph {
    let mut b = GraphBuilder::new("net", "f32");
    let x = b.input("x", [1, 3, 6, 6].map(Dim::from).to_vec(), ValueType::Float);
    let mut x = b.conv("stem", x, 8, &[3, 3], ConvAttrs::square(1, 1)).unwrap();
    let mut kept = vec![x];
    for (i, s) in image.iter().enumerate() {
        x = block(&mut b, &format!("image.{i}"), x, *s, &mut kept);
    }
    let size = |b: &GraphBuilder, x: ValueId, axis: usize| b.shape(x)[axis].size("axis").unwrap();
    let (c, h, w) = (size(&b, x, 1), size(&b, x, 2), size(&b, x, 3));
    if tokens.is_empty() {
        // The channels of every pixel side by side.
        let pool = Op::AdaptivePool { kind: PoolKind::Average, size: vec![2, 2] };
        let x = b.node("pool", pool, &[x], &[]).unwrap();
        let x = b.node("flat", Op::Reshape { shape: vec![1.into(), (c * 4).into()] }, &[x], &[]).unwrap();
        let y = b.linear("head", x, 3, true).unwrap();
        b.output("y", y);
        return b.finish().unwrap();
    }
    let shape = [1, c, h * w].map(Dim::from).to_vec();
    let x = b.node("flatten", Op::Reshape { shape }, &[x], &[]).unwrap();
    let x = b.node("to_tokens", Op::Transpose { axes: vec![0, 2, 1] }, &[x], &[]).unwrap();
    let class = constant(&mut b, "class_token", &[1, 1, c]);
    let x = b.node("with_class", Op::Concat { axis: 1 }, &[class, x], &[]).unwrap();
    let places = constant(&mut b, "positions", &[1, h * w + 1, c]);
    let mut x = b.add("placed", &[x, places]).unwrap();
    let order = b.node("order", Op::Range { end: (h * w + 1).into() }, &[], &[]).unwrap();
    for (i, s) in tokens.iter().enumerate() {
        x = layer(&mut b, &format!("tokens.{i}"), x, order, *s);
    }
    let slice = Op::Slice { axis: 1, start: 0.into(), end: 1.into(), step: 1 };
    let x = b.node("class", slice, &[x], &[]).unwrap();
    let width = size(&b, x, 2);
    let x = b.node("row", Op::Reshape { shape: vec![1.into(), width.into()] }, &[x], &[]).unwrap();
    let y = b.linear("head", x, 3, true).unwrap();
    b.output("y", y);
    b.finish().unwrap()
}

fn constant(b: &mut GraphBuilder, name: &str, shape: &[usize]) -> ValueId {
    let t = b.parameter(name, shape).unwrap();
    b.node(&format!("{name}.value"), Op::Constant {}, &[], &[(Slot::Weight, t)]).unwrap()
}

fn batch_norm(b: &mut GraphBuilder, p: &str, x: ValueId, statistics: BatchStatistics) -> ValueId {
    let c = [b.shape(x)[1].size("channels").unwrap()];
    let weights = vec![
        (Slot::Weight, b.parameter(&format!("{p}.weight"), &c).unwrap()),
        (Slot::Bias, b.parameter(&format!("{p}.bias"), &c).unwrap()),
        (Slot::RunningMean, b.tensor(&format!("{p}.running_mean"), &c, "f32", Role::Buffer).unwrap()),
        (Slot::RunningVar, b.tensor(&format!("{p}.running_var"), &c, "f32", Role::Buffer).unwrap()),
    ];
    b.node(p, Op::BatchNorm { eps: 1e-3, momentum: 0.1, statistics }, &[x], &weights).unwrap()
}

/// One of the blocks of a convolutional network; its width is a multiple of 4.
fn block(b: &mut GraphBuilder, p: &str, x: ValueId, s: u8, kept: &mut Vec<ValueId>) -> ValueId {
    let c = b.shape(x)[1].size("channels").unwrap();
    let (kind, more) = (s % 14, s / 14);
    let wide = [8, 12, 16][more as usize % 3];
    let same = ConvAttrs::square(1, 1);
    let at = |n: &str| format!("{p}.{n}");
    let y = match kind {
        0 => {
            let h = b.conv(&at("conv"), x, wide, &[3, 3], same).unwrap();
            let h = batch_norm(b, &at("norm"), h, BatchStatistics::Running);
            b.activation(&at("act"), Activation::Relu, h).unwrap()
        }
        1 => {
            let h = b.conv(&at("grouped"), x, wide, &[3, 3], ConvAttrs { groups: 2, ..same }).unwrap();
            b.activation(&at("act"), Activation::Silu, h).unwrap()
        }
        2 => {
            let h = b.conv(&at("depthwise"), x, c, &[3, 3], ConvAttrs { groups: c, ..same }).unwrap();
            let h = batch_norm(b, &at("norm"), h, BatchStatistics::Batch);
            b.conv(&at("pointwise"), h, wide, &[1, 1], ConvAttrs::square(1, 0)).unwrap()
        }
        3 => {
            let weight = b.parameter(&at("up.weight"), &[c, wide, 3, 3]).unwrap();
            let bias = b.parameter(&at("up.bias"), &[wide]).unwrap();
            let op = Op::ConvTranspose { conv: same, output_padding: vec![0, 0] };
            b.node(&at("up"), op, &[x], &[(Slot::Weight, weight), (Slot::Bias, bias)]).unwrap()
        }
        4 | 5 => {
            let h = b.group_norm(&at("norm"), x, [2, 4][more as usize % 2], 1e-3).unwrap();
            let h = b.activation(&at("act"), Activation::Silu, h).unwrap();
            let h = b.conv(&at("conv1"), h, wide, &[3, 3], same.clone()).unwrap();
            let h = b.conv(&at("conv2"), h, c, &[3, 3], same).unwrap();
            b.add(&at("residual"), &[x, h]).unwrap()
        }
        6 => {
            let skip = kept.pop().unwrap_or(x);
            b.node(&at("concat"), Op::Concat { axis: 1 }, &[x, skip], &[]).unwrap()
        }
        7 => {
            // Squeeze and excitation: a factor a channel.
            let op = Op::AdaptivePool { kind: PoolKind::Average, size: vec![1, 1] };
            let h = b.node(&at("squeeze"), op, &[x], &[]).unwrap();
            let h = b.conv(&at("reduce"), h, 4, &[1, 1], ConvAttrs::square(1, 0)).unwrap();
            let h = b.activation(&at("act"), Activation::Relu, h).unwrap();
            let h = b.conv(&at("expand"), h, c, &[1, 1], ConvAttrs::square(1, 0)).unwrap();
            let h = b.activation(&at("gate"), Activation::Sigmoid, h).unwrap();
            b.node(&at("excite"), Op::Binary { function: BinaryFn::Mul }, &[x, h], &[]).unwrap()
        }
        8 => {
            let h = b.conv(&at("conv"), x, wide * 4, &[1, 1], ConvAttrs::square(1, 0)).unwrap();
            let h =
                b.node(&at("shuffle"), Op::PixelShuffle { factor: 2, inverse: false }, &[h], &[]).unwrap();
            let op = Op::AdaptivePool { kind: PoolKind::Max, size: vec![6, 6] };
            b.node(&at("pool"), op, &[h], &[]).unwrap()
        }
        9 => {
            // Zeros for the new channels, beside a convolution that makes all.
            let mut amounts = vec![[0; 2]; 4];
            amounts[1] = [2, 2];
            let pad = Op::Pad { amounts, mode: PadMode::Constant { value: 0.0 } };
            let zeros = b.node(&at("zeros"), pad, &[x], &[]).unwrap();
            let h = b.conv(&at("conv"), x, c + 4, &[3, 3], same).unwrap();
            b.add(&at("residual"), &[zeros, h]).unwrap()
        }
        10 => {
            let sizes = vec![Dim::from(4), Dim::from(c - 4)];
            let op = Op::Split { axis: 1, map: SplitMap::Parts { sizes } };
            let parts = if c > 4 { b.node_multi(&at("split"), op, &[x], &[]).unwrap() } else { vec![x, x] };
            let h = b.conv(&at("left"), parts[0], 4, &[3, 3], same).unwrap();
            b.node(&at("join"), Op::Concat { axis: 1 }, &[parts[1], h], &[]).unwrap()
        }
        11 => {
            let w = b.parameter(&at("slope"), &[c]).unwrap();
            b.node(&at("prelu"), Op::PRelu {}, &[x], &[(Slot::Weight, w)]).unwrap()
        }
        12 => {
            let weights = [("scale", Slot::Weight), ("shift", Slot::Bias)]
                .map(|(n, slot)| (slot, b.parameter(&at(n), &[c]).unwrap()));
            b.node(&at("norm"), Op::InstanceNorm { eps: 1e-3 }, &[x], &weights).unwrap()
        }
        _ => {
            let h = b.conv(&at("conv"), x, c, &[3, 3], same).unwrap();
            b.node(&at("mean"), Op::Binary { function: BinaryFn::Add }, &[x, h], &[]).unwrap()
        }
    };
    if more % 2 == 0 {
        kept.push(y);
    }
    y
}

/// One of the layers of a sequence model.
fn layer(b: &mut GraphBuilder, p: &str, x: ValueId, order: ValueId, s: u8) -> ValueId {
    let c = b.shape(x)[2].size("width").unwrap();
    let (kind, more) = (s % 7, s / 7);
    let at = |n: &str| format!("{p}.{n}");
    let n = match more % 3 {
        0 => b.layer_norm(&at("norm"), x, 1e-3).unwrap(),
        1 => b.rms_norm(&at("norm"), x, 1e-3).unwrap(),
        _ => x,
    };
    let h = match kind {
        0..=2 => attention(b, &at("attention"), n, order, s),
        3 => {
            let h = b.linear(&at("fc1"), n, 12, true).unwrap();
            let h = b.activation(&at("act"), Activation::Gelu, h).unwrap();
            b.linear(&at("fc2"), h, c, true).unwrap()
        }
        4 => {
            // A gated feed-forward part: two layers, or one whose output is split.
            let (gate, up) = if more % 2 == 0 {
                (b.linear(&at("gate"), n, 12, false).unwrap(), b.linear(&at("up"), n, 12, false).unwrap())
            } else {
                let both = b.linear(&at("gate_up"), n, 24, true).unwrap();
                let op = Op::Split { axis: 2, map: SplitMap::Parts { sizes: vec![12.into(), 12.into()] } };
                let parts = b.node_multi(&at("parts"), op, &[both], &[]).unwrap();
                (parts[0], parts[1])
            };
            let gate = b.activation(&at("act"), Activation::Silu, gate).unwrap();
            let h = b.node(&at("gated"), Op::Binary { function: BinaryFn::Mul }, &[gate, up], &[]).unwrap();
            b.linear(&at("down"), h, c, false).unwrap()
        }
        _ => {
            let direction = [Direction::Forward, Direction::Reverse, Direction::Both][more as usize % 3];
            let cell = if kind == 5 { RecurrentCell::Lstm } else { RecurrentCell::Gru };
            let h = recurrent(b, &at("cell"), n, cell, direction, more % 2 == 0);
            b.linear(&at("out"), h, c, true).unwrap()
        }
    };
    b.add(&at("residual"), &[x, h]).unwrap()
}

/// Attention with separate or joined projections, shared key heads, and rotary positions of whole heads or a part of each.
fn attention(b: &mut GraphBuilder, p: &str, x: ValueId, order: ValueId, s: u8) -> ValueId {
    let c = b.shape(x)[2].size("width").unwrap();
    let (heads, width) = (4, 4);
    let kv = [4, 2, 1][s as usize / 3 % 3];
    let at = |n: &str| format!("{p}.{n}");
    let (q, k, v) = if s.is_multiple_of(2) {
        let all = b.linear(&at("qkv"), x, (heads + 2 * kv) * width, true).unwrap();
        let (map, parts) = if kv == heads && s.is_multiple_of(4) {
            let sizes = vec![Dim::from(width); 3];
            (SplitMap::Interleaved { groups: heads, sizes }, 3)
        } else {
            let sizes = [heads, kv, kv].map(|n| Dim::from(n * width)).to_vec();
            (SplitMap::Parts { sizes }, 3)
        };
        let made = b.node_multi(&at("parts"), Op::Split { axis: 2, map }, &[all], &[]).unwrap();
        assert_eq!(made.len(), parts);
        (made[0], made[1], made[2])
    } else {
        (
            b.linear(&at("q"), x, heads * width, true).unwrap(),
            b.linear(&at("k"), x, kv * width, false).unwrap(),
            b.linear(&at("v"), x, kv * width, true).unwrap(),
        )
    };
    let (mut q, mut k) = (q, k);
    if s % 5 < 2 {
        let rotary = if s.is_multiple_of(5) { width } else { width / 2 };
        let pairing = if s.is_multiple_of(3) { RopePairing::Halves } else { RopePairing::Interleaved };
        let rope =
            |heads| Op::Rope(RopeAttrs { heads, rotary, theta: 100.0, pairing, scaling: RopeScaling::None });
        q = b.node(&at("q_rope"), rope(heads), &[q, order], &[]).unwrap();
        k = b.node(&at("k_rope"), rope(kv), &[k, order], &[]).unwrap();
    }
    let op = Op::Attention(AttentionAttrs {
        heads,
        kv_heads: kv,
        scale: 0.5,
        causal: s % 2 == 1,
        window: None,
        softcap: None,
    });
    let o = b.node(&at("attention"), op, &[q, k, v], &[]).unwrap();
    b.linear(&at("out"), o, c, true).unwrap()
}

fn recurrent(
    b: &mut GraphBuilder,
    p: &str,
    x: ValueId,
    cell: RecurrentCell,
    direction: Direction,
    reset_after: bool,
) -> ValueId {
    let c = b.shape(x)[2].size("width").unwrap();
    let hidden = 6;
    let runs = if direction == Direction::Both { 2 } else { 1 };
    let gates = if cell == RecurrentCell::Lstm { 4 } else { 3 };
    let slots = [
        (Slot::WeightIh, "weight_ih", vec![gates * hidden, c]),
        (Slot::WeightHh, "weight_hh", vec![gates * hidden, hidden]),
        (Slot::BiasIh, "bias_ih", vec![gates * hidden]),
        (Slot::BiasHh, "bias_hh", vec![gates * hidden]),
        (Slot::WeightIhReverse, "weight_ih_reverse", vec![gates * hidden, c]),
        (Slot::WeightHhReverse, "weight_hh_reverse", vec![gates * hidden, hidden]),
        (Slot::BiasIhReverse, "bias_ih_reverse", vec![gates * hidden]),
        (Slot::BiasHhReverse, "bias_hh_reverse", vec![gates * hidden]),
    ];
    let weights: Vec<(Slot, TensorId)> = slots[..4 * runs]
        .iter()
        .map(|(slot, name, shape)| (*slot, b.parameter(&format!("{p}.{name}"), shape).unwrap()))
        .collect();
    let mut inputs = vec![x, constant(b, &format!("{p}.h0"), &[1, runs * hidden])];
    if cell == RecurrentCell::Lstm {
        inputs.push(constant(b, &format!("{p}.c0"), &[1, runs * hidden]));
    }
    let op = Op::Recurrent { cell, hidden, direction, reset_after };
    b.node_multi(p, op, &inputs, &weights).unwrap()[0]
}
