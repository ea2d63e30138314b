//! Random cuts, and the masked network that a cut one must equal.
//!
//! What a cut takes is read off its recipe, which is run on tensors of element numbers. In the masked network these elements
//! are zero: filters with their bias, the scale and shift of the norm behind them (so that the mask is behind BatchNorm, not
//! before it, where a shift would bring the channel back), and the columns that read them. Norms that mix channels have no
//! channel to themselves: masked, they take the statistics of the channels that are left.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "tests; each file uses its part")]

use std::collections::{BTreeMap, HashMap};

use pomona_exec::{Device, Feeds, Loaded, Options, Tensor, WeightProvider, evaluate};
use pomona_graph::{ChannelGroup, Edit, Graph, Node, Op, Recipe, Slot, TensorId, ValueId, keep_edits};
use pomona_task::{EditedWeights, Weights};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

/// Weights in memory.
pub struct Held(pub Loaded);

impl WeightProvider for Held {
    fn get(&self, id: TensorId) -> pomona_exec::Result<Tensor> {
        self.0.get(id)
    }
}

impl Weights for Held {
    fn release(&self) {}
}

/// Every tensor of a graph from its name and shape.
pub fn held(graph: &Graph, values: impl Fn(&str, &[usize]) -> Vec<f32>) -> Held {
    let tensor =
        |t: &pomona_graph::TensorDef| Tensor::from_f32(values(&t.name, &t.shape), &t.shape, &Device::cpu());
    Held(Loaded(graph.iter_tensors().map(|(id, t)| (id, tensor(t).unwrap())).collect()))
}

