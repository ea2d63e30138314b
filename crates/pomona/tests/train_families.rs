//! Every family of decoders through the trainer: a step of no size leaves the model as it is, whole and with adapters, in
//! directories and GGUF, whatever the names, row orders and offsets of its files; steps of some size lower the loss; a model
//! that follows itself has nothing to learn.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::Folder;
use serde_json::{Value, json};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pomona-models/tests/goldens");

fn perplexity(folder: &Folder, model: &str) -> f64 {
    let done = folder.document(&["-q", "eval", model, "--task", "perplexity", "--data", "tokens.json"]);
    done["perplexity"].as_f64().unwrap()
}

fn finetune(folder: &Folder, words: &[&str]) -> Value {
    let all = [
        "-q",
        "--data",
        "tokens.json",
        "--batch",
        "4",
        "--warmup",
        "0",
        "--dtype",
        "f32",
        "-o",
        "out",
        "--force",
    ];
    let done = folder.document(&[&words[..2], &all, &words[2..]].concat());
    std::fs::remove_dir_all(folder.path("out.train")).unwrap();
    done
}

#[test]
fn every_family_trains_and_comes_out_as_it_went_in() {
    let folder = Folder::bare();
    // Twelve windows of thirteen tokens that every vocabulary has.
    let windows: Vec<Vec<u32>> =
        (0..12).map(|i| (0..13).map(|k| (i * 13 + k) * 7919 % 19).collect()).collect();
    folder.write("tokens.json", &json!({"training": windows, "evaluation": windows}).to_string());
    let mut names: Vec<String> = std::fs::read_dir(GOLDENS)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "gguf") || p.join("model.safetensors").is_file())
        .map(|p| p.display().to_string())
        .collect();
    names.sort();
    assert!(names.len() > 40, "{}", names.len());
    for model in &names {
        let name = Path::new(model).file_name().unwrap().to_string_lossy();
        let before = perplexity(&folder, model);
        for more in [&[][..], &["--lora-rank", "1"]] {
            finetune(&folder, &[&["finetune", model, "--steps", "1", "--lr", "1e-30"][..], more].concat());
            let after = perplexity(&folder, "out");
            assert!(
                (after - before).abs() <= 1e-4 * before,
                "{name} {more:?}: {before} before, {after} after"
            );
        }
        finetune(&folder, &["finetune", model, "--steps", "8", "--lr", "1e-2", "--lora-rank", "1"]);
        let after = perplexity(&folder, "out");
        assert!(after < 0.97 * before, "{name}: {before} before, {after} after");
        let done = finetune(
            &folder,
            &["distill", model, "--teacher", model, "--steps", "1", "--loss", "kl", "--loss", "features"],
        );
        assert!(done["loss_last"].as_f64().unwrap() < 1e-6, "{name}: {done}");
    }
}
