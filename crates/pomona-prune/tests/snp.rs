//! SNP and heads: scores by their definitions, and cut networks that give what masked ones give.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod nets;
#[path = "../../pomona-task/tests/seeded/mod.rs"]
mod seeded;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nets::{gap, run, run_cut};
use pomona_cost::default_bindings;
use pomona_exec::{Device, Feeds, Options, Tensor, WeightProvider, evaluate};
use pomona_graph::*;
use pomona_models::open;
use pomona_prune::criteria::filters::{Aggregate, FilterCriterion, Gamma};
use pomona_prune::methods::filters::{Choice, Planning, Scoring, groups_of, plan, score};
use pomona_prune::{FilterScores, FilterSettings, Fit, Goal, LadderOptions, Order, PruneError, ScoredUnit};
use pomona_task::{EditedWeights, Objective, SampleLoss, empty_states};
use serde_json::{Value, json};

/// A graph with every size, weights by name, and samples of its only input by name.
struct Net {
    graph: Graph,
    weights: nets::Seeded,
    samples: Samples,
}

struct Samples {
    port: String,
    all: Tensor,
}

impl Objective for Samples {
    fn samples(&self) -> usize {
        self.all.shape()[0]
    }

    fn feeds(&self, graph: &Graph, samples: Range<usize>, _: &Device) -> pomona_task::Result<Feeds> {
        let all = self.all.slice(0, samples)?;
        let mut feeds = empty_states(graph, all.shape()[0], &Device::cpu())?;
        if let Some(positions) = graph.input("positions") {
            let count = all.shape()[1];
            let values = (0..count as i64).collect();
            feeds.insert(positions, Tensor::from_i64(values, &[count], &Device::cpu())?);
        }
        feeds.insert(graph.input(&self.port).unwrap(), all);
        Ok(feeds)
    }

    fn output(&self) -> &str {
        "logits"
    }

    fn losses(&self, _: Range<usize>, _: &Tensor) -> pomona_task::Result<Vec<SampleLoss>> {
        panic!("nothing here has a loss")
    }

    fn gradient(&self, _: Range<usize>, _: Tensor) -> pomona_task::Result<Tensor> {
        panic!("nothing here has a loss")
    }

    fn fingerprint(&self) -> String {
        "by name".to_owned()
    }

    fn source(&self) -> String {
        "by name".to_owned()
    }
}

fn vision(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-task/tests/vision").join(name);
    serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

fn llama() -> Value {
    json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 24, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": 40, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64})
}

fn net(config: &Value, batch: i64) -> Net {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let model = open(&path).unwrap();
    let graph = model.graph().unwrap();
    let mut sizes = default_bindings(graph);
    sizes.insert("batch".to_owned(), batch);
    sizes.entry("tokens".to_owned()).and_modify(|n| *n = 9);
    let graph = graph.bind(&sizes).unwrap();
    let make = |(id, t): (TensorId, &TensorDef)| {
        let values = seeded::weight(&t.name, &t.shape);
        (id, Tensor::from_f32(values, &t.shape, &Device::cpu()).unwrap())
    };
    let weights = nets::Seeded(pomona_exec::Loaded(graph.iter_tensors().map(make).collect()));
    let port = graph.inputs[0].clone();
    let value = graph.value(port.value);
    let shape: Vec<usize> = value.shape.iter().map(|d| d.as_int().unwrap() as usize).collect();
    let drawn = seeded::uniform(&format!("input:{}", port.name), shape.iter().product());
    let all = match value.ty {
        ValueType::Int => {
            let ids = drawn.iter().map(|v| ((v + 1.0) * 19.9) as i64).collect();
            Tensor::from_i64(ids, &shape, &Device::cpu())
        }
        _ => Tensor::from_f32(drawn.into_iter().map(|v| v * 1.5).collect(), &shape, &Device::cpu()),
    };
    Net { weights, samples: Samples { port: port.name, all: all.unwrap() }, graph }
}

fn scoring(net: &Net) -> Scoring<'_> {
    Scoring {
        graph: &net.graph,
        weights: &net.weights,
        objective: Some(&net.samples),
        device: Box::leak(Box::new(Device::cpu())),
        fingerprint: "f",
        component: None,
        tool: "t",
        at_once: net.samples.samples(),
        save_every: Duration::ZERO,
    }
}