/// A cut of some of the groups: whole norm groups where they go one by one, every other time; else equal shares of all cells of a cluster; now and then a cell (a head, a norm's group) of one
/// cluster goes whole, which not every operator allows.
pub fn random_cut(graph: &Graph, groups: &[ChannelGroup], rng: &mut impl Rng) -> Vec<Edit> {
    let mut clusters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    // A group that is cut by whole norm groups leaves those that are tied to it in equal shares alone.
    let bundled = groups.iter().any(|g| g.bundles.is_some()) && rng.random_bool(0.5);
    let mut kept: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for (i, g) in groups.iter().enumerate() {
        if let (true, Some(bundles)) = (bundled, &g.bundles) {
            let mut all: Vec<u32> = bundles.iter().flatten().copied().collect();
            all.dedup();
            all.sort_unstable();
            all.dedup();
            all.shuffle(rng);
            let most = all.len() - usize::from(!bundles.contains(&None) && !all.is_empty());
            let gone = &all[..rng.random_range(most.min(1)..=most)];
            let stays = |b: &Option<u32>| b.is_none_or(|b| !gone.contains(&b));
            kept.insert(i, (0_u32..).zip(bundles).filter(|(_, b)| stays(b)).map(|(c, _)| c).collect());
            continue;
        }
        clusters.entry(g.cluster).or_default().push(i);
    }
    let special = rng.random_range(0..(2 * clusters.len()).max(1));
    for (number, members) in clusters.into_values().enumerate() {
        if number != special && rng.random_range(0..3) == 0 {
            continue;
        }
        let cells: Vec<(usize, Vec<u32>)> = members
            .iter()
            .flat_map(|g| {
                let mut of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
                (0_u32..).zip(&groups[*g].cells).for_each(|(c, cell)| of.entry(*cell).or_default().push(c));
                of.into_values().map(move |channels| (*g, channels))
            })
            .collect();
        let whole = cells.len() > 1 && number == special;
        let gone = rng.random_range(0..cells.len());
        let parts = cells.iter().fold(0, |n, (_, c)| gcd(n, c.len()));
        let stays = rng.random_range(1..=parts);
        for (i, (g, mut channels)) in cells.into_iter().enumerate() {
            let count = match whole {
                true => channels.len() * usize::from(i != gone),
                false => channels.len() / parts * stays,
            };
            channels.shuffle(rng);
            kept.entry(g).or_default().extend(&channels[..count]);
        }
    }
    kept.values_mut().for_each(|k| k.sort_unstable());
    kept.retain(|_, k| !k.is_empty());
    keep_edits(graph, groups, &kept)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// For each tensor of the graph, which elements the edited graph still has.
pub fn kept_elements(graph: &Graph, edited: &Graph, recipe: &Recipe) -> HashMap<TensorId, Vec<bool>> {
    let numbers = held(graph, |_, shape| (0..shape.iter().product::<usize>()).map(|i| i as f32).collect());
    let made = EditedWeights::new(graph, &numbers, (edited, recipe), &Device::cpu());
    let mut out = HashMap::new();
    for (id, t) in edited.iter_tensors() {
        let from = graph.find_tensor(&t.name).unwrap();
        let mut kept = vec![false; graph.tensor(from).elements() as usize];
        for i in made.get(id).unwrap().to_f32().unwrap() {
            kept[i as usize] = true;
        }
        out.insert(from, kept);
    }
    out
}

/// Outputs of the edited graph. Inputs and states are given by the ports of the original; states are cut by nothing, so they
/// must be empty.
pub fn run_cut(
    graph: &Graph,
    weights: &Held,
    (edited, recipe): (&Graph, &Recipe),
    feeds: &Feeds,
) -> Vec<Vec<f32>> {
    let cut = EditedWeights::new(graph, weights, (edited, recipe), &Device::cpu());
    let mut given = Feeds::default();
    for (new, old) in edited.inputs.iter().zip(&graph.inputs) {
        given.extend(feeds.get(&old.value).map(|t| (new.value, t.clone())));
    }
    let sizes = [("batch".to_owned(), 1), ("past".to_owned(), 0)].into();
    if !edited.states.is_empty() {
        given.extend(pomona_exec::start_states(edited, &sizes, &Device::cpu()).unwrap());
    }
    outputs(edited, &cut, &given)
}

pub fn outputs(graph: &Graph, weights: &dyn WeightProvider, feeds: &Feeds) -> Vec<Vec<f32>> {
    let fed = |p: &&pomona_graph::Port| reachable(graph, p.value, feeds);
    let wanted: Vec<ValueId> = graph.outputs.iter().filter(fed).map(|p| p.value).collect();
    assert!(!wanted.is_empty());
    let found = evaluate(graph, weights, feeds, &wanted, &Options::default()).unwrap();
    found.iter().map(|t| t.to_f32().unwrap()).collect()
}

/// Whether every input that a value needs is fed.
fn reachable(graph: &Graph, value: ValueId, feeds: &Feeds) -> bool {
    let producers = graph.producers();
    let (mut seen, mut left) = (vec![false; graph.values.len()], vec![value]);
    while let Some(v) = left.pop() {
        if std::mem::replace(&mut seen[v.0 as usize], true) || feeds.contains_key(&v) {
            continue;
        }
        match producers[v.0 as usize] {
            Some((node, _)) => left.extend(&graph.node(node).inputs),
            None => return false,
        }
    }
    true
}

/// Outputs of the whole graph with everything masked that the edits take.
pub fn run_masked(
    graph: &Graph,
    weights: &Held,
    (edited, recipe): (&Graph, &Recipe),
    feeds: &Feeds,
) -> Vec<Vec<f32>> {
    let kept = kept_elements(graph, edited, recipe);
    let mut masked: BTreeMap<TensorId, Tensor> = BTreeMap::new();
    for (id, t) in &weights.0.0 {
        let mut values = t.to_f32().unwrap();
        if let Some(kept) = kept.get(id) {
            values.iter_mut().zip(kept).filter(|(_, k)| !**k).for_each(|(v, _)| *v = 0.0);
        }
        masked.insert(*id, Tensor::from_f32(values, t.shape(), &Device::cpu()).unwrap());
    }
    let masked = Held(Loaded(masked));
    let mut feeds = feeds.clone();
    for node in &graph.nodes {
        let mixes = matches!(node.op, Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::GroupNorm { .. });
        let cut = node.weights.get(&Slot::Weight).and_then(|w| kept.get(w)).filter(|k| k.contains(&false));
        let (true, Some(kept)) = (mixes, cut) else { continue };
        let Some(left) = edited.find_node(&node.path).map(|id| edited.node(id)) else { continue };
        if !reachable(graph, node.inputs[0], &feeds) {
            continue;
        }
        let x = evaluate(graph, &masked, &feeds, &[node.inputs[0]], &Options::default()).unwrap().remove(0);
        let y = norm_of_kept(node, left, kept, &x, &masked);
        feeds.insert(node.inputs[0], x);
        feeds.insert(node.outputs[0], y);
    }
    outputs(graph, &masked, &feeds)
}

/// A norm over the channels that are left; zero in the others.
fn norm_of_kept(node: &Node, left: &Node, kept: &[bool], x: &Tensor, weights: &Held) -> Tensor {
    let tensor = |slot| node.weights.get(&slot).map(|t| weights.get(*t).unwrap().to_f32().unwrap());
    let (scale, shift) = (tensor(Slot::Weight).unwrap(), tensor(Slot::Bias));
    let (shape, data) = (x.shape().to_vec(), x.to_f32().unwrap());
    let channels: Vec<usize> = (0..kept.len()).filter(|c| kept[*c]).collect();
    let mut out = vec![0.0_f32; data.len()];
    // Runs of elements that are normalised together: each a list of (position, channel).
    let mut runs: Vec<Vec<(usize, usize)>> = Vec::new();
    let (eps, centred, offset) = match &node.op {
        Op::LayerNorm { axes: 1, eps } | Op::GroupNorm { eps, .. } => (*eps, true, 0.0),
        Op::RmsNorm { eps, offset } => (*eps, false, *offset),
        other => panic!("{other:?}"),
    };
    match (&node.op, &left.op) {
        (Op::GroupNorm { .. }, Op::GroupNorm { groups, .. }) => {
            let inner: usize = shape[2..].iter().product();
            for b in 0..shape[0] {
                for group in channels.chunks(channels.len() / groups) {
                    let start = b * shape[1];
                    let at = |c: &usize| {
                        let (c, first) = (*c, (start + *c) * inner);
                        (0..inner).map(move |i| (first + i, c))
                    };
                    runs.push(group.iter().flat_map(at).collect());
                }
            }
        }
        _ => {
            for row in 0..data.len() / kept.len() {
                runs.push(channels.iter().map(|c| (row * kept.len() + c, *c)).collect());
            }
        }
    }
    for run in runs {
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            run.iter().map(|(i, _)| f(f64::from(data[*i]))).sum::<f64>() / run.len() as f64
        };
        let mean = if centred { mean_of(&|v| v) } else { 0.0 };
        let spread = (mean_of(&|v| (v - mean).powi(2)) + eps).sqrt();
        for (i, c) in &run {
            let normal = (f64::from(data[*i]) - mean) / spread;
            let by = f64::from(scale[*c]) + offset;
            out[*i] = (normal * by + shift.as_ref().map_or(0.0, |s| f64::from(s[*c]))) as f32;
        }
    }
    Tensor::from_f32(out, &shape, &Device::cpu()).unwrap()
}

/// Largest difference as a share of the allowed 1e-4 x max(1, max |reference|).
pub fn gap(reference: &[Vec<f32>], other: &[Vec<f32>]) -> f32 {
    assert_eq!(reference.len(), other.len());
    let pair = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().chain(b).all(|v| v.is_finite()), "an output is not finite");
        let scale = a.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / (1e-4 * scale)
    };
    reference.iter().zip(other).map(pair).fold(0.0, f32::max)
}
