//! Counts of single operators against hand formulas.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use pomona_cost::{OpCost, Shapes, macs};
use pomona_graph::*;

fn shapes(inputs: &[&[u64]], outputs: &[&[u64]], weights: &[(Slot, &[u64])]) -> Shapes {
    Shapes {
        inputs: inputs.iter().map(|s| s.to_vec()).collect(),
        outputs: outputs.iter().map(|s| s.to_vec()).collect(),
        weights: weights.iter().map(|(slot, s)| (*slot, s.to_vec())).collect(),
    }
}

fn check(op: Op, s: Shapes, full: u64, thop: u64, other: u64) {
    let want = OpCost { macs_full: full, macs_thop: thop, other_ops: other };
    assert_eq!(macs(&op, &s), Ok(want), "{op:?} {s:?}");
}

fn conv(stride: usize, groups: usize) -> ConvAttrs {
    ConvAttrs { stride: vec![stride; 2], padding: vec![[1, 1]; 2], dilation: vec![1; 2], groups }
}

fn attention(heads: usize, kv_heads: usize, causal: bool, softcap: Option<f64>) -> Op {
    Op::Attention(AttentionAttrs { heads, kv_heads, scale: 0.125, causal, window: None, softcap })
}

const W: Slot = Slot::Weight;
const B: Slot = Slot::Bias;

#[test]
fn linear_layers() {
    check(Op::Linear {}, shapes(&[&[1, 7, 4]], &[&[1, 7, 6]], &[(W, &[6, 4])]), 7 * 6 * 4, 7 * 6 * 4, 0);
    check(
        Op::Linear {},
        shapes(&[&[2, 4]], &[&[2, 6]], &[(W, &[6, 4]), (B, &[6])]),
        2 * 6 * 4,
        2 * 6 * 4,
        12,
    );
}

#[test]
fn convolutions() {
    let plain = shapes(&[&[1, 3, 32, 32]], &[&[1, 64, 16, 16]], &[(W, &[64, 3, 3, 3]), (B, &[64])]);
    check(Op::Conv(conv(2, 1)), plain, 64 * 256 * 27, 64 * 256 * 27, 64 * 256);
    let depthwise = shapes(&[&[1, 32, 8, 8]], &[&[1, 32, 8, 8]], &[(W, &[32, 1, 3, 3])]);
    check(Op::Conv(conv(1, 32)), depthwise, 32 * 64 * 9, 32 * 64 * 9, 0);
    let one = ConvAttrs { stride: vec![1], padding: vec![[0, 0]], dilation: vec![1], groups: 1 };
    let audio = shapes(&[&[1, 8, 100]], &[&[1, 16, 96]], &[(W, &[16, 8, 5])]);
    check(Op::Conv(one), audio, 16 * 96 * 40, 16 * 96 * 40, 0);
}

#[test]
fn a_transposed_convolution_counts_input_positions_and_thop_output_positions() {
    let op = |groups| Op::ConvTranspose { conv: conv(2, groups), output_padding: vec![0, 0] };
    let s = shapes(&[&[1, 32, 8, 8]], &[&[1, 16, 16, 16]], &[(W, &[32, 16, 4, 4])]);
    check(op(1), s, 64 * 32 * 16 * 16, 256 * 16 * 32 * 16, 0);
    // Stride 2 in two axes: thop counts four times the work.
    let c = macs(&op(1), &shapes(&[&[1, 32, 8, 8]], &[&[1, 16, 16, 16]], &[(W, &[32, 16, 4, 4])])).unwrap();
    assert_eq!(c.macs_thop, 4 * c.macs_full);
    let grouped = shapes(&[&[1, 32, 8, 8]], &[&[1, 16, 16, 16]], &[(W, &[32, 4, 4, 4])]);
    check(op(4), grouped, 64 * 32 * 4 * 16, 256 * 16 * 8 * 16, 0);
}