fn settings(criterion: FilterCriterion, unit: ScoredUnit) -> FilterSettings {
    FilterSettings {
        criterion,
        aggregate: Aggregate::Normalised,
        samples: 2,
        seed: 7,
        unit,
        gamma: Some(Gamma::default()),
    }
}

fn scores(net: &Net, criterion: FilterCriterion, unit: ScoredUnit) -> FilterScores {
    score(&scoring(net), &settings(criterion, unit), None, &mut |_, _| Ok(()))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn planned(graph: &Graph, scores: &FilterScores, choice: Choice<'_>, limits: LadderOptions) -> Plan {
    let on = Planning {
        graph,
        scores,
        limits,
        choice,
        fit: Fit::Nearest,
        method: "snp",
        device: None,
        fingerprint: "f",
        component: None,
        tool: "t",
    };
    plan(&on).unwrap_or_else(|e| panic!("{e}"))
}

fn ratio(graph: &Graph, scores: &FilterScores, list: &[(&str, f64)]) -> Plan {
    let list: Vec<(String, f64)> = list.iter().map(|(n, r)| ((*n).to_owned(), *r)).collect();
    planned(graph, scores, Choice::Ratios(&list, None), LadderOptions::default())
}

/// The definitions in numpy, with the logits formed (`snp/make_golden.py`).
#[test]
fn scores_are_those_of_the_definitions() {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snp/expected.json");
    let expected: BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<f64>>>> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (name, by_gamma) in &expected {
        let net = net(&vision(name), 2);
        for (gamma, groups) in by_gamma {
            // Scores as the formulas give them; of the stream the mean of shares, which comes out times its width.
            let by = FilterSettings {
                gamma: Some(gamma.parse().unwrap()),
                aggregate: Aggregate::Sum,
                ..settings(FilterCriterion::Snp, ScoredUnit::Channels)
            };
            let found = score(&scoring(&net), &by, None, &mut |_, _| Ok(())).unwrap();
            let shares = scores_with(&net, &FilterSettings { aggregate: Aggregate::Normalised, ..by });
            assert_eq!(found.groups.len(), groups.len(), "{name}");
            for (g, s) in found.groups.iter().enumerate() {
                let (want, got): (&Vec<f64>, Vec<f64>) = match groups.get(&s.name) {
                    Some(want) => (want, s.scores.clone()),
                    None => {
                        let width = s.scores.len() as f64;
                        (&groups["stream"], shares.groups[g].scores.iter().map(|v| v / width).collect())
                    }
                };
                assert_eq!(got.len(), want.len(), "{name} {}", s.name);
                for (got, want) in got.iter().zip(want) {
                    // Queries and keys are single precision in both.
                    assert!(
                        (got - want).abs() <= 2e-5 * want.abs().max(1.0),
                        "{name} {}: {got} {want}",
                        s.name
                    );
                }
            }
        }
    }
}

fn scores_with(net: &Net, by: &FilterSettings) -> FilterScores {
    score(&scoring(net), by, None, &mut |_, _| Ok(())).unwrap()
}

/// The whole network with channels put to zero where layers make them. Norms over a stream that loses channels take their
/// statistics over those that stay: what a physical cut does, and a mask on the stream alone could not.
fn run_masked(net: &Net, groups: &[ChannelGroup], plan: &Plan) -> Vec<f32> {
    let graph = &net.graph;
    let gone = gone_channels(graph, groups, plan);
    let is_gone = |g: usize, c: Option<u32>| c.is_some_and(|c| gone[g].contains(&c));
    let mut feeds = net.samples.feeds(graph, 0..net.samples.samples(), &Device::cpu()).unwrap();
    let eval = |feeds: &Feeds, v: ValueId| {
        evaluate(graph, &net.weights, feeds, &[v], &Options::default()).unwrap().remove(0)
    };
    for node in &graph.nodes {
        let Some(weight) = node.weights.get(&Slot::Weight) else { continue };
        let mut marks = vec![false; graph.tensor(*weight).shape[0]];
        for (g, group) in groups.iter().enumerate() {
            for m in group.members.iter().filter(|m| m.tensor == *weight && m.axis == 0) {
                marks.iter_mut().zip(&m.channel).for_each(|(mark, c)| *mark |= is_gone(g, *c));
            }
        }
        if !marks.contains(&true) {
            continue;
        }
        let (shape, values) = match &node.op {
            Op::Linear {} => {
                let t = eval(&feeds, node.outputs[0]);
                let mut v = t.to_f32().unwrap();
                let width = marks.len();
                v.iter_mut().enumerate().filter(|(i, _)| marks[i % width]).for_each(|(_, v)| *v = 0.0);
                (t.shape().to_vec(), v)
            }
            Op::LayerNorm { .. } | Op::RmsNorm { .. } => {
                let t = eval(&feeds, node.inputs[0]);
                let scale = net.weights.get(*weight).unwrap().to_f32().unwrap();
                let shift =
                    node.weights.get(&Slot::Bias).map(|b| net.weights.get(*b).unwrap().to_f32().unwrap());
                let mut v = t.to_f32().unwrap();
                for row in v.chunks_mut(marks.len()) {
                    normalise(row, &marks, &node.op);
                    for (i, x) in row.iter_mut().enumerate() {
                        let shifted = *x * scale[i] + shift.as_ref().map_or(0.0, |s| s[i]);
                        *x = if marks[i] { 0.0 } else { shifted };
                    }
                }
                (t.shape().to_vec(), v)
            }
            _ => continue,
        };
        feeds.insert(node.outputs[0], Tensor::from_f32(values, &shape, &Device::cpu()).unwrap());
    }
    run(graph, &net.weights, &feeds)
}

fn normalise(row: &mut [f32], gone: &[bool], op: &Op) {
    let stays: Vec<f64> = row.iter().zip(gone).filter(|(_, g)| !**g).map(|(x, _)| f64::from(*x)).collect();
    let n = stays.len() as f64;
    let (mean, eps) = match op {
        Op::LayerNorm { eps, .. } => (stays.iter().sum::<f64>() / n, *eps),
        Op::RmsNorm { eps, .. } => (0.0, *eps),
        other => panic!("{other:?}"),
    };
    let variance = stays.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    row.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) / (variance + eps).sqrt()) as f32);
}

