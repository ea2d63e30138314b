//! Shape rules: for every operator what comes out, with symbols where the rule allows them, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::result::Result;

use pomona_graph::*;

/// `f: [batch, 8]`: type and dimensions.
fn value(text: &str) -> Value {
    let (ty, shape) = text.split_once(':').unwrap();
    let ty = match ty {
        "f" => ValueType::Float,
        "i" => ValueType::Int,
        "b" => ValueType::Bool,
        other => panic!("{other}"),
    };
    let inner = shape.trim().strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    // Commas inside `floor(a, b)` separate no dimensions.
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in inner.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.last_mut().unwrap().push(c),
        }
    }
    let parts = parts.iter().map(|p| p.trim()).filter(|p| !p.is_empty());
    Value { shape: parts.map(|p| parse_dim(p).unwrap()).collect(), ty }
}

struct Case {
    op: Op,
    inputs: &'static [&'static str],
    weights: Vec<(Slot, Vec<usize>)>,
    /// The outputs, or a part of the message.
    expected: Result<&'static [&'static str], &'static str>,
}

fn run(case: &Case) -> Result<Vec<Value>, String> {
    let inputs: Vec<Value> = case.inputs.iter().map(|t| value(t)).collect();
    let def = |(slot, shape): &(Slot, Vec<usize>)| TensorDef {
        name: format!("w.{slot:?}"),
        shape: shape.clone(),
        dtype: "f32".into(),
        role: Role::Parameter,
        aliases: vec![],
    };
    let tensors: Vec<TensorDef> = case.weights.iter().map(def).collect();
    let weights: BTreeMap<Slot, &TensorDef> = case.weights.iter().map(|(s, _)| *s).zip(&tensors).collect();
    infer("n", &case.op, &inputs.iter().collect::<Vec<_>>(), &weights).map_err(|e| e.to_string())
}

fn ok(
    op: Op,
    inputs: &'static [&'static str],
    weights: Vec<(Slot, Vec<usize>)>,
    out: &'static [&'static str],
) -> Case {
    Case { op, inputs, weights, expected: Ok(out) }
}

fn bad(
    op: Op,
    inputs: &'static [&'static str],
    weights: Vec<(Slot, Vec<usize>)>,
    message: &'static str,
) -> Case {
    Case { op, inputs, weights, expected: Err(message) }
}

fn w(shape: &[usize]) -> Vec<(Slot, Vec<usize>)> {
    vec![(Slot::Weight, shape.to_vec())]
}

fn wb(weight: &[usize], bias: &[usize]) -> Vec<(Slot, Vec<usize>)> {
    vec![(Slot::Weight, weight.to_vec()), (Slot::Bias, bias.to_vec())]
}

fn conv(stride: &[usize], padding: &[[usize; 2]], dilation: &[usize], groups: usize) -> ConvAttrs {
    ConvAttrs { stride: stride.into(), padding: padding.into(), dilation: dilation.into(), groups }
}

