//! Every operator against PyTorch: values and gradients on small seeded inputs (`operators/make_goldens.py`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use pomona_exec::{Device, Feeds, Kind, Loaded, Options, Tensor, evaluate, gradients};
use pomona_graph::{Dim, Graph, GraphBuilder, Op, Role, Slot, TensorId, ValueId, ValueType};
use serde::Deserialize;

/// Relative to the largest element: float32 sums of a few dozen products against double precision.
const VALUES: f32 = 1e-5;
/// A gradient goes through the forward pass once more.
const GRADIENTS: f32 = 5e-5;

#[derive(Deserialize)]
struct Golden {
    shape: Vec<usize>,
    float: Option<String>,
    int: Option<Vec<i64>>,
    bool: Option<Vec<bool>>,
}

#[derive(Deserialize)]
struct Wanted {
    inputs: BTreeMap<String, Golden>,
    weights: BTreeMap<String, Golden>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    node: Op,
    inputs: Vec<Golden>,
    weights: BTreeMap<String, Golden>,
    outputs: Vec<Golden>,
    upstream: Option<Vec<Option<Golden>>>,
    gradients: Option<Wanted>,
}

impl Golden {
    fn floats(&self) -> Vec<f32> {
        let hex = self.float.as_ref().unwrap();
        let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        (0..hex.len() / 8).map(|i| f32::from_le_bytes([0, 2, 4, 6].map(|o| byte(8 * i + o)))).collect()
    }

    fn tensor(&self) -> Tensor {
        match (&self.int, &self.bool) {
            (Some(v), _) => Tensor::from_i64(v.clone(), &self.shape, &Device::cpu()).unwrap(),
            (_, Some(v)) => Tensor::from_bool(v.clone(), &self.shape, &Device::cpu()).unwrap(),
            _ => Tensor::from_f32(self.floats(), &self.shape, &Device::cpu()).unwrap(),
        }
    }

    fn kind(&self) -> ValueType {
        match (&self.int, &self.bool) {
            (Some(_), _) => ValueType::Int,
            (_, Some(_)) => ValueType::Bool,
            _ => ValueType::Float,
        }
    }

    /// What differs, if anything does.
    fn differs(&self, found: &Tensor, bound: f32) -> Option<String> {
        if found.shape() != self.shape {
            return Some(format!("shape {:?} instead of {:?}", found.shape(), self.shape));
        }
        if let Some(want) = &self.int {
            return (found.as_i64().unwrap() != want).then(|| format!("{found:?} instead of {want:?}"));
        }
        if let Some(want) = &self.bool {
            return (found.as_bool().unwrap() != want).then(|| format!("{found:?} instead of {want:?}"));
        }
        let (want, have) = (self.floats(), found.to_f32().unwrap());
        // Infinities and NaN are values of their own.
        let odd = |(w, h): (&f32, &f32)| {
            !(w.is_finite() && h.is_finite() || w.to_bits() == h.to_bits() || w.is_nan() && h.is_nan())
        };
        if let Some(i) = want.iter().zip(&have).position(odd) {
            return Some(format!("element {i} is {} instead of {}", have[i], want[i]));
        }
        let finite = |v: &f32| if v.is_finite() { v.abs() } else { 0.0 };
        // Sums that cancel to nothing are measured against their terms, which are of the order of one.
        let scale = want.iter().map(finite).fold(0.1, f32::max);
        let gap = want
            .iter()
            .zip(&have)
            .filter(|(w, _)| w.is_finite())
            .map(|(w, h)| (w - h).abs())
            .fold(0.0, f32::max);
        (gap > bound * scale).then(|| format!("differs by {gap:e} where the largest is {scale}"))
    }
}

struct Built {
    graph: Graph,
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
    weights: BTreeMap<String, TensorId>,
    loaded: Loaded,
    feeds: Feeds,
}