/// Channels of each group that the plan's edits take, by what they do to the group's first tensor axis.
fn gone_channels(graph: &Graph, groups: &[ChannelGroup], plan: &Plan) -> Vec<Vec<u32>> {
    let (cut, recipe) = apply(graph, &plan.edits).unwrap();
    // A tensor of index numbers goes through the recipe: what comes out is what stays.
    let of = |m: &ChannelMember| -> Vec<u32> {
        let def = graph.tensor(m.tensor);
        let inner: usize = def.shape[m.axis + 1..].iter().product();
        let numbers: Vec<f32> =
            (0..def.elements() as usize).map(|i| (i / inner % def.shape[m.axis]) as f32).collect();
        let mut all = BTreeMap::new();
        for (id, t) in graph.iter_tensors() {
            let v = if id == m.tensor { numbers.clone() } else { vec![0.0; t.elements() as usize] };
            all.insert(id, Tensor::from_f32(v, &t.shape, &Device::cpu()).unwrap());
        }
        let source = nets::Seeded(pomona_exec::Loaded(all));
        let edited = EditedWeights::new(graph, &source, (&cut, &recipe), &Device::cpu());
        let kept = edited.get(cut.find_tensor(&def.name).unwrap()).unwrap().to_f32().unwrap();
        let kept: std::collections::BTreeSet<usize> = kept.iter().map(|i| *i as usize).collect();
        // A row of queries and one of keys may be one channel.
        let lost = m.channel.iter().enumerate().filter(|(i, _)| !kept.contains(i)).filter_map(|(_, c)| *c);
        lost.collect::<std::collections::BTreeSet<u32>>().into_iter().collect()
    };
    groups.iter().map(|g| of(&g.members[0])).collect()
}

