//! Steps of a network with BatchNorm against PyTorch's, made by `goldens/make_batch_norm_goldens.py`: losses, weights, running
//! statistics, and what the trained network gives by them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{InOrder, SEED, goldens, read};
use pomona_exec::{Feeds, Loaded, Options, evaluate};
use pomona_graph::{Graph, Role};
use pomona_store::Checkpoint;
use pomona_task::TensorData;
use pomona_train::data::Arrays;
use pomona_train::{
    Course, Decay, Limit, Losses, Network, Order, Parameters, Rule, Run, Running, Schedule, Source, Warmup,
    train,
};
use serde_json::{Value, json};

fn near(what: &str, got: &[f32], want: &[f32]) {
    let scale = want.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= 1e-4 * scale, "{what}, element {i}: {g}, PyTorch {w}");
    }
}

struct Case {
    golden: Value,
    file: Checkpoint,
    graph: Graph,
    source: InOrder<Arrays>,
    parameters: Parameters,
    weights: Loaded,
    course: Course,
    losses: Losses,
}

fn case(dir: &Path) -> Case {
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(goldens().join("batch_norm.json")).unwrap()).unwrap();
    let file = Checkpoint::open(goldens().join("batch_norm.safetensors")).unwrap();
    std::fs::write(dir.join("config.json"), golden["config"].to_string()).unwrap();
    let graph = pomona_models::open(dir.join("config.json")).unwrap().graph().unwrap().clone();
    let data = TensorData::read(&goldens().join("batch_norm_data.safetensors"), &graph, usize::MAX).unwrap();
    let data = Arrays::new(data, &graph);
    let mut order = Order::new(SEED, data.samples());
    let mut place = vec![0; data.samples()];
    (0..data.samples()).for_each(|n| place[order.pick(n as u64)] = n);
    let whole = |key: &str| golden[key].as_u64().unwrap() as usize;
    let rule = Rule::Sgd { momentum: 0.9 };
    let course = Course {
        limit: Limit { steps: Some(golden["losses"].as_array().unwrap().len() as u64), seconds: None },
        batch: whole("batch"),
        accumulate: whole("accumulate"),
        seed: SEED,
        rule,
        schedule: Schedule {
            rate: golden["rate"].as_f64().unwrap(),
            decay: Decay::Constant,
            warmup: Warmup::Steps(0),
            floor: 0.0,
        },
        weight_decay: 0.0,
        clip: None,
        average: None,
        recompute: false,
    };
    let start = |t: &pomona_graph::TensorDef| read(&file, &format!("start/{}", t.name), &t.shape);
    let weights = Loaded(graph.iter_tensors().map(|(id, t)| (id, start(t))).collect());
    let mut parameters = Parameters::default();
    for (id, t) in graph.iter_tensors().filter(|(_, t)| t.role == Role::Parameter) {
        let at = parameters.add(t.name.clone(), weights.0[&id].clone(), &rule, false).unwrap();
        parameters.of_graph.insert(id, at);
    }
    let terms = ["cross-entropy=1".parse().unwrap()];
    let losses = Losses::resolve(&terms, "logits", &graph, None, (&mut parameters, &rule, SEED)).unwrap();
    Case { golden, file, graph, source: InOrder { data, place }, parameters, weights, course, losses }
}

fn run(case: &mut Case, folder: &Path) -> Vec<f64> {
    let run = Run {
        student: Network { graph: &case.graph, weights: &case.weights },
        teacher: None,
        shared: &[],
        losses: &case.losses,
        source: &case.source,
        valid: None,
        course: &case.course,
        folder,
        identity: json!({}),
        save_every: Duration::from_secs(600),
        save_steps: None,
        resume: false,
    };
    let mut seen = Vec::new();
    train(&run, &mut case.parameters, &AtomicBool::new(false), &mut |r| seen.push(r.loss)).unwrap();
    seen
}

#[test]
fn statistics_follow_as_pytorchs_do() {
    for recompute in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut case = case(dir.path());
        case.course.recompute = recompute;
        case.parameters.running = Running::of(&case.graph, &case.weights, false).unwrap();
        let seen = run(&mut case, &dir.path().join("run"));
        for (step, (got, want)) in seen.iter().zip(case.golden["losses"].as_array().unwrap()).enumerate() {
            let want = want.as_f64().unwrap();
            assert!((got - want).abs() < 1e-4 * want.max(1.0), "step {step}: {got}, PyTorch {want}");
        }
        // The last checkpoint has everything that moved, and what was learnt is the network that PyTorch has.
        let kept = pomona_train::checkpoint::list(&dir.path().join("run")).unwrap().pop().unwrap().1;
        let kept = Checkpoint::open(kept.join("model.safetensors")).unwrap();
        let mut end = Loaded::default();
        for (id, t) in case.graph.iter_tensors() {
            let group = if t.role == Role::Parameter { "weight" } else { "running" };
            let value = read(&kept, &format!("{group}/{}", t.name), &t.shape);
            let want = read(&case.file, &format!("end/{}", t.name), &t.shape);
            near(&t.name, &value.to_f32().unwrap(), &want.to_f32().unwrap());
            if t.role == Role::Buffer {
                let before = case.weights.0[&id].to_f32().unwrap();
                assert!(
                    before.iter().zip(value.to_f32().unwrap()).any(|(a, b)| (a - b).abs() > 1e-2),
                    "{}",
                    t.name
                );
            }
            end.0.insert(id, value);
        }
        let pictures = Checkpoint::open(goldens().join("batch_norm_data.safetensors")).unwrap();
        let pictures = read(&pictures, "pixel_values", &[case.source.samples(), 3, 9, 9]);
        let feeds = Feeds::from([(case.graph.inputs[0].value, pictures)]);
        let output = case.graph.output("logits").unwrap();
        let given = evaluate(&case.graph, &end, &feeds, &[output], &Options::default()).unwrap();
        let want = case.file.decode(case.file.info("outputs").unwrap()).unwrap();
        near("outputs", &given[0].to_f32().unwrap(), &want);
    }
}

#[test]
fn statistics_that_stay_are_what_the_network_is_trained_by() {
    let dir = tempfile::tempdir().unwrap();
    let mut case = case(dir.path());
    let first = run(&mut case, &dir.path().join("run"))[0];
    // The loss before the first step, by the running statistics.
    let batch =
        case.source.batch(&(0..6).map(|n| Order::new(SEED, 24).pick(n)).collect::<Vec<_>>(), 0).unwrap();
    let feeds = Feeds::from([(case.graph.inputs[0].value, batch.inputs[0].1.clone())]);
    let output = case.graph.output("logits").unwrap();
    let logits = evaluate(&case.graph, &case.weights, &feeds, &[output], &Options::default()).unwrap();
    let pomona_train::Target::Tokens(labels) = batch.target else { unreachable!() };
    let nll = pomona_task::nll_rows(&logits[0].to_f32().unwrap(), 5, &labels);
    let want = nll.iter().sum::<f64>() / 6.0;
    assert!((first - want).abs() < 1e-4 * want, "{first} {want}");
}

#[test]
fn a_variance_of_one_number_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut case = case(dir.path());
    case.parameters.running = Running::of(&case.graph, &case.weights, false).unwrap();
    let one = std::collections::BTreeMap::from([(
        "bn1".to_owned(),
        pomona_exec::ChannelMoments { mean: vec![0.0; 4], variance: vec![0.0; 4], count: 1 },
    )]);
    let message = case.parameters.running.follow(&one).unwrap_err().to_string();
    assert!(
        message.contains("`bn1` sees 1 number a channel in a batch") && message.contains("--batch"),
        "{message}"
    );
}
