//! How graphs run: states, cuts at fed values, seeds, annotations, refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use pomona_exec::{
    Device, ExecError, Feeds, Lazy, Loaded, Mode, Narrow, NarrowKind, Options, Tensor, WeightProvider,
    evaluate, gradients, start_states, step,
};
use pomona_graph::{
    Activation, Annotation, Graph, GraphBuilder, Op, QuantTarget, Slot, TensorId, ValueId, ValueType, toys,
};

/// Numbers in [-1, 1) that look random.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let number = |i: u64| {
        let z = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ i).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n as u64).map(number).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_f32(values.to_vec(), shape, &Device::cpu()).unwrap()
}

fn ints(values: impl IntoIterator<Item = i64>, shape: &[usize]) -> Tensor {
    Tensor::from_i64(values.into_iter().collect(), shape, &Device::cpu()).unwrap()
}

fn weights(graph: &Graph) -> Loaded {
    let one = |(id, t): (TensorId, &pomona_graph::TensorDef)| {
        let n = t.shape.iter().product();
        (id, tensor(&noise(u64::from(id.0) + 1, n), &t.shape))
    };
    Loaded(graph.iter_tensors().map(one).collect())
}

fn run(graph: &Graph, weights: &Loaded, feeds: &Feeds, output: &str, options: &Options) -> Vec<f32> {
    let wanted = graph.output(output).unwrap();
    evaluate(graph, weights, feeds, &[wanted], options).unwrap()[0].to_f32().unwrap()
}

fn largest_gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The decoder's inputs for tokens from a position on; caches start empty.
fn decoder_feeds(graph: &Graph, tokens: &[i64], from: i64) -> Feeds {
    let n = tokens.len();
    let positions = ints(from..from + n as i64, &[n]);
    [
        (graph.input("input_ids").unwrap(), ints(tokens.iter().copied(), &[1, n])),
        (graph.input("positions").unwrap(), positions),
    ]
    .into()
}

const TOKENS: [i64; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 5];

fn empty(graph: &Graph) -> Feeds {
    start_states(graph, &[("batch".to_owned(), 1)].into(), &Device::cpu()).unwrap()
}

#[test]
fn tokens_one_by_one_through_the_cache_are_tokens_at_once() {
    let graph = toys::llama(3).unwrap();
    let weights = weights(&graph);
    let mut feeds = decoder_feeds(&graph, &TOKENS, 0);
    feeds.extend(empty(&graph));
    let whole = run(&graph, &weights, &feeds, "logits", &Options::default());
    let vocabulary = whole.len() / TOKENS.len();
    // The first three together, then one by one, then two.
    let mut states = empty(&graph);
    let mut pieces = Vec::new();
    for range in [0..3, 3..4, 4..5, 5..6, 6..7, 7..9] {
        let feeds = decoder_feeds(&graph, &TOKENS[range.clone()], range.start as i64);
        let out = step(&graph, &weights, &feeds, &mut states, "logits", &Options::default()).unwrap();
        pieces.extend(out.to_f32().unwrap());
        let cache = states.get(&graph.states[0].input).unwrap();
        assert_eq!(cache.shape()[1], range.end);
    }
    assert_eq!(pieces.len(), TOKENS.len() * vocabulary);
    assert!(largest_gap(&whole, &pieces) < 1e-5, "{}", largest_gap(&whole, &pieces));
    // A cache that is not carried on gives something else.
    let mut forgetful = decoder_feeds(&graph, &TOKENS[8..], 8);
    forgetful.extend(empty(&graph));
    let alone = run(&graph, &weights, &forgetful, "logits", &Options::default());
    assert!(largest_gap(&whole[8 * vocabulary..], &alone) > 1e-3);
}