#[test]
fn cut_neurons_equal_masked_neurons() {
    for name in ["timm_vit", "vit_heads", "deit", "timm_deit_distilled"] {
        let net = net(&vision(name), 2);
        let groups = groups_of(&net.graph, ScoredUnit::Channels).unwrap().0;
        let s = scores(&net, FilterCriterion::Snp, ScoredUnit::Channels);
        for list in [
            vec![("qk", 0.5), ("v", 0.25), ("ffn", 0.4)],
            vec![("stream", 0.3)],
            vec![("*", 0.5), ("stream", 0.2)],
        ] {
            let p = ratio(&net.graph, &s, &list);
            let feeds = net.samples.feeds(&net.graph, 0..2, &Device::cpu()).unwrap();
            let pruned = run_cut(&net.graph, &net.weights, &feeds, &p.edits);
            let masked = run_masked(&net, &groups, &p);
            let dense = run(&net.graph, &net.weights, &feeds);
            assert!(gap(&masked, &pruned) < 1.0, "{name} {list:?}: {}", gap(&masked, &pruned));
            assert!(gap(&dense, &pruned) > 10.0, "{name} {list:?} must change something");
        }
    }
}

#[test]
fn each_head_loses_as_many_and_chooses_them_itself() {
    let net = net(&vision("timm_vit"), 2);
    let groups = groups_of(&net.graph, ScoredUnit::Channels).unwrap().0;
    let s = scores(&net, FilterCriterion::Snp, ScoredUnit::Channels);
    let p = ratio(&net.graph, &s, &[("qk", 0.25), ("v", 0.25)]);
    let gone = gone_channels(&net.graph, &groups, &p);
    let mut own = false;
    for (group, gone) in groups.iter().zip(&gone).filter(|(g, _)| g.kind != ChannelKind::Stream) {
        let expected = usize::from(group.kind != ChannelKind::Inner) * 3;
        assert_eq!(gone.len(), expected, "{}", group.name);
        let heads: std::collections::BTreeSet<u32> = gone.iter().map(|c| c / 4).collect();
        assert_eq!(heads.len(), expected);
        own |= gone.iter().map(|c| c % 4).collect::<std::collections::BTreeSet<_>>().len() > 1;
        let values = s.of(&group.name, group.len).unwrap();
        for c in gone {
            let head = c / 4 * 4;
            assert!((head..head + 4).all(|o| values[o as usize] >= values[*c as usize]), "{}", group.name);
        }
    }
    assert!(own, "no head chose another index than the others");
}

