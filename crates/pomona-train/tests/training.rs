//! Five steps against PyTorch's, made by `goldens/make_training_goldens.py`: losses and gradient norms of every step, and
//! weights after the last.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{InOrder, SEED, goldens, read};
use pomona_exec::Loaded;
use pomona_graph::Graph;
use pomona_store::Checkpoint;
use pomona_task::Windows;
use pomona_train::data::Packed;
use pomona_train::{
    Course, Decay, Ended, Limit, Losses, Network, Order, Parameters, Rule, Run, Schedule, Term, Warmup, train,
};
use serde_json::{Value, json};

fn loaded(graph: &Graph, file: &Checkpoint, group: &str) -> Loaded {
    Loaded(
        graph
            .iter_tensors()
            .map(|(id, t)| (id, read(file, &format!("{group}/{}", t.name), &t.shape)))
            .collect(),
    )
}

fn near(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{what}: {got}, PyTorch {want}");
}

fn terms(case: &Value) -> Vec<Term> {
    let weights = case["weights"].as_object().unwrap();
    let more = |name: &str| match name {
        "kl" => format!(",temperature={}", case["temperature"]),
        "features" => ",taps=model.layers.0+model.layers.1".to_owned(),
        _ => String::new(),
    };
    weights.iter().map(|(name, w)| format!("{name}={w}{}", more(name)).parse().unwrap()).collect()
}

fn check(name: &str) {
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(goldens().join("training.json")).unwrap()).unwrap();
    let file = Checkpoint::open(goldens().join("training.safetensors")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), golden["config"].to_string()).unwrap();
    let model = pomona_models::open(dir.path().join("config.json")).unwrap();
    let graph = model.graph().unwrap();
    let case = &golden["cases"][name];
    let number = |key: &str| golden[key].as_f64().unwrap();
    let whole = |key: &str| golden[key].as_u64().unwrap() as usize;

    let rows: Vec<u32> = file.decode(file.info("windows").unwrap()).map_or_else(
        |_| {
            let bytes = file.bytes(file.info("windows").unwrap()).unwrap();
            bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
        },
        |v| v.into_iter().map(|x| x as u32).collect(),
    );
    let windows: Vec<Vec<u32>> = rows.chunks(whole("length") + 1).map(<[u32]>::to_vec).collect();
    let mut order = Order::new(SEED, windows.len());
    let mut place = vec![0; windows.len()];
    (0..windows.len()).for_each(|n| place[order.pick(n as u64)] = n);
    let source = InOrder { data: Packed::windows(&Windows::new(windows, "golden".into())), place };

    let rule = match case["optimizer"].as_str().unwrap() {
        "adamw" => Rule::AdamW { betas: [0.9, 0.95], eps: 1e-8 },
        _ => Rule::Sgd { momentum: 0.9 },
    };
    let decay = match case["schedule"].as_str().unwrap() {
        "cosine" => Decay::Cosine,
        "linear" => Decay::Linear,
        _ => Decay::Constant,
    };
    let steps = case["rows"].as_array().unwrap();
    let course = Course {
        limit: Limit { steps: Some(steps.len() as u64), seconds: None },
        batch: whole("batch"),
        accumulate: whole("accumulate"),
        seed: SEED,
        rule,
        schedule: Schedule {
            rate: number("rate"),
            decay,
            warmup: Warmup::Steps(whole("warmup") as u64),
            floor: number("floor"),
        },
        weight_decay: number("decay"),
        clip: Some(number("clip")),
        average: None,
        recompute: false,
    };
    let start = loaded(graph, &file, "start");
    let mut parameters = Parameters::default();
    for (id, t) in graph.iter_tensors() {
        let at = parameters.add(t.name.clone(), start.0[&id].clone(), &rule, false).unwrap();
        parameters.of_graph.insert(id, at);
    }
    let teacher = loaded(graph, &file, "teacher");
    let taught = case["teacher"].as_bool().unwrap();
    let losses = Losses::resolve(
        &terms(case),
        "logits",
        graph,
        taught.then_some(graph),
        (&mut parameters, &rule, SEED),
    )
    .unwrap();
    let frozen = Loaded::default();
    let run = Run {
        student: Network { graph, weights: &frozen },
        teacher: taught.then_some(Network { graph, weights: &teacher }),
        shared: &[],
        losses: &losses,
        source: &source,
        valid: None,
        course: &course,
        folder: &dir.path().join("run"),
        identity: json!({}),
        save_every: Duration::from_secs(600),
        save_steps: None,
        resume: false,
    };
    let mut seen = 0;
    let done = train(&run, &mut parameters, &AtomicBool::new(false), &mut |report| {
        let want = &steps[seen];
        for (term, loss) in want["losses"].as_object().unwrap() {
            near(
                &format!("{name}, step {}, {term}", report.step),
                report.losses[term],
                loss.as_f64().unwrap(),
            );
        }
        near(&format!("{name}, step {}, norm", report.step), report.norm, want["norm"].as_f64().unwrap());
        near("rate", report.rate, want["rate"].as_f64().unwrap());
        seen += 1;
    })
    .unwrap();
    assert_eq!((done.ended, done.progress.step as usize, seen), (Ended::Done, steps.len(), steps.len()));
    let mut moved = 0.0_f64;
    for p in &parameters.list {
        let want = file.decode(file.info(&format!("{name}/{}", p.name)).unwrap()).unwrap();
        let before = file.decode(file.info(&format!("start/{}", p.name)).unwrap()).unwrap();
        let got = p.value.to_f32().unwrap();
        let scale = want.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= 1e-4 * scale, "{name}: {} element {i}: {g}, PyTorch {w}", p.name);
            moved = moved.max(f64::from((g - before[i]).abs()));
        }
    }
    assert!(moved > 2e-3, "{name}: the weights moved by {moved} at most");
}

#[test]
fn adamw_with_a_cosine_is_pytorchs() {
    check("adamw-cosine");
}

#[test]
fn sgd_with_a_line_is_pytorchs() {
    check("sgd-linear");
}

#[test]
fn four_losses_at_once_are_pytorchs() {
    check("distilled");
}