#[test]
fn a_fed_inner_value_cuts_the_graph() {
    let graph = toys::llama(3).unwrap();
    let all = weights(&graph);
    let mut feeds = decoder_feeds(&graph, &TOKENS, 0);
    feeds.extend(empty(&graph));
    let cut = graph.resolve(&pomona_graph::ValueRef("model.layers.1.mlp_residual".to_owned())).unwrap();
    let logits = graph.output("logits").unwrap();
    let both = evaluate(&graph, &all, &feeds, &[logits, cut], &Options::default()).unwrap();
    // What lies before needs neither its weights nor its inputs.
    feeds.remove(&graph.input("input_ids").unwrap());
    feeds.insert(cut, both[1].clone());
    let asked = std::sync::Mutex::new(Vec::new());
    let watched = Lazy::new(|id: TensorId| {
        asked.lock().unwrap().push(graph.tensor(id).name.clone());
        Ok(all.0[&id].clone())
    });
    let rest = evaluate(&graph, &watched, &feeds, &[logits], &Options::default()).unwrap();
    assert_eq!(rest[0].to_f32().unwrap(), both[0].to_f32().unwrap());
    let asked = asked.lock().unwrap().clone();
    let late =
        |n: &String| n.starts_with("model.layers.2.") || n.starts_with("model.norm") || n.contains("embed");
    assert!(asked.iter().all(late), "{asked:?}");
    assert_eq!(watched.held(), asked.len());
    watched.release();
    assert_eq!(watched.held(), 0);
}

#[test]
fn a_missing_input_is_named() {
    let graph = toys::llama(1).unwrap();
    let mut feeds = decoder_feeds(&graph, &TOKENS, 0);
    feeds.extend(empty(&graph));
    feeds.remove(&graph.input("positions").unwrap());
    let wanted = [graph.output("logits").unwrap()];
    let e = evaluate(&graph, &weights(&graph), &feeds, &wanted, &Options::default()).unwrap_err();
    assert!(e.to_string().contains("positions"), "{e}");
    feeds.insert(graph.input("positions").unwrap(), ints(0..3, &[3]));
    let e = evaluate(&graph, &weights(&graph), &feeds, &wanted, &Options::default()).unwrap_err();
    assert!(e.to_string().contains("positions"), "{e}");
}

#[test]
fn the_first_node_with_a_nan_is_named() {
    let graph = toys::unet(&toys::UnetSizes::default()).unwrap();
    let mut weights = weights(&graph);
    let id = graph.find_tensor("down_blocks.1.resnets.0.conv1.weight").unwrap();
    let mut values = weights.0[&id].to_f32().unwrap();
    values[5] = f32::NAN;
    let shape = weights.0[&id].shape().to_vec();
    weights.0.insert(id, tensor(&values, &shape));
    let mut feeds = Feeds::new();
    for port in &graph.inputs {
        let shape: Vec<usize> =
            graph.value(port.value).shape.iter().map(|d| d.size(&port.name).unwrap()).collect();
        feeds.insert(port.value, tensor(&noise(9, shape.iter().product()), &shape));
    }
    let wanted = [graph.output("out").unwrap()];
    let options = Options { check_finite: true, ..Options::default() };
    match evaluate(&graph, &weights, &feeds, &wanted, &options) {
        Err(ExecError::Node { node, .. }) => assert_eq!(node, "down_blocks.1.resnets.0.conv1"),
        other => panic!("{other:?}"),
    }
}

/// One operator over `x` `[rows, width]`, with its weights.
fn one_node(op: Op, width: usize, slots: &[(Slot, &str, &[usize])]) -> (Graph, ValueId) {
    let mut b = GraphBuilder::new("one", "f32");
    let x = b.input("x", vec!["rows".into(), width.into()], ValueType::Float);
    let made: Vec<_> = slots.iter().map(|(s, n, shape)| (*s, b.parameter(n, shape).unwrap())).collect();
    let y = b.node("node", op, &[x], &made).unwrap();
    b.output("y", y);
    (b.finish().unwrap(), x)
}