fn weighted() -> Vec<Case> {
    let attention = |heads, kv_heads| {
        Op::Attention(AttentionAttrs {
            heads,
            kv_heads,
            scale: 0.5,
            causal: true,
            window: None,
            softcap: None,
        })
    };
    let rope = |rotary| {
        Op::Rope(RopeAttrs {
            heads: 2,
            rotary,
            theta: 1e4,
            pairing: RopePairing::Halves,
            scaling: RopeScaling::None,
        })
    };
    let batch_norm = |statistics| Op::BatchNorm { eps: 1e-5, momentum: 0.1, statistics };
    let running = |n: usize| vec![(Slot::RunningMean, vec![n]), (Slot::RunningVar, vec![n])];
    let recurrent = |cell, direction| Op::Recurrent { cell, hidden: 3, direction, reset_after: true };
    let forward = vec![(Slot::WeightIh, vec![12, 5]), (Slot::WeightHh, vec![12, 3])];
    let mut both = vec![(Slot::WeightIh, vec![9, 5]), (Slot::WeightHh, vec![9, 3])];
    both.extend([(Slot::WeightIhReverse, vec![9, 5]), (Slot::WeightHhReverse, vec![9, 3])]);
    vec![
        ok(Op::Linear {}, &["f:[b,t,8]"], wb(&[16, 8], &[16]), &["f:[b,t,16]"]),
        bad(Op::Linear {}, &["f:[b,t,9]"], w(&[16, 8]), "last axis of [b, t, 9] against `w.Weight` [16, 8]"),
        bad(Op::Linear {}, &["f:[b,8]"], vec![], "has no Weight tensor"),
        bad(
            Op::Linear {},
            &["f:[b,8]"],
            wb(&[16, 8], &[8]),
            "tensor `w.Bias` has shape [8]; [16] was expected",
        ),
        bad(Op::Linear {}, &["f:[]"], w(&[16, 8]), "is a scalar"),
        ok(Op::Embedding {}, &["i:[b,t]"], w(&[100, 8]), &["f:[b,t,8]"]),
        bad(Op::Embedding {}, &["f:[b,t]"], w(&[100, 8]), "input 0 is Float; Int was expected"),
        bad(Op::Embedding {}, &["i:[b,t]"], wb(&[9, 8], &[8]), "does not read a Bias"),
        ok(Op::LayerNorm { axes: 1, eps: 1e-5 }, &["f:[b,t,8]"], wb(&[8], &[8]), &["f:[b,t,8]"]),
        bad(Op::LayerNorm { axes: 1, eps: 1e-5 }, &["f:[b,8]"], w(&[7]), "[8] was expected"),
        bad(Op::LayerNorm { axes: 3, eps: 1e-5 }, &["f:[b,8]"], vec![], "normalises 3 axes of [b, 8]"),
        ok(Op::RmsNorm { eps: 1e-5, offset: 0.0 }, &["f:[b,8]"], w(&[8]), &["f:[b,8]"]),
        bad(Op::RmsNorm { eps: 1e-5, offset: 0.0 }, &["f:[b,8]"], wb(&[8], &[8]), "does not read a Bias"),
        ok(Op::GroupNorm { groups: 4, eps: 1e-5 }, &["f:[b,8,h,w]"], wb(&[8], &[8]), &["f:[b,8,h,w]"]),
        bad(
            Op::GroupNorm { groups: 3, eps: 1e-5 },
            &["f:[b,8,h,w]"],
            vec![],
            "8 channels do not form 3 groups",
        ),
        bad(Op::GroupNorm { groups: 0, eps: 1e-5 }, &["f:[b,8,h]"], vec![], "do not form 0 groups"),
        ok(batch_norm(BatchStatistics::Running), &["f:[b,8,h]"], running(8), &["f:[b,8,h]"]),
        bad(batch_norm(BatchStatistics::Running), &["f:[b,8,h]"], w(&[8]), "has no RunningMean tensor"),
        bad(batch_norm(BatchStatistics::Running), &["f:[b,8,h]"], running(7), "8 against 7"),
        ok(batch_norm(BatchStatistics::Batch), &["f:[b,8,h]"], wb(&[8], &[8]), &["f:[b,8,h]"]),
        ok(Op::InstanceNorm { eps: 1e-5 }, &["f:[b,8,h,w]"], vec![], &["f:[b,8,h,w]"]),
        bad(Op::InstanceNorm { eps: 1e-5 }, &["f:[b,8,h,w]"], w(&[8, 1]), "one axis was expected"),
        ok(Op::PRelu {}, &["f:[b,8,h]"], w(&[8]), &["f:[b,8,h]"]),
        bad(Op::PRelu {}, &["f:[b,8,h]"], w(&[5]), "8 against 5"),
        ok(attention(4, 2), &["f:[b,n,16]", "f:[b,m,8]", "f:[b,m,12]"], vec![], &["f:[b,n,24]"]),
        ok(attention(2, 2), &["f:[b,n,8]", "f:[b,n,8]", "f:[b,n,8]", "f:[n,n]"], vec![], &["f:[b,n,8]"]),
        bad(attention(4, 3), &["f:[b,n,16]", "f:[b,m,8]", "f:[b,m,8]"], vec![], "4 heads over 3"),
        bad(
            attention(4, 4),
            &["f:[b,n,16]", "f:[b,m,8]", "f:[b,m,8]"],
            vec![],
            "4 channels and a key head 2",
        ),
        bad(
            attention(3, 3),
            &["f:[b,n,16]", "f:[b,m,9]", "f:[b,m,9]"],
            vec![],
            "does not hold 3 equal heads",
        ),
        bad(attention(2, 2), &["f:[b,n,8]", "f:[b,4,8]", "f:[b,5,8]"], vec![], "differ in length"),
        bad(
            attention(2, 2),
            &["f:[b,8]", "f:[b,8]", "f:[b,8]"],
            vec![],
            "[batch, tokens, width] was expected",
        ),
        bad(attention(2, 2), &["f:[b,n,8]", "f:[b,n,8]"], vec![], "has 2 inputs; 3 to 4 were expected"),
        ok(rope(4), &["f:[b,t,8]", "i:[t]"], vec![], &["f:[b,t,8]"]),
        bad(rope(3), &["f:[b,t,8]", "i:[t]"], vec![], "an even number was expected"),
        bad(rope(6), &["f:[b,t,8]", "i:[t]"], vec![], "turns 6 channels"),
        bad(rope(4), &["f:[b,t,8]", "f:[t]"], vec![], "input 1 is Float; Int was expected"),
        ok(
            recurrent(RecurrentCell::Lstm, Direction::Forward),
            &["f:[b,t,5]", "f:[b,3]", "f:[b,3]"],
            forward.clone(),
            &["f:[b,t,3]", "f:[b,3]", "f:[b,3]"],
        ),
        ok(
            recurrent(RecurrentCell::Gru, Direction::Both),
            &["f:[b,t,5]", "f:[b,6]"],
            both.clone(),
            &["f:[b,t,6]", "f:[b,6]"],
        ),
        bad(
            recurrent(RecurrentCell::Gru, Direction::Both),
            &["f:[b,t,5]", "f:[b,6]"],
            both[..2].to_vec(),
            "has no WeightIhReverse tensor",
        ),
        bad(
            recurrent(RecurrentCell::Gru, Direction::Forward),
            &["f:[b,t,5]", "f:[b,3]"],
            forward.clone(),
            "has 12 rows; 3 gates of 3 make 9",
        ),
        bad(
            recurrent(RecurrentCell::Lstm, Direction::Forward),
            &["f:[b,t,5]", "f:[b,4]", "f:[b,3]"],
            forward,
            "state 1 has shape [b, 4]; [b, 3] was expected",
        ),
        ok(Op::Constant {}, &[], w(&[3, 4]), &["f:[3,4]"]),
        bad(Op::Constant {}, &[], vec![], "has no Weight tensor"),
    ]
}