/// The whole network with the outputs of heads put to zero.
fn run_without_heads(net: &Net, heads: &[HeadGroup], plan: &Plan) -> Vec<f32> {
    let graph = &net.graph;
    let groups: Vec<ChannelGroup> = heads.iter().map(|h| h.group.clone()).collect();
    let gone = gone_channels(graph, &groups, plan);
    let mut feeds = net.samples.feeds(graph, 0..net.samples.samples(), &Device::cpu()).unwrap();
    for (heads, gone) in heads.iter().zip(&gone) {
        for id in &heads.attentions {
            let y = graph.node(*id).outputs[0];
            let t = evaluate(graph, &net.weights, &feeds, &[y], &Options::default()).unwrap().remove(0);
            let width = *t.shape().last().unwrap();
            let mut v = t.to_f32().unwrap();
            let head = |i: usize| (i % width / (width / heads.group.len)) as u32;
            v.iter_mut().enumerate().filter(|(i, _)| gone.contains(&head(*i))).for_each(|(_, v)| *v = 0.0);
            feeds.insert(y, Tensor::from_f32(v, t.shape(), &Device::cpu()).unwrap());
        }
    }
    run(graph, &net.weights, &feeds)
}

#[test]
fn cut_heads_equal_masked_heads() {
    for (name, config) in
        [("timm", vision("timm_vit")), ("transformers", vision("vit_heads")), ("llama", llama())]
    {
        let net = net(&config, 2);
        let heads = groups_of(&net.graph, ScoredUnit::Heads).unwrap().1;
        assert_eq!(heads.len(), 2, "{name}");
        let s = scores(&net, FilterCriterion::Snp, ScoredUnit::Heads);
        assert!(s.groups.iter().all(|g| g.scores.len() == 3), "{name}");
        let p = ratio(
            &net.graph,
            &s,
            &[(heads[0].group.name.as_str(), 0.34), (heads[1].group.name.as_str(), 0.67)],
        );
        let (cut, _) = apply(&net.graph, &p.edits).unwrap();
        let left: Vec<(usize, usize)> = cut
            .nodes
            .iter()
            .filter_map(|n| match &n.op {
                Op::Attention(a) => Some((a.heads, a.kv_heads)),
                _ => None,
            })
            .collect();
        let share = if name == "llama" { 2 } else { 1 };
        assert_eq!(left, [(2 * share, 2), (share, 1)], "{name}");
        let feeds = net.samples.feeds(&net.graph, 0..2, &Device::cpu()).unwrap();
        let pruned = run_cut(&net.graph, &net.weights, &feeds, &p.edits);
        let masked = run_without_heads(&net, &heads, &p);
        assert!(gap(&masked, &pruned) < 1.0, "{name}: {}", gap(&masked, &pruned));
        assert!(gap(&run(&net.graph, &net.weights, &feeds), &pruned) > 10.0, "{name}");
    }
}

/// Joint projections by head (GPT-NeoX, Falcon) and by part (Phi-3, GPT-2), norms within heads (Qwen3), caps and windows (Gemma 2),
/// learned places (OPT); heads of keys with one and with several of queries.
#[test]
fn heads_of_decoders_go_whole() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-models/tests/goldens");
    let families = [
        "falcon_new",
        "falcon_heads",
        "gemma2",
        "gpt2",
        "gpt_neox",
        "opt",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_moe",
    ];
    for name in families {
        let config = std::fs::read_to_string(goldens.join(name).join("config.json")).unwrap();
        let net = net(&serde_json::from_str(&config).unwrap(), 2);
        let heads = groups_of(&net.graph, ScoredUnit::Heads).unwrap().1;
        let s = scores(&net, FilterCriterion::Snp, ScoredUnit::Heads);
        let p = ratio(&net.graph, &s, &[("heads", 0.5)]);
        assert!(heads.len() > 1 && p.removed.len() == heads.len(), "{name}: {:?}", p.removed);
        let feeds = net.samples.feeds(&net.graph, 0..2, &Device::cpu()).unwrap();
        let pruned = run_cut(&net.graph, &net.weights, &feeds, &p.edits);
        let masked = run_without_heads(&net, &heads, &p);
        assert!(gap(&masked, &pruned) < 1.0, "{name}: {}", gap(&masked, &pruned));
        assert!(gap(&run(&net.graph, &net.weights, &feeds), &pruned) > 10.0, "{name}");
    }
    for name in ["falcon", "gemma", "smollm2"] {
        let config = std::fs::read_to_string(goldens.join(name).join("config.json")).unwrap();
        let net = net(&serde_json::from_str(&config).unwrap(), 1);
        let message = groups_of(&net.graph, ScoredUnit::Heads).unwrap_err().to_string();
        assert!(message.contains("one head of keys"), "{name}: {message}");
    }
}