#[test]
fn dropout_follows_its_seed_and_its_share() {
    let mut b = GraphBuilder::new("drops", "f32");
    let x = b.input("x", vec![40.into(), 50.into()], ValueType::Float);
    for name in ["a", "b"] {
        let y = b.node(name, Op::Dropout { rate: 0.3 }, &[x], &[]).unwrap();
        b.output(name, y);
    }
    let graph = b.finish().unwrap();
    let none = Loaded::default();
    let feeds: Feeds = [(x, tensor(&[1.0; 2000], &[40, 50]))].into();
    let with = |output: &str, seed| {
        let options = Options { mode: Mode::Training { seed }, ..Options::default() };
        run(&graph, &none, &feeds, output, &options)
    };
    let first = with("a", 7);
    assert_eq!(first, with("a", 7));
    assert_ne!(first, with("a", 8));
    assert_ne!(first, with("b", 7));
    let left = first.iter().filter(|v| **v != 0.0).count();
    assert!((1300..1500).contains(&left), "{left} of 2000 are left at a share of 0.7");
    assert!(first.iter().all(|v| *v == 0.0 || (v - 1.0 / 0.7).abs() < 1e-6));
    assert_eq!(run(&graph, &none, &feeds, "a", &Options::default()), vec![1.0; 2000]);
    // The gradient passes where the value did.
    let options = Options { mode: Mode::Training { seed: 7 }, ..Options::default() };
    let above = [(graph.output("a").unwrap(), tensor(&[1.0; 2000], &[40, 50]))];
    let back = gradients(&graph, &none, &feeds, &above, &[x], &[], &options).unwrap();
    assert_eq!(back.values[&x].to_f32().unwrap(), first);
}

fn annotated(mut graph: Graph, marks: Vec<Annotation>) -> Graph {
    graph.annotations.insert("node".to_owned(), marks);
    graph
}

fn integers(target: QuantTarget, axis: Option<usize>, block: Option<usize>, scales: &[f32]) -> Annotation {
    Annotation::Quantisation {
        target,
        bits: 8,
        signed: true,
        axis,
        block,
        scales: scales.to_vec(),
        zero_points: Vec::new(),
    }
}

const W: [f32; 12] = [0.31, -0.72, 0.05, 1.4, -2.0, 0.6, 0.011, 0.5, -0.049, 3.0, -0.2, 0.9];

fn linear() -> (Graph, ValueId, Loaded) {
    let (graph, x) = one_node(Op::Linear {}, 4, &[(Slot::Weight, "weight", &[3, 4])]);
    let id = graph.find_tensor("weight").unwrap();
    (graph, x, Loaded([(id, tensor(&W, &[3, 4]))].into()))
}

/// With unit vectors fed, a Linear's output is its weight as the node sees it.
fn weight_seen(graph: &Graph, x: ValueId, weights: &Loaded) -> Vec<f32> {
    let unit: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
    let y = run(graph, weights, &[(x, tensor(&unit, &[4, 4]))].into(), "y", &Options::default());
    (0..12).map(|i| y[i % 4 * 3 + i / 4]).collect()
}

#[test]
fn a_weight_is_rounded_by_tensor_by_channel_and_by_block() {
    for (axis, block, scales) in [
        (None, None, vec![0.03]),
        (Some(0), None, vec![0.012, 0.016, 0.024]),
        (Some(1), None, vec![0.02, 0.03, 0.002, 0.01]),
        (None, Some(2), vec![0.006, 0.011, 0.016, 0.004, 0.024, 0.007]),
    ] {
        let (graph, x, weights) = linear();
        let mark = integers(QuantTarget::Weight, axis, block, &scales);
        let seen = weight_seen(&annotated(graph, vec![mark]), x, &weights);
        let want: Vec<f32> = (0..12)
            .map(|i| {
                let (row, column) = (i / 4, i % 4);
                let scale = match (axis, block) {
                    (Some(0), _) => scales[row],
                    (Some(_), _) => scales[column],
                    (_, Some(b)) => scales[row * 2 + column / b],
                    _ => scales[0],
                };
                (W[i] / scale).round_ties_even().clamp(-128.0, 127.0) * scale
            })
            .collect();
        assert_eq!(seen, want, "axis {axis:?}, block {block:?}");
        assert_ne!(seen, W);
    }
}

#[test]
fn zero_points_shift_the_range() {
    let (graph, x, weights) = linear();
    let mark = Annotation::Quantisation {
        target: QuantTarget::Weight,
        bits: 4,
        signed: false,
        axis: None,
        block: None,
        scales: vec![0.25],
        zero_points: vec![5],
    };
    let seen = weight_seen(&annotated(graph, vec![mark]), x, &weights);
    // Integers 0 to 15 with 5 for zero: -1.25 to 2.5.
    let want = W.map(|v| ((v / 0.25).round_ties_even() + 5.0).clamp(0.0, 15.0).mul_add(0.25, -1.25));
    assert_eq!(seen, want);
    assert!(seen.contains(&-1.25) && seen.contains(&2.5));
}