fn spatial() -> Vec<Case> {
    let square = |s, p| Op::Conv(ConvAttrs::square(s, p));
    let up = |output_padding: &[usize]| Op::ConvTranspose {
        conv: ConvAttrs::square(2, 1),
        output_padding: output_padding.into(),
    };
    let pool = |kernel: usize, stride: usize, ceil| Op::Pool {
        kind: PoolKind::Max,
        kernel: vec![kernel; 2],
        stride: vec![stride; 2],
        padding: vec![[0, 0]; 2],
        ceil,
        count_padding: false,
    };
    let resize = |size: &[&str]| Op::Resize {
        mode: ResizeMode::Nearest,
        coordinates: ResizeCoordinates::Asymmetric,
        size: size.iter().map(|s| parse_dim(s).unwrap()).collect(),
    };
    let adaptive = |size: &[usize]| Op::AdaptivePool { kind: PoolKind::Average, size: size.into() };
    vec![
        ok(square(1, 1), &["f:[b,4,h,w]"], wb(&[8, 4, 3, 3], &[8]), &["f:[b,8,h,w]"]),
        ok(square(2, 1), &["f:[b,4,9,8]"], w(&[8, 4, 3, 3]), &["f:[b,8,5,4]"]),
        ok(Op::Conv(conv(&[1], &[[2, 0]], &[2], 4)), &["f:[b,4,n]"], w(&[8, 1, 2]), &["f:[b,8,n]"]),
        ok(
            Op::Conv(conv(&[1, 2, 2], &[[0, 0]; 3], &[1; 3], 1)),
            &["f:[b,2,4,7,7]"],
            w(&[3, 2, 2, 3, 3]),
            &["f:[b,3,3,3,3]"],
        ),
        bad(square(1, 1), &["f:[b,5,h,w]"], w(&[8, 4, 3, 3]), "channels of the input against `w.Weight`"),
        bad(square(1, 0), &["f:[b,4,2,9]"], w(&[8, 4, 3, 3]), "a window of 3 does not fit the padded size 2"),
        bad(square(0, 0), &["f:[b,4,9,9]"], w(&[8, 4, 3, 3]), "must be at least 1"),
        bad(square(1, 0), &["f:[b,4,9]"], w(&[8, 4, 3, 3]), "2 spatial axes were expected"),
        bad(Op::Conv(conv(&[1, 1], &[[0, 0]], &[1, 1], 1)), &["f:[b,4,9,9]"], w(&[8, 4, 3, 3]), "lengths"),
        bad(
            Op::Conv(conv(&[1, 1], &[[0, 0]; 2], &[1, 1], 3)),
            &["f:[b,3,9,9]"],
            w(&[8, 1, 3, 3]),
            "3 groups",
        ),
        ok(up(&[0, 0]), &["f:[b,4,h,5]"], wb(&[4, 6, 4, 4], &[6]), &["f:[b,6,2*h,10]"]),
        ok(up(&[1, 1]), &["f:[b,4,5,5]"], w(&[4, 6, 3, 3]), &["f:[b,6,10,10]"]),
        bad(up(&[0]), &["f:[b,4,5,5]"], w(&[4, 6, 3, 3]), "does not fit 2 spatial axes"),
        bad(up(&[0, 0]), &["f:[b,5,5,5]"], w(&[4, 6, 3, 3]), "5 against 4"),
        bad(up(&[0, 0]), &["f:[b,4,1,5]"], w(&[4, 6, 2, 2]), "the padding leaves nothing of spatial axis 0"),
        ok(pool(2, 2, false), &["f:[b,c,7,h]"], vec![], &["f:[b,c,3,floor(h - 2, 2) + 1]"]),
        ok(pool(2, 2, true), &["f:[b,c,7,8]"], vec![], &["f:[b,c,4,4]"]),
        bad(pool(0, 2, false), &["f:[b,c,7,7]"], vec![], "do not fit together"),
        bad(pool(2, 2, false), &["f:[b,c,7]"], vec![], "2 spatial axes were expected"),
        ok(adaptive(&[1, 1]), &["f:[b,c,h,w]"], vec![], &["f:[b,c,1,1]"]),
        bad(adaptive(&[0, 1]), &["f:[b,c,h,w]"], vec![], "at least 1 was expected"),
        ok(resize(&["2*h", "2*w"]), &["f:[b,c,h,w]"], vec![], &["f:[b,c,2*h,2*w]"]),
        bad(resize(&["4"]), &["f:[b,c,h,w]"], vec![], "1 spatial axes were expected"),
        ok(Op::PixelShuffle { factor: 2, inverse: false }, &["f:[b,12,h,w]"], vec![], &["f:[b,3,2*h,2*w]"]),
        ok(Op::PixelShuffle { factor: 2, inverse: true }, &["f:[b,3,4,6]"], vec![], &["f:[b,12,2,3]"]),
        bad(Op::PixelShuffle { factor: 2, inverse: false }, &["f:[b,10,h,w]"], vec![], "10"),
        bad(Op::PixelShuffle { factor: 0, inverse: false }, &["f:[b,10,h,w]"], vec![], "factor is 0"),
    ]
}

