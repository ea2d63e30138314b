//! Scoring that is stopped at any step and started again ends with the bytes of an unbroken run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use pomona_exec::Device;
use pomona_models::{InitOptions, Model, init, open};
use pomona_prune::methods::depth::{Scoring, score};
use pomona_prune::{Criterion, PruneError, Scores, Settings, UnitKind};
use pomona_store::Encoding;
use pomona_task::{ModelWeights, NextToken, Residence, TaskError, Windows};

const SAMPLES: usize = 5;
const TOKENS: usize = 12;

fn model(dir: &Path) -> Model {
    let config = dir.join("given.json");
    let text = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96, "initializer_range": 0.3,
        "max_position_embeddings": 64}"#;
    std::fs::write(&config, text).unwrap();
    let options = InitOptions { seed: 3, dtype: Encoding::F32, ..InitOptions::default() };
    open(init(&config, &options, dir.join("model"), &mut |_, _| {}).unwrap()).unwrap()
}

struct Case {
    criterion: Criterion,
    unit: UnitKind,
    iterative: Option<usize>,
    screen: Option<usize>,
    residence: Residence,
}

impl Case {
    /// Scores into a file; an error after so many reports of progress.
    fn run(&self, model: &Model, out: &Path, stop_after: usize) -> Result<(Scores, usize), PruneError> {
        let device = Device::cpu();
        let weights = ModelWeights::new(model.only().unwrap(), &device, self.residence);
        let token = |s: usize, t: usize| ((s * 37 + t * t * 5 + t) % 96) as u32;
        let ids = (0..SAMPLES).map(|s| (0..TOKENS).map(|t| token(s, t)).collect()).collect();
        let objective = NextToken::new(Windows::new(ids, "made".to_owned())).unwrap();
        let fingerprint = model.fingerprint().unwrap();
        let on = Scoring {
            graph: model.graph().unwrap(),
            weights: &weights,
            objective: self.criterion.needs_data().then_some(&objective as &dyn pomona_task::Objective),
            device: &device,
            fingerprint: &fingerprint,
            tool: "test",
            group: 2,
            save_every: Duration::ZERO,
        };
        let settings = Settings {
            criterion: self.criterion,
            unit: self.unit,
            protect: [1, 1],
            iterative: self.iterative,
            screen: self.screen,
            samples: SAMPLES,
            tokens: TOKENS,
            seed: 1,
        };
        let mut reports = 0;
        let found = score(&on, &settings, Some(out), &mut |done, total| {
            assert!(done <= total, "{done} of {total}");
            reports += 1;
            if reports > stop_after { Err(TaskError::Interrupted.into()) } else { Ok(()) }
        });
        found.map(|scores| (scores, reports))
    }

    fn check(&self) {
        let dir = tempfile::tempdir().unwrap();
        let model = model(dir.path());
        let whole = dir.path().join("whole.json");
        let reports = self.run(&model, &whole, usize::MAX).unwrap().1;
        let wanted = std::fs::read_to_string(&whole).unwrap();
        let out = dir.path().join("scores.json");
        let fresh = || {
            std::fs::remove_file(&out).unwrap();
            assert!(!dir.path().join(".scores.json.work").exists(), "a finished run leaves nothing behind");
        };
        // A stop at each step, and a run to the end.
        for stop in 0..reports {
            let stopped = self.run(&model, &out, stop).unwrap_err();
            assert_eq!(stopped.to_string(), "interrupted", "{stop} of {reports}");
            assert!(!Scores::read(&out).unwrap().complete);
            self.run(&model, &out, usize::MAX).unwrap();
            assert_eq!(std::fs::read_to_string(&out).unwrap(), wanted, "stopped after {stop} of {reports}");
            fresh();
        }
        // Many stops on the way: each run adds to what the earlier ones did, or the chain has no end.
        let mut runs = 1;
        // Enough to pass what is known and one piece of new work.
        let piece = if self.criterion == Criterion::BlockInfluence { 10 } else { 2 + SAMPLES };
        while self.run(&model, &out, piece + 2 * self.iterative.unwrap_or(0)).is_err() {
            runs += 1;
            assert!(runs <= 10 * reports, "{reports} reports in an unbroken run, and no end in {runs} runs");
        }
        assert_eq!(std::fs::read_to_string(&out).unwrap(), wanted, "{runs} runs");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4, "config, model, two score files");
    }
}

fn case(criterion: Criterion) -> Case {
    Case { criterion, unit: UnitKind::Block, iterative: None, screen: None, residence: Residence::Memory }
}

#[test]
fn taylor_goes_on_after_any_step() {
    case(Criterion::Taylor).check();
}

#[test]
fn taylor_of_sublayers_streamed_goes_on_after_any_step() {
    Case { unit: UnitKind::Sublayer, residence: Residence::Streamed, ..case(Criterion::Taylor) }.check();
}

#[test]
fn iterative_taylor_goes_on_after_any_step() {
    Case { iterative: Some(3), ..case(Criterion::Taylor) }.check();
}

#[test]
fn perplexity_goes_on_inside_a_sweep() {
    case(Criterion::Perplexity).check();
    Case { iterative: Some(2), ..case(Criterion::Perplexity) }.check();
    Case { screen: Some(2), ..case(Criterion::Perplexity) }.check();
}

#[test]
fn block_influence_and_magnitude_go_on() {
    case(Criterion::BlockInfluence).check();
    Case { iterative: Some(2), ..case(Criterion::BlockInfluence) }.check();
    case(Criterion::Magnitude).check();
    Case { iterative: Some(2), ..case(Criterion::Magnitude) }.check();
}

#[test]
fn state_of_other_settings_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let (out, whole) = (dir.path().join("scores.json"), dir.path().join("whole.json"));
    let other = Case { unit: UnitKind::Sublayer, ..case(Criterion::Taylor) };
    other.run(&model, &out, 9).unwrap_err();
    let refused = case(Criterion::Taylor).run(&model, &out, 9).unwrap_err().to_string();
    assert!(refused.contains("made with other settings (unit \"sublayer\", not \"block\")"), "{refused}");
    // The score file is gone, the hidden state is not.
    std::fs::remove_file(&out).unwrap();
    case(Criterion::Taylor).run(&model, &out, usize::MAX).unwrap();
    case(Criterion::Taylor).run(&model, &whole, usize::MAX).unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&whole).unwrap());
}