#[test]
fn inputs_and_outputs_are_rounded_and_gradients_pass_straight() {
    let (graph, x, weights) = linear();
    let fed = tensor(&[0.3, -0.61, 0.2, 0.9], &[1, 4]);
    let plain = run(&graph, &weights, &[(x, fed.clone())].into(), "y", &Options::default());
    let marks = vec![
        integers(QuantTarget::Input(0), None, None, &[0.25]),
        integers(QuantTarget::Output(0), None, None, &[0.125]),
    ];
    let marked = annotated(graph.clone(), marks);
    let y = run(&marked, &weights, &[(x, fed.clone())].into(), "y", &Options::default());
    let rounded = [0.25, -0.5, 0.25, 1.0];
    let want: Vec<f32> = (0..3)
        .map(|r| (0..4).map(|c| W[r * 4 + c] * rounded[c]).sum::<f32>())
        .map(|v| (v / 0.125).round_ties_even() * 0.125)
        .collect();
    assert_eq!(y, want);
    assert_ne!(y, plain);
    let above = [(marked.output("y").unwrap(), tensor(&[1.0; 3], &[1, 3]))];
    let feeds = [(x, fed)].into();
    let through = gradients(&marked, &weights, &feeds, &above, &[x], &[], &Options::default()).unwrap();
    let direct = gradients(&graph, &weights, &feeds, &above, &[x], &[], &Options::default()).unwrap();
    assert_eq!(through.values[&x].to_f32().unwrap(), direct.values[&x].to_f32().unwrap());
    assert_eq!(through.outputs[0].to_f32().unwrap(), y);
}

#[test]
fn a_narrow_node_computes_on_narrow_numbers() {
    let (graph, x) = one_node(Op::Activation { function: Activation::Relu }, 3, &[]);
    let values = [1.0 + 1.0 / 1024.0, 1.0 + 1.0 / 4096.0, 1.0 + 1.0 / 64.0];
    for (dtype, want) in [
        ("f16", [1.0 + 1.0 / 1024.0, 1.0, 1.0 + 1.0 / 64.0]),
        ("bf16", [1.0, 1.0, 1.0 + 1.0 / 64.0]),
        ("f32", values),
    ] {
        let graph = annotated(graph.clone(), vec![Annotation::Precision { dtype: dtype.to_owned() }]);
        let feeds = [(x, tensor(&values, &[1, 3]))].into();
        assert_eq!(run(&graph, &Loaded::default(), &feeds, "y", &Options::default()), want, "{dtype}");
    }
    let graph = annotated(graph, vec![Annotation::Precision { dtype: "f8".to_owned() }]);
    let feeds = [(x, tensor(&values, &[1, 3]))].into();
    let wanted = [graph.output("y").unwrap()];
    let e = evaluate(&graph, &Loaded::default(), &feeds, &wanted, &Options::default()).unwrap_err();
    assert!(e.to_string().contains("f8") && e.to_string().contains("node"), "{e}");
}

#[test]
fn wrong_annotations_are_refused_by_name() {
    let cases = [
        (integers(QuantTarget::Weight, Some(0), None, &[0.1]), "1 scales"),
        (integers(QuantTarget::Weight, Some(7), None, &[0.1]), "axis 7"),
        (integers(QuantTarget::Weight, None, Some(0), &[0.1]), "no elements"),
    ];
    for (mark, says) in cases {
        let (graph, x, weights) = linear();
        let graph = annotated(graph, vec![mark]);
        let feeds = [(x, tensor(&[0.0; 4], &[1, 4]))].into();
        let wanted = [graph.output("y").unwrap()];
        let e = evaluate(&graph, &weights, &feeds, &wanted, &Options::default()).unwrap_err().to_string();
        assert!(e.contains(says) && e.contains("node"), "{e}");
    }
}