#[test]
fn rotary_queries_stay_and_the_rest_is_cut_without_data() {
    let net = net(&llama(), 1);
    let on = Scoring { objective: None, ..scoring(&net) };
    let s =
        score(&on, &settings(FilterCriterion::Snp, ScoredUnit::Channels), None, &mut |_, _| Ok(())).unwrap();
    let groups = groups_of(&net.graph, ScoredUnit::Channels).unwrap().0;
    assert!(groups.iter().all(|g| g.kind != ChannelKind::QueryKey));
    let goal: Goal = "params=70%".parse().unwrap();
    let p = planned(&net.graph, &s, Choice::Target(&goal, Order::Uniform), LadderOptions::default());
    let feeds = net.samples.feeds(&net.graph, 0..1, &Device::cpu()).unwrap();
    let pruned = run_cut(&net.graph, &net.weights, &feeds, &p.edits);
    assert!(pruned.iter().all(|v| v.is_finite()));
    let heads = score(&on, &settings(FilterCriterion::Snp, ScoredUnit::Heads), None, &mut |_, _| Ok(()));
    assert!(heads.unwrap_err().to_string().contains("needs calibration data"));
}

#[test]
fn controls_share_the_plan_and_reverse_is_the_opposite() {
    let net = net(&vision("timm_vit"), 2);
    let forward = scores(&net, FilterCriterion::Snp, ScoredUnit::Channels);
    let reverse = scores(&net, FilterCriterion::SnpReverse, ScoredUnit::Channels);
    for (a, b) in forward.groups.iter().zip(&reverse.groups) {
        assert!(a.scores.iter().zip(&b.scores).all(|(a, b)| *a == -b), "{}", a.name);
    }
    let sizes = |criterion| {
        let s = scores(&net, criterion, ScoredUnit::Channels);
        let p = ratio(&net.graph, &s, &[("*", 0.5)]);
        (p.after.parameters, p.after.macs)
    };
    let own = sizes(FilterCriterion::Snp);
    for other in [
        FilterCriterion::SnpReverse,
        FilterCriterion::L1,
        FilterCriterion::L2,
        FilterCriterion::GeometricMedian,
        FilterCriterion::Random,
    ] {
        assert_eq!(sizes(other), own, "{}", other.name());
    }
    // Each half scores its own groups and leaves the others whole.
    let halves = [FilterCriterion::Attention, FilterCriterion::Redundancy];
    let [attention, redundancy] = halves.map(|c| scores(&net, c, ScoredUnit::Channels));
    for ((a, r), both) in attention.groups.iter().zip(&redundancy.groups).zip(&forward.groups) {
        assert_ne!(a.scores.is_empty(), r.scores.is_empty(), "{}", a.name);
        assert_eq!(if a.scores.is_empty() { &r.scores } else { &a.scores }, &both.scores);
    }
}