fn build(case: &Case) -> Built {
    let mut b = GraphBuilder::new("case", "f32");
    let mut inputs = Vec::new();
    for (i, g) in case.inputs.iter().enumerate() {
        let shape = g.shape.iter().map(|&n| Dim::from(n)).collect();
        inputs.push(b.input(&format!("x{i}"), shape, g.kind()));
    }
    let (mut slots, mut loaded, mut weights) = (Vec::new(), Loaded::default(), BTreeMap::new());
    for (name, g) in &case.weights {
        let slot: Slot = serde_json::from_value(name.clone().into()).unwrap();
        let role = if name.starts_with("running") { Role::Buffer } else { Role::Parameter };
        let id = b.tensor(name, &g.shape, "f32", role).unwrap();
        slots.push((slot, id));
        loaded.0.insert(id, g.tensor());
        weights.insert(name.clone(), id);
    }
    let made = b.node_multi("node", case.node.clone(), &inputs, &slots);
    let outputs = made.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    for (i, v) in outputs.iter().enumerate() {
        b.output(&format!("y{i}"), *v);
    }
    let graph = b.finish().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let feeds = inputs.iter().zip(&case.inputs).map(|(v, g)| (*v, g.tensor())).collect();
    Built { graph, inputs, outputs, weights, loaded, feeds }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("operators/operators.json")).unwrap()
}

#[test]
fn values_are_pytorchs() {
    let mut wrong = Vec::new();
    for case in cases() {
        let b = build(&case);
        match evaluate(&b.graph, &b.loaded, &b.feeds, &b.outputs, &Options::default()) {
            Err(e) => wrong.push(format!("{}: {e}", case.name)),
            Ok(found) => {
                assert_eq!(found.len(), case.outputs.len(), "{}", case.name);
                for (i, (g, f)) in case.outputs.iter().zip(&found).enumerate() {
                    wrong.extend(g.differs(f, VALUES).map(|d| format!("{} output {i}: {d}", case.name)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn gradients_are_pytorchs() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for case in cases() {
        let (Some(upstream), Some(want)) = (&case.upstream, &case.gradients) else { continue };
        let b = build(&case);
        let upstream: Vec<_> =
            b.outputs.iter().zip(upstream).filter_map(|(v, g)| Some((*v, g.as_ref()?.tensor()))).collect();
        let values: BTreeMap<&String, ValueId> =
            want.inputs.keys().map(|k| (k, b.inputs[k.parse::<usize>().unwrap()])).collect();
        let weights: Vec<TensorId> = want.weights.keys().map(|k| b.weights[k]).collect();
        let of: Vec<ValueId> = values.values().copied().collect();
        match gradients(&b.graph, &b.loaded, &b.feeds, &upstream, &of, &weights, &Options::default()) {
            Err(e) => wrong.push(format!("{}: {e}", case.name)),
            Ok(found) => {
                let of_inputs = want.inputs.iter().map(|(k, g)| (k, g, found.values.get(&values[k])));
                let of_weights = want.weights.iter().map(|(k, g)| (k, g, found.weights.get(&b.weights[k])));
                for (k, g, f) in of_inputs.chain(of_weights) {
                    checked += 1;
                    let gap = f.map_or(Some("has none".to_owned()), |f| g.differs(f, GRADIENTS));
                    wrong.extend(gap.map(|d| format!("{} gradient of {k}: {d}", case.name)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 250, "only {checked} gradients were compared");
}

#[test]
fn every_operator_has_a_case() {
    let name = |op: &Op| format!("{op:?}").split([' ', '(']).next().unwrap().to_owned();
    let covered: BTreeSet<String> = cases().iter().map(|c| name(&c.node)).collect();
    let all: BTreeSet<String> = Op::NAMES.iter().map(|n| (*n).to_owned()).collect();
    assert_eq!(all.difference(&covered).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Kinds come back as they were asked for.
#[test]
fn integers_and_truths_keep_their_kind() {
    for case in cases().iter().filter(|c| c.outputs.iter().any(|o| o.float.is_none())) {
        let b = build(case);
        let found = evaluate(&b.graph, &b.loaded, &b.feeds, &b.outputs, &Options::default()).unwrap();
        for (g, f) in case.outputs.iter().zip(&found) {
            let want = match g.kind() {
                ValueType::Int => Kind::Int,
                ValueType::Bool => Kind::Bool,
                _ => Kind::Float,
            };
            assert_eq!(f.kind(), want, "{}", case.name);
        }
    }
}