#[test]
fn an_adapter_adds_its_product_and_learns() {
    let mut b = GraphBuilder::new("one", "f32");
    let x = b.input("x", vec!["rows".into(), 4.into()], ValueType::Float);
    let w = b.parameter("weight", &[3, 4]).unwrap();
    let down = b.parameter("node.lora_A.weight", &[2, 4]).unwrap();
    let up = b.parameter("node.lora_B.weight", &[3, 2]).unwrap();
    let y = b.node("node", Op::Linear {}, &[x], &[(Slot::Weight, w)]).unwrap();
    b.output("y", y);
    b.annotate("node", Annotation::Adapter { rank: 2, alpha: 6.0, dropout: 0.0 });
    let graph = b.finish().unwrap();
    let (a, c) = (noise(3, 8), noise(4, 6));
    let weights =
        Loaded([(w, tensor(&W, &[3, 4])), (down, tensor(&a, &[2, 4])), (up, tensor(&c, &[3, 2]))].into());
    let seen = weight_seen(&graph, x, &weights);
    let want: Vec<f32> = (0..12)
        .map(|i| W[i] + 3.0 * (0..2).map(|r| c[i / 4 * 2 + r] * a[r * 4 + i % 4]).sum::<f32>())
        .collect();
    assert!(largest_gap(&seen, &want) < 1e-6);
    let feeds: Feeds = [(x, tensor(&[0.5, -1.0, 2.0, 0.25], &[1, 4]))].into();
    let above = [(graph.output("y").unwrap(), tensor(&[1.0, 0.0, 0.0], &[1, 3]))];
    let g = gradients(&graph, &weights, &feeds, &above, &[], &[down, up], &Options::default()).unwrap();
    // d y0 / d B[0][r] is 3 (A x)[r]; rows that do not reach y0 get nothing.
    let inner: Vec<f32> = (0..2)
        .map(|r| 3.0 * [0.5, -1.0, 2.0, 0.25].iter().enumerate().map(|(i, v)| v * a[r * 4 + i]).sum::<f32>())
        .collect();
    let of_up = g.weights[&up].to_f32().unwrap();
    assert!(largest_gap(&of_up, &[inner[0], inner[1], 0.0, 0.0, 0.0, 0.0]) < 1e-5, "{of_up:?}");
    assert!(g.weights[&down].to_f32().unwrap().iter().any(|v| *v != 0.0));
    let unused: BTreeMap<_, _> = g.weights.iter().filter(|(id, _)| **id == w).collect();
    assert!(unused.is_empty());
}

/// Gradients of every weight of a graph, and of its first float input if it has one.
fn all_gradients(
    graph: &Graph,
    all: &Loaded,
    feeds: &Feeds,
    checkpoints: Vec<ValueId>,
) -> pomona_exec::Gradients {
    let ids: Vec<TensorId> = graph.iter_tensors().map(|(id, _)| id).collect();
    let wanted = [graph.outputs[0].value];
    let options = Options { mode: Mode::Training { seed: 3 }, checkpoints, ..Options::default() };
    let float = graph.inputs.iter().map(|p| p.value).find(|v| feeds[v].kind() == pomona_exec::Kind::Float);
    let values: Vec<ValueId> = float.into_iter().collect();
    let wrt = pomona_exec::Wrt { values: &values, weights: &ids };
    let loss = |out: &[Tensor]| Ok(vec![tensor(&noise(8, out[0].elements()), out[0].shape())]);
    pomona_exec::gradients_of_loss(graph, all, feeds, &wanted, wrt, &options, loss).unwrap()
}

fn same(a: &pomona_exec::Gradients, b: &pomona_exec::Gradients) {
    assert_eq!(a.outputs[0].to_f32().unwrap(), b.outputs[0].to_f32().unwrap());
    assert_eq!(a.weights.keys().collect::<Vec<_>>(), b.weights.keys().collect::<Vec<_>>());
    assert_eq!(a.values.keys().collect::<Vec<_>>(), b.values.keys().collect::<Vec<_>>());
    let pairs = a.weights.values().zip(b.weights.values()).chain(a.values.values().zip(b.values.values()));
    for (x, y) in pairs {
        let (x, y) = (x.to_f32().unwrap(), y.to_f32().unwrap());
        let scale = x.iter().fold(1e-3_f32, |m, v| m.max(v.abs()));
        assert!(largest_gap(&x, &y) <= 1e-5 * scale, "{} of {scale}", largest_gap(&x, &y));
    }
}