#[test]
fn shares_round_to_the_nearest_and_to_multiples() {
    let net = net(&vision("timm_vit"), 1);
    let s = scores(&net, FilterCriterion::Snp, ScoredUnit::Channels);
    let kept = |p: &Plan| -> Vec<usize> {
        let count = |e: &Edit| match e {
            Edit::Keep { indices, .. } => indices.len(),
            other => panic!("{other:?}"),
        };
        p.edits.iter().map(count).collect()
    };
    // 0.36 x 30 = 10.8: 11 go.
    assert_eq!(kept(&ratio(&net.graph, &s, &[("ffn", 0.36)])), [19, 19]);
    assert_eq!(kept(&ratio(&net.graph, &s, &[("blocks.1.mlp.fc1", 0.35)])), [19]);
    let limits = LadderOptions { round: 8, ..LadderOptions::default() };
    let list = [("ffn".to_owned(), 0.36)];
    assert_eq!(kept(&planned(&net.graph, &s, Choice::Ratios(&list, None), limits)), [16, 16]);
    let list = [("blocks.0.attn.qk".to_owned(), 0.5)];
    let p = planned(&net.graph, &s, Choice::Ratios(&list, None), LadderOptions::default());
    // Of the joint projection's 36 rows, two of four in each head of queries and of keys go.
    assert_eq!(kept(&p), [24]);
    assert_eq!(p.removed, ["blocks.0.attn.qk 6 of 12"]);
}

#[test]
fn a_cut_network_is_scored_and_cut_again() {
    let net = net(&vision("vit"), 2);
    let s = scores(&net, FilterCriterion::Snp, ScoredUnit::Channels);
    let first = ratio(&net.graph, &s, &[("*", 0.25)]);
    let (graph, recipe) = apply(&net.graph, &first.edits).unwrap();
    let cut = EditedWeights::new(&net.graph, &net.weights, (&graph, &recipe), &Device::cpu());
    let all = graph.iter_tensors().map(|(id, _)| (id, cut.get(id).unwrap())).collect();
    let samples = Samples { port: net.samples.port.clone(), all: net.samples.all.clone() };
    let smaller = Net { weights: nets::Seeded(pomona_exec::Loaded(all)), samples, graph };
    let s = scores(&smaller, FilterCriterion::Snp, ScoredUnit::Heads);
    let p = ratio(&smaller.graph, &s, &[("heads", 0.34)]);
    let heads = groups_of(&smaller.graph, ScoredUnit::Heads).unwrap().1;
    let feeds = smaller.samples.feeds(&smaller.graph, 0..2, &Device::cpu()).unwrap();
    let pruned = run_cut(&smaller.graph, &smaller.weights, &feeds, &p.edits);
    let masked = run_without_heads(&smaller, &heads, &p);
    assert!(gap(&masked, &pruned) < 1.0, "{}", gap(&masked, &pruned));
    assert!(p.after.parameters < first.after.parameters);
}

#[test]
fn an_interrupted_run_ends_with_the_same_file() {
    let net = net(&vision("timm_vit"), 4);
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole.json"), dir.path().join("parts.json"));
    let on = Scoring { at_once: 1, ..scoring(&net) };
    // One picture at a time, so that a run can stop between two.
    let by = settings(FilterCriterion::Snp, ScoredUnit::Channels);
    let net1 = self::net(&vision("timm_vit"), 1);
    let on = Scoring { graph: &net1.graph, weights: &net1.weights, ..on };
    score(&on, &by, Some(&whole), &mut |_, _| Ok(())).unwrap();
    for stop_at in [2, 4, 7] {
        let mut left = stop_at;
        let stopped = score(&on, &by, Some(&parts), &mut |_, _| {
            left -= 1;
            if left == 0 { Err(PruneError::Unfit("stop".into())) } else { Ok(()) }
        });
        assert!(stopped.is_err());
    }
    score(&on, &by, Some(&parts), &mut |_, _| Ok(())).unwrap();
    assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&parts).unwrap());
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let mut net = net(&vision("timm_vit"), 1);
    let id = net.graph.find_tensor("blocks.1.attn.qkv.weight").unwrap();
    let mut bad = net.weights.0.0[&id].to_f32().unwrap();
    bad[3] = f32::NAN;
    net.weights.0.0.insert(id, Tensor::from_f32(bad, &[36, 12], &Device::cpu()).unwrap());
    let by = settings(FilterCriterion::Snp, ScoredUnit::Channels);
    let message = score(&scoring(&net), &by, None, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(message.contains("blocks.1.attn"), "{message}");
}