fn elementwise() -> Vec<Case> {
    let binary = |function| Op::Binary { function };
    let scalar = |function| Op::Scalar { function, value: 2.0, reversed: false };
    let matmul = |transpose_b| Op::MatMul { transpose_b };
    let sinusoid = |width| Op::Sinusoid { width, max_period: 1e4, cosine_first: true, shift: 0.0 };
    vec![
        ok(Op::Activation { function: Activation::Silu }, &["f:[b,8]"], vec![], &["f:[b,8]"]),
        bad(
            Op::Activation { function: Activation::Silu },
            &["f:[b,8]", "f:[b,8]"],
            vec![],
            "has 2 inputs; 1",
        ),
        bad(Op::Activation { function: Activation::Silu }, &["f:[b,8]"], w(&[8]), "does not read a Weight"),
        ok(Op::Dropout { rate: 0.1 }, &["f:[b,8]"], vec![], &["f:[b,8]"]),
        bad(Op::Dropout { rate: 0.1 }, &[], vec![], "has 0 inputs; 1 were expected"),
        ok(Op::Clip { min: None, max: Some(1.0) }, &["f:[b]"], vec![], &["f:[b]"]),
        bad(Op::Clip { min: None, max: None }, &["f:[b]", "f:[b]"], vec![], "has 2 inputs"),
        ok(binary(BinaryFn::Add), &["f:[b,1,4]", "f:[3,1]"], vec![], &["f:[b,3,4]"]),
        ok(binary(BinaryFn::Less), &["i:[t]", "i:[1]"], vec![], &["b:[t]"]),
        ok(binary(BinaryFn::Mul), &["i:[t]", "f:[]"], vec![], &["f:[t]"]),
        bad(binary(BinaryFn::Add), &["f:[2,3]", "f:[4]"], vec![], "shapes [2, 3] and [4] do not broadcast"),
        ok(scalar(BinaryFn::Pow), &["f:[b]"], vec![], &["f:[b]"]),
        ok(scalar(BinaryFn::Equal), &["i:[b]"], vec![], &["b:[b]"]),
        bad(scalar(BinaryFn::Add), &["f:[b]", "f:[b]"], vec![], "has 2 inputs"),
        ok(Op::Add {}, &["f:[b,8]", "f:[b,8]", "f:[b,8]"], vec![], &["f:[b,8]"]),
        bad(Op::Add {}, &["f:[b,8]", "f:[b,1]"], vec![], "operands of Add have one shape"),
        bad(Op::Add {}, &["f:[b,8]"], vec![], "has 1 inputs; 2 or more were expected"),
        ok(Op::Where {}, &["b:[t,1]", "f:[u]", "f:[]"], vec![], &["f:[t,u]"]),
        bad(Op::Where {}, &["f:[t]", "f:[t]", "f:[t]"], vec![], "input 0 is Float; Bool was expected"),
        ok(Op::Cast { to: ValueType::Int }, &["f:[b]"], vec![], &["i:[b]"]),
        bad(Op::Cast { to: ValueType::Int }, &[], vec![], "has 0 inputs"),
        ok(Op::Softmax { axis: 1, log: false }, &["f:[b,9]"], vec![], &["f:[b,9]"]),
        bad(Op::Softmax { axis: 2, log: false }, &["f:[b,9]"], vec![], "has no axis 2"),
        ok(Op::CumSum { axis: 0 }, &["i:[b]"], vec![], &["i:[b]"]),
        bad(Op::CumSum { axis: 1 }, &["i:[b]"], vec![], "has no axis 1"),
        ok(matmul(false), &["f:[b,h,n,8]", "f:[h,8,m]"], vec![], &["f:[b,h,n,m]"]),
        ok(matmul(true), &["f:[n,8]", "f:[m,8]"], vec![], &["f:[n,m]"]),
        bad(matmul(false), &["f:[n,8]", "f:[7,m]"], vec![], "inner sizes differ: [n, 8] and [7, m]"),
        bad(matmul(false), &["f:[8]", "f:[8,m]"], vec![], "two axes or more were expected"),
        ok(sinusoid(16), &["f:[b]"], vec![], &["f:[b,16]"]),
        bad(sinusoid(1), &["f:[b]"], vec![], "width 1; at least 2"),
        ok(Op::Range { end: parse_dim("2*t").unwrap() }, &[], vec![], &["i:[2*t]"]),
        bad(Op::Range { end: 3.into() }, &["f:[b]"], vec![], "has 1 inputs; 0 were expected"),
    ]
}