#[test]
fn checkpoints_change_no_gradient() {
    // A decoder, whose embedding is tied or read by the first part alone.
    let graph = toys::llama(3).unwrap();
    let all = weights(&graph);
    let mut feeds = decoder_feeds(&graph, &TOKENS, 0);
    feeds.extend(empty(&graph));
    let ends = pomona_exec::block_ends(&graph);
    assert_eq!(ends.len(), 3);
    let plain = all_gradients(&graph, &all, &feeds, Vec::new());
    assert!(plain.weights.len() > 20);
    same(&plain, &all_gradients(&graph, &all, &feeds, ends.clone()));
    // In any order, and with one that is wanted itself.
    let mut odd = vec![graph.outputs[0].value, ends[2], ends[0]];
    odd.push(ends[0]);
    same(&plain, &all_gradients(&graph, &all, &feeds, odd));
    // Skips reach over several checkpoints: every value of a chain with dropout and a concatenation is one.
    let mut b = GraphBuilder::new("skips", "f32");
    let x = b.input("x", vec![2.into(), 6.into()], ValueType::Float);
    let first = b.linear("first", x, 6, true).unwrap();
    let dropped = b.node("drop", Op::Dropout { rate: 0.3 }, &[first], &[]).unwrap();
    let second = b.linear("second", dropped, 6, true).unwrap();
    let act = b.activation("act", Activation::Silu, second).unwrap();
    let joined = b.node("join", Op::Concat { axis: 1 }, &[act, first, x], &[]).unwrap();
    let last = b.linear("last", joined, 3, true).unwrap();
    b.output("y", last);
    let graph = b.finish().unwrap();
    let all = weights(&graph);
    let feeds: Feeds = [(x, tensor(&noise(4, 12), &[2, 6]))].into();
    let plain = all_gradients(&graph, &all, &feeds, Vec::new());
    for cuts in [vec![second], vec![first, act], vec![first, dropped, second, act, joined, last]] {
        same(&plain, &all_gradients(&graph, &all, &feeds, cuts));
    }
    let wrong = Options { checkpoints: vec![ValueId(999)], ..Options::default() };
    let wrt = pomona_exec::Wrt { values: &[], weights: &[] };
    let e = pomona_exec::gradients_of_loss(&graph, &all, &feeds, &[last], wrt, &wrong, |o| Ok(o.to_vec()))
        .unwrap_err();
    assert!(e.to_string().contains("checkpoint"), "{e}");
}

/// Weights as a file of 16-bit floats holds them; asked for as 32-bit floats, they are widened and counted.
struct Stored<'a> {
    graph: &'a Graph,
    kind: NarrowKind,
    bytes: BTreeMap<TensorId, Vec<u8>>,
    widened: std::sync::Mutex<usize>,
}

impl Stored<'_> {
    fn wide(&self, id: TensorId) -> Tensor {
        let one = |b: &[u8]| match self.kind {
            NarrowKind::Bf16 => half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            _ => half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
        };
        let values: Vec<f32> = self.bytes[&id].chunks_exact(2).map(one).collect();
        tensor(&values, &self.graph.tensor(id).shape)
    }
}

impl WeightProvider for Stored<'_> {
    fn get(&self, id: TensorId) -> pomona_exec::Result<Tensor> {
        *self.widened.lock().unwrap() += 1;
        Ok(self.wide(id))
    }

    fn narrow(&self, id: TensorId) -> pomona_exec::Result<Option<Narrow<'_>>> {
        Ok(Some(Narrow { kind: self.kind, bytes: &self.bytes[&id] }))
    }
}