#[test]
fn attention_counts_the_whole_square_and_thop_none_of_it() {
    let (n, m, h) = (10, 10, 4);
    let s = || shapes(&[&[2, 10, 32], &[2, 10, 32], &[2, 10, 32]], &[&[2, 10, 32]], &[]);
    for causal in [false, true] {
        check(attention(4, 4, causal, None), s(), 2 * n * m * (32 + 32), 0, 2 * h * n * m * 6);
    }
    check(attention(4, 4, true, Some(30.0)), s(), 2 * n * m * 64, 0, 2 * h * n * m * 9);
}

#[test]
fn attention_uses_the_real_widths_of_queries_and_values() {
    // Grouped queries, keys of 8 and values of 4 a head, cross-attention over 77 tokens, with a mask.
    let s = shapes(&[&[1, 10, 32], &[1, 77, 16], &[1, 77, 8], &[1, 1, 10, 77]], &[&[1, 10, 16]], &[]);
    check(attention(4, 2, false, None), s, 10 * 77 * (32 + 16), 0, 4 * 10 * 77 * 7);
}

#[test]
fn products_of_two_values_are_not_in_thop() {
    let s = shapes(&[&[2, 3, 5, 7], &[2, 3, 7, 11]], &[&[2, 3, 5, 11]], &[]);
    check(Op::MatMul { transpose_b: false }, s, 2 * 3 * 5 * 7 * 11, 0, 0);
}

#[test]
fn recurrent_layers() {
    let (i, h, t, b) = (6_u64, 5_u64, 9_u64, 2_u64);
    let weights = |g: u64, both: bool, bias: bool| {
        let mut w: Vec<(Slot, Vec<u64>)> =
            vec![(Slot::WeightIh, vec![g * h, i]), (Slot::WeightHh, vec![g * h, h])];
        if both {
            w.extend([(Slot::WeightIhReverse, vec![g * h, i]), (Slot::WeightHhReverse, vec![g * h, h])]);
        }
        if bias {
            w.extend([(Slot::BiasIh, vec![g * h]), (Slot::BiasHh, vec![g * h])]);
        }
        w.into_iter().collect()
    };
    let s = |g, both, bias| Shapes {
        inputs: vec![vec![b, t, i]],
        outputs: vec![vec![b, t, h]],
        weights: weights(g, both, bias),
    };
    let op = |cell, direction| Op::Recurrent { cell, hidden: 5, direction, reset_after: true };
    let lstm = op(RecurrentCell::Lstm, Direction::Forward);
    // thop: ((i + h) * h + h + 2h) * 4 + 4h a step with biases.
    let thop = ((i + h) * h + 3 * h) * 4 + 4 * h;
    check(lstm.clone(), s(4, false, true), b * t * 4 * h * (i + h), b * t * thop, b * t * (13 * h + 8 * h));
    let thop = ((i + h) * h + h) * 4 + 4 * h;
    check(lstm, s(4, false, false), b * t * 4 * h * (i + h), b * t * thop, b * t * 13 * h);
    let gru = op(RecurrentCell::Gru, Direction::Both);
    let thop = 2 * (((i + h) * h + h) * 3 + 4 * h);
    check(gru, s(3, true, false), b * t * 2 * 3 * h * (i + h), b * t * thop, b * t * 2 * 11 * h);
}

