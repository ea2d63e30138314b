//! Log-likelihoods by shared contexts, batches and caches equal those of whole sequences run alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use pomona_exec::{Device, Options, evaluate};
use pomona_models::{Model, open};
use pomona_task::{
    Language, ModelWeights, NextToken, Objective, PASS_TOKENS, Request, Residence, SampleLoss, Stretch,
    Windows, cache_bytes, empty_states, log_likelihoods, stretch_losses, token_feeds,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Llama; learned positions; windows, softcaps and a scaled embedding; a projection behind the stream; experts.
const MODELS: [&str; 5] = ["llama3", "gpt2", "gemma2", "opt_post", "mixtral"];

fn golden(name: &str) -> Model {
    let goldens: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-models/tests/goldens");
    open(goldens.join(name)).unwrap()
}

fn vocabulary(model: &Model) -> usize {
    let graph = model.graph().unwrap();
    graph.value(graph.output("logits").unwrap()).shape.last().unwrap().size("vocabulary").unwrap()
}

/// Minus the log of the softmax, in f64, of every token but the first, from one run over the whole sequence.
fn alone(model: &Model, ids: &[u32]) -> Vec<f64> {
    let (graph, device) = (model.graph().unwrap(), Device::cpu());
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let mut feeds = token_feeds(graph, &[ids], 0, &device).unwrap();
    feeds.extend(empty_states(graph, 1, &device).unwrap());
    let logits = graph.output("logits").unwrap();
    let out = evaluate(graph, &weights, &feeds, &[logits], &Options::default()).unwrap().remove(0);
    let rows = out.to_f32().unwrap();
    rows.chunks(vocabulary(model))
        .zip(&ids[1..])
        .map(|(row, target)| {
            let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
            sum.ln() - f64::from(row[*target as usize])
        })
        .collect()
}

fn assert_close(found: f64, wanted: f64, what: &str) {
    assert!((found - wanted).abs() <= 1e-4 * wanted.abs().max(1.0), "{what}: {found}, alone {wanted}");
}

#[test]
fn continuations_score_as_whole_sequences_do() {
    for name in MODELS {
        let model = golden(name);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let vocab = vocabulary(&model) as u32;
        let mut tokens = |n: usize| -> Vec<u32> { (0..n).map(|_| rng.random_range(0..vocab)).collect() };
        let mut requests = Vec::new();
        for (question, length) in [9, 1, 9, 14, 9, 5].into_iter().enumerate() {
            let context = tokens(length);
            // Options of one token and of several, one of them twice; the third question has the first's length.
            for longer in [1, 4, 2 + question, 7] {
                requests.push(Request { context: context.clone(), continuation: tokens(longer) });
            }
            requests.push(requests[requests.len() - 3].clone());
        }
        for residence in [Residence::Memory, Residence::Streamed] {
            let device = Device::cpu();
            let weights = ModelWeights::new(model.only().unwrap(), &device, residence);
            let language = Language { graph: model.graph().unwrap(), weights: &weights, device: &device };
            let mut told = 0;
            let scores = log_likelihoods(language, &requests, &mut |n| {
                told += n;
                Ok(())
            })
            .unwrap();
            assert_eq!(told, requests.len());
            for (request, score) in requests.iter().zip(scores) {
                let whole: Vec<u32> = request.context.iter().chain(&request.continuation).copied().collect();
                let wanted: f64 = -alone(&model, &whole)[request.context.len() - 1..].iter().sum::<f64>();
                assert_close(score, wanted, &format!("{name} {residence:?} {request:?}"));
            }
        }
    }
}

#[test]
fn stretches_lose_what_their_predicted_tokens_lose_alone() {
    for name in MODELS {
        let model = golden(name);
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        let vocab = vocabulary(&model) as u32;
        let mut stretch = |n: usize, from: usize| Stretch {
            ids: (0..n).map(|_| rng.random_range(0..vocab)).collect(),
            from,
        };
        let stretches = [stretch(12, 1), stretch(12, 7), stretch(12, 11), stretch(30, 1), stretch(2, 1)];
        let device = Device::cpu();
        let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
        let language = Language { graph: model.graph().unwrap(), weights: &weights, device: &device };
        let losses = stretch_losses(language, &stretches, &mut |_| Ok(())).unwrap();
        for (s, loss) in stretches.iter().zip(losses) {
            assert_eq!(loss.count, s.ids.len() - s.from);
            assert_close(loss.sum, alone(&model, &s.ids)[s.from - 1..].iter().sum(), name);
        }
    }
}

#[test]
fn a_stretch_longer_than_a_pass_runs_in_pieces() {
    let model = golden("llama3");
    let vocab = vocabulary(&model) as u32;
    let ids: Vec<u32> = (0..2 * PASS_TOKENS as u32 + 77).map(|i| i * i % 97 % vocab).collect();
    let device = Device::cpu();
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let language = Language { graph: model.graph().unwrap(), weights: &weights, device: &device };
    let stretch = Stretch { ids: ids.clone(), from: 1030 };
    let mut passes = 0;
    let losses = stretch_losses(language, &[stretch], &mut |_| {
        passes += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((passes, losses[0].count), (3, ids.len() - 1030));
    assert_close(losses[0].sum, alone(&model, &ids)[1029..].iter().sum(), "in three pieces");
}

#[test]
fn windows_lose_what_the_objective_of_scoring_says() {
    let model = golden("llama3");
    let vocab = vocabulary(&model) as u32;
    let ids: Vec<Vec<u32>> = (0..5).map(|k| (0..40).map(|i| (i * 7 + k * k) % vocab).collect()).collect();
    let device = Device::cpu();
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let graph = model.graph().unwrap();
    let language = Language { graph, weights: &weights, device: &device };
    let stretches: Vec<Stretch> = ids.iter().map(|w| Stretch { ids: w.clone(), from: 1 }).collect();
    let found = stretch_losses(language, &stretches, &mut |_| Ok(())).unwrap();
    let objective = NextToken::new(Windows::new(ids, String::new())).unwrap();
    assert_eq!(objective.samples(), found.len());
    let one = |sample: usize| {
        let feeds = objective.feeds(graph, sample..sample + 1, &device).unwrap();
        let output = graph.output(objective.output()).unwrap();
        let out = evaluate(graph, &weights, &feeds, &[output], &Options::default()).unwrap();
        objective.losses(sample..sample + 1, &out[0]).unwrap()[0]
    };
    let wanted: Vec<SampleLoss> = (0..found.len()).map(one).collect();
    for (a, b) in found.iter().zip(&wanted) {
        assert_eq!(a.count, b.count);
        assert_close(a.sum, b.sum, "window");
    }
    assert!((SampleLoss::mean(&found) - SampleLoss::mean(&wanted)).abs() < 1e-6);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let model = golden("llama3");
    let device = Device::cpu();
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let graph = model.graph().unwrap();
    let language = Language { graph, weights: &weights, device: &device };
    let of = |context: Vec<u32>, continuation: Vec<u32>| {
        log_likelihoods(language, &[Request { context, continuation }], &mut |_| Ok(()))
            .unwrap_err()
            .to_string()
    };
    assert!(of(vec![], vec![1]).contains("no tokens"));
    let outside = vocabulary(&model) as u32;
    assert!(of(vec![1], vec![outside]).contains("outside the model's vocabulary"));
    let blocks = model.config["num_hidden_layers"].as_u64().unwrap();
    let (heads, width) = (&model.config["num_key_value_heads"], &model.config["head_dim"]);
    if let (Some(heads), Some(width)) = (heads.as_u64(), width.as_u64()) {
        assert_eq!(cache_bytes(graph, 10), 10 * 2 * 4 * blocks * heads * width);
    }
}