#[test]
fn narrow_weights_give_to_the_bit_what_their_widened_ones_give() {
    for (rows, width, out) in [(1, 33, 70), (3, 200, 129), (9, 65, 41), (70, 300, 90), (300, 700, 130)] {
        for kind in [NarrowKind::Bf16, NarrowKind::F16] {
            let mut b = GraphBuilder::new("one", "f32");
            let x = b.input("x", vec![rows.into(), width.into()], ValueType::Float);
            let y = b.linear("linear", x, out, false).unwrap();
            b.output("y", y);
            let graph = b.finish().unwrap();
            let bits = |v: &f32| match kind {
                NarrowKind::Bf16 => half::bf16::from_f32(*v).to_le_bytes(),
                _ => half::f16::from_f32(*v).to_le_bytes(),
            };
            let id = graph.find_tensor("linear.weight").unwrap();
            let bytes = [(id, noise(2, out * width).iter().flat_map(bits).collect())].into();
            let mut stored = Stored { graph: &graph, kind, bytes, widened: Default::default() };
            let wide = Loaded([(id, stored.wide(id))].into());
            let feeds: Feeds = [(x, tensor(&noise(1, rows * width), &[rows, width]))].into();
            let want = run(&graph, &wide, &feeds, "y", &Options::default());
            let got = evaluate(&graph, &stored, &feeds, &[y], &Options::default()).unwrap();
            assert_eq!(got[0].to_f32().unwrap(), want, "{kind:?} {rows}x{width}x{out}");
            assert_eq!(*stored.widened.lock().unwrap(), 0, "no 32-bit copy is made");
            // Where a gradient is asked for, the weight is widened, and the values are the same.
            let found =
                gradients(&graph, &stored, &feeds, &[(y, got[0].clone())], &[x], &[], &Options::default());
            assert_eq!(found.unwrap().outputs[0].to_f32().unwrap(), want);
            assert_eq!(*stored.widened.lock().unwrap(), 1);
            assert_eq!(Narrow { kind, bytes: &stored.bytes[&id] }.not_finite(), None);
            let infinite = bits(&f32::INFINITY);
            stored.bytes.get_mut(&id).unwrap()[..2].copy_from_slice(&infinite);
            assert_eq!(Narrow { kind, bytes: &stored.bytes[&id] }.not_finite(), Some(f32::INFINITY));
            stored.bytes.get_mut(&id).unwrap().pop();
            let e = evaluate(&graph, &stored, &feeds, &[y], &Options::default()).unwrap_err();
            assert!(e.to_string().contains("linear.weight"), "{e}");
        }
    }
}

#[test]
fn a_norm_with_its_activation_is_the_two_one_after_the_other() {
    let mut b = GraphBuilder::new("norms", "f32");
    let x = b.input("x", vec![2.into(), 6.into(), 5.into(), 7.into()], ValueType::Float);
    let grouped = b.group_norm("group", x, 3, 1e-5).unwrap();
    let a = b.activation("silu", Activation::Silu, grouped).unwrap();
    let each = b.node("instance", Op::InstanceNorm { eps: 1e-5 }, &[a], &[]).unwrap();
    let a = b.activation("leaky", Activation::LeakyRelu(0.2), each).unwrap();
    // Read twice, so that it stands alone.
    let shared = b.group_norm("shared", a, 2, 1e-5).unwrap();
    let gelu = b.activation("gelu", Activation::Gelu, shared).unwrap();
    let sum = b.add("sum", &[shared, gelu]).unwrap();
    b.output("y", sum);
    let graph = b.finish().unwrap();
    let all = weights(&graph);
    let feeds: Feeds = [(x, tensor(&noise(6, 420), &[2, 6, 5, 7]))].into();
    let apart = Options { check_finite: true, ..Options::default() };
    let one = run(&graph, &all, &feeds, "y", &Options::default());
    let two = run(&graph, &all, &feeds, "y", &apart);
    assert!(largest_gap(&one, &two) < 1e-5, "{}", largest_gap(&one, &two));
    // What lies between can still be asked for.
    let both = evaluate(&graph, &all, &feeds, &[grouped, each, sum], &Options::default()).unwrap();
    assert_eq!(both[0].shape(), [2, 6, 5, 7]);
    assert!(largest_gap(&both[2].to_f32().unwrap(), &two) < 1e-5);
    let ids: Vec<TensorId> = graph.iter_tensors().map(|(id, _)| id).collect();
    let up = tensor(&noise(9, 420), &[2, 6, 5, 7]);
    let of = |options: &Options| {
        gradients(&graph, &all, &feeds, &[(sum, up.clone())], &[x], &ids, options).unwrap()
    };
    let (one, two) = (of(&Options::default()), of(&apart));
    assert_eq!(one.weights.len(), 4);
    let pairs =
        one.weights.values().zip(two.weights.values()).chain(one.values.values().zip(two.values.values()));
    for (a, b) in pairs {
        let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
        assert!(a.iter().any(|v| v.abs() > 1e-3));
        assert!(largest_gap(&a, &b) < 1e-4, "{}", largest_gap(&a, &b));
    }
}