#[test]
fn everything_else_is_other_operations() {
    let x: &[u64] = &[2, 4, 6, 6];
    let n = 2 * 4 * 36;
    let same = |weights: &[(Slot, &[u64])]| shapes(&[x], &[x], weights);
    let c: &[u64] = &[4];
    let running = Op::BatchNorm { eps: 1e-5, momentum: 0.1, statistics: BatchStatistics::Running };
    let batch = Op::BatchNorm { eps: 1e-5, momentum: 0.1, statistics: BatchStatistics::Batch };
    let table = [
        (Op::LayerNorm { axes: 1, eps: 1e-5 }, same(&[(W, &[6]), (B, &[6])]), 7 * n),
        (Op::LayerNorm { axes: 1, eps: 1e-5 }, same(&[]), 5 * n),
        (Op::RmsNorm { eps: 1e-5, offset: 0.0 }, same(&[(W, &[6])]), 4 * n),
        (Op::RmsNorm { eps: 1e-5, offset: 1.0 }, same(&[(W, &[6])]), 5 * n),
        (Op::GroupNorm { groups: 2, eps: 1e-5 }, same(&[(W, c), (B, c)]), 7 * n),
        (Op::InstanceNorm { eps: 1e-5 }, same(&[]), 5 * n),
        (running, same(&[(W, c), (B, c), (Slot::RunningMean, c), (Slot::RunningVar, c)]), 2 * n),
        (batch, same(&[(W, c), (B, c)]), 7 * n),
        (Op::Activation { function: Activation::Silu }, same(&[]), n),
        (Op::PRelu {}, same(&[(W, c)]), n),
        (Op::Binary { function: BinaryFn::Mul }, shapes(&[x, &[1]], &[x], &[]), n),
        (Op::Scalar { function: BinaryFn::Add, value: 1.0, reversed: false }, same(&[]), n),
        (Op::Add {}, shapes(&[x, x, x], &[x], &[]), 2 * n),
        (Op::Clip { min: Some(0.0), max: None }, same(&[]), n),
        (Op::Softmax { axis: 1, log: false }, same(&[]), 5 * n),
        (Op::Dropout { rate: 0.1 }, same(&[]), 0),
        (Op::Concat { axis: 1 }, shapes(&[x, x], &[&[2, 8, 6, 6]], &[]), 0),
        (Op::Embedding {}, shapes(&[&[1, 7]], &[&[1, 7, 16]], &[(W, &[100, 16])]), 0),
        (
            Op::Reduce { function: ReduceFn::Mean, axes: vec![2, 3], keep: true },
            shapes(&[x], &[&[2, 4, 1, 1]], &[]),
            n,
        ),
        (
            Op::Pool {
                kind: PoolKind::Max,
                kernel: vec![2, 2],
                stride: vec![2, 2],
                padding: vec![[0, 0]; 2],
                ceil: false,
                count_padding: true,
            },
            shapes(&[x], &[&[2, 4, 3, 3]], &[]),
            2 * 4 * 9 * 4,
        ),
        // Sizes 6 to 4: windows 0..2, 1..3, 3..5, 4..6 cover 8 elements an axis.
        (
            Op::AdaptivePool { kind: PoolKind::Average, size: vec![4, 4] },
            shapes(&[x], &[&[2, 4, 4, 4]], &[]),
            2 * 4 * 8 * 8,
        ),
        (
            Op::Resize {
                mode: ResizeMode::Linear,
                coordinates: ResizeCoordinates::HalfPixel,
                size: vec![12.into(), 12.into()],
            },
            shapes(&[x], &[&[2, 4, 12, 12]], &[]),
            2 * 4 * 144 * 7,
        ),
        (
            Op::Rope(RopeAttrs {
                heads: 4,
                rotary: 8,
                theta: 1e4,
                pairing: RopePairing::Halves,
                scaling: RopeScaling::None,
            }),
            shapes(&[&[1, 7, 64], &[7]], &[&[1, 7, 64]], &[]),
            7 * 4 * 8 * 3,
        ),
    ];
    for (op, s, other) in table {
        check(op, s, 0, 0, other);
    }
}

#[test]
fn what_cannot_be_counted_says_why() {
    let x: &[u64] = &[2, 8];
    let cases: [(Op, Shapes, &str); 5] = [
        (
            Op::TopK { k: 2 },
            shapes(&[x], &[&[2, 2], &[2, 2]], &[]),
            "how many comparisons a selection takes depends on the data",
        ),
        (Op::Linear {}, shapes(&[x], &[x], &[]), "it has no tensor in slot Weight"),
        (Op::Linear {}, shapes(&[x], &[x], &[(W, &[8])]), "its weight has shape [8], not [out, in]"),
        (Op::Linear {}, shapes(&[x], &[&[u64::MAX, 2]], &[(W, &[8, 8])]), "its count does not fit 64 bits"),
        (
            Op::Conv(ConvAttrs::square(1, 0)),
            shapes(&[&[1, 8]], &[&[1, 8]], &[(W, &[8, 8])]),
            "its weight [8, 8] has 2 axes; a convolution's has 3 or more",
        ),
    ];
    for (op, s, why) in cases {
        assert_eq!(macs(&op, &s), Err(why.to_owned()));
    }
}