fn layout() -> Vec<Case> {
    let dims = |text: &str| value(&format!("f:[{text}]")).shape;
    let parts = |sizes: &str| Op::Split { axis: 1, map: SplitMap::Parts { sizes: dims(sizes) } };
    let heads = |groups, sizes: &str| Op::Split {
        axis: 1,
        map: SplitMap::Interleaved { groups, sizes: dims(sizes) },
    };
    let slice = |start: &str, end: &str, step| Op::Slice {
        axis: 0,
        start: parse_dim(start).unwrap(),
        end: parse_dim(end).unwrap(),
        step,
    };
    let pad = |amounts: &[[usize; 2]]| Op::Pad { amounts: amounts.into(), mode: PadMode::Reflect };
    let reduce = |axes: &[usize], keep| Op::Reduce { function: ReduceFn::Mean, axes: axes.into(), keep };
    let reshape = |text: &str| Op::Reshape { shape: dims(text) };
    let expand = |text: &str| Op::Expand { shape: dims(text) };
    vec![
        ok(Op::Concat { axis: 1 }, &["f:[b,p,8]", "f:[b,t,8]"], vec![], &["f:[b,p + t,8]"]),
        bad(Op::Concat { axis: 1 }, &["f:[b,4,8]", "f:[b,4,9]"], vec![], "all axes but 1 must agree"),
        bad(Op::Concat { axis: 3 }, &["f:[b,4,8]"], vec![], "has no axis 3"),
        ok(parts("3, 5"), &["f:[b,8]"], vec![], &["f:[b,3]", "f:[b,5]"]),
        ok(heads(2, "3, 1"), &["f:[b,8]"], vec![], &["f:[b,6]", "f:[b,2]"]),
        bad(parts("3, 4"), &["f:[b,8]"], vec![], "parts add up to 7 and axis 1 has 8"),
        bad(heads(3, "2, 1"), &["f:[b,8]"], vec![], "parts add up to 9 and axis 1 has 8"),
        ok(slice("1", "7", 2), &["f:[8,b]"], vec![], &["f:[3,b]"]),
        ok(slice("0", "t", 1), &["f:[8,b]"], vec![], &["f:[t,b]"]),
        bad(slice("1", "9", 1), &["f:[8]"], vec![], "range 1..9 does not lie in axis 0 of 8"),
        bad(slice("0", "8", 0), &["f:[8]"], vec![], "step 0"),
        ok(reshape("b, h*w, 8"), &["f:[b,8,h,w]"], vec![], &["f:[b,h*w,8]"]),
        bad(reshape("3, 5"), &["f:[4,4]"], vec![], "[4, 4] has 16 elements and [3, 5] has 15"),
        ok(Op::Transpose { axes: vec![0, 2, 1] }, &["f:[b,n,8]"], vec![], &["f:[b,8,n]"]),
        bad(Op::Transpose { axes: vec![0, 0, 1] }, &["f:[b,n,8]"], vec![], "not a permutation"),
        ok(expand("b, 4, 8"), &["f:[1,8]"], vec![], &["f:[b,4,8]"]),
        bad(expand("8"), &["f:[2,8]"], vec![], "[2, 8] does not expand to [8]"),
        ok(Op::Gather { axis: 1 }, &["f:[b,9,4]", "i:[n,m]"], vec![], &["f:[b,n,m,4]"]),
        bad(Op::Gather { axis: 0 }, &["f:[9]", "f:[n]"], vec![], "input 1 is Float; Int was expected"),
        ok(pad(&[[0, 0], [1, 2]]), &["f:[b,8]"], vec![], &["f:[b,11]"]),
        bad(pad(&[[1, 1]]), &["f:[b,8]"], vec![], "has 1 amounts for shape [b, 8]"),
        ok(reduce(&[1, 2], true), &["f:[b,3,4]"], vec![], &["f:[b,1,1]"]),
        ok(reduce(&[2, 1], false), &["f:[b,3,4]"], vec![], &["f:[b]"]),
        bad(reduce(&[1, 1], true), &["f:[b,3,4]"], vec![], "reduces axis 1 twice"),
        bad(reduce(&[3], true), &["f:[b,3,4]"], vec![], "has no axis 3"),
        ok(Op::ArgMax { axis: 1, keep: false }, &["f:[b,3,4]"], vec![], &["i:[b,4]"]),
        bad(Op::ArgMax { axis: 3, keep: false }, &["f:[b,3,4]"], vec![], "has no axis 3"),
        ok(Op::TopK { k: 2 }, &["f:[b,5]"], vec![], &["f:[b,2]", "i:[b,2]"]),
        bad(Op::TopK { k: 6 }, &["f:[b,5]"], vec![], "asks for 6 of 5 elements"),
        bad(Op::TopK { k: 0 }, &["f:[b,5]"], vec![], "asks for 0"),
    ]
}

#[test]
fn every_operator_has_its_rule() {
    let mut good = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for case in weighted().iter().chain(&spatial()).chain(&elementwise()).chain(&layout()) {
        let (found, name) = (run(case), case.op.name());
        match (&case.expected, &found) {
            (Ok(out), Ok(found)) => {
                assert_eq!(found, &out.iter().map(|t| value(t)).collect::<Vec<_>>(), "{:?}", case.op);
                good.insert(name);
            }
            (Err(part), Err(message)) => {
                assert!(message.contains(part), "{message}\n lacks: {part}");
                assert!(message.starts_with(&format!("node `n` ({name}): ")), "{message}");
                refused.insert(name);
            }
            _ => panic!("{:?} {:?}: {found:?}", case.op, case.inputs),
        }
    }
    let all: BTreeSet<&str> = Op::NAMES.iter().copied().collect();
    assert_eq!(good, all, "operators without a case that works");
    assert_eq!(refused, all, "operators without a case that is refused");
}
