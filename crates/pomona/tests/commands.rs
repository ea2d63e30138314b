//! Whole outputs of every command on a small model.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Folder, filters};
use insta::{assert_snapshot, with_settings};

fn check(folder: &Folder, name: &str, words: &[&str]) {
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!(name, folder.transcript(words));
    });
}

/// As text and as one document.
fn check_both(folder: &Folder, name: &str, words: &[&str]) {
    check(folder, name, words);
    let document = folder.document(words);
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!(format!("{name}.json"), serde_json::to_string_pretty(&document).unwrap());
    });
}

const SCORED: [&str; 10] =
    ["--data", "text.txt:1-30", "--samples", "4", "--tokens", "16", "--protect", "1,1", "--seed", "2"];

fn scored(folder: &Folder, criterion: &str, out: &str, more: &[&str]) -> String {
    let mut words = vec!["-q", "score", "model", "--criterion", criterion, "-o", out];
    words.extend(SCORED);
    words.extend(more);
    folder.ok(&words)
}

/// Everything in the file stands in the document.
fn assert_holds(document: &serde_json::Value, file: &serde_json::Value) {
    for (key, value) in file.as_object().unwrap() {
        assert_eq!(&document[key], value, "{key}");
    }
}

#[test]
fn init_writes_the_same_bytes_for_a_seed() {
    let folder = Folder::bare();
    check(&folder, "init", &["init", "config.json", "--seed", "5", "-o", "one"]);
    let document = folder.document(&["init", "config.json", "--seed", "5", "-o", "two"]);
    assert_eq!(document, serde_json::json!({"path": "DIR/two"}));
    folder.ok(&["init", "config.json", "--seed", "6", "-o", "three"]);
    let bytes = |name: &str| std::fs::read(folder.path(name).join("model.safetensors")).unwrap();
    assert!(bytes("one") == bytes("two") && bytes("one") != bytes("three"));
}

#[test]
fn inspect_shows_where_the_cost_is() {
    let folder = Folder::new();
    check_both(&folder, "inspect", &["inspect", "model"]);
    check(&folder, "inspect-deep", &["inspect", "model", "--depth", "4", "--input", "tokens=16", "--groups"]);
    check(&folder, "inspect-device", &["inspect", "config.json", "--device", "raspberry-pi-4"]);
}

#[test]
fn score_by_each_criterion() {
    let folder = Folder::new();
    for criterion in ["perplexity", "taylor", "magnitude", "block-influence", "random"] {
        let file = format!("{criterion}.json");
        let mut words = vec!["score", "model", "--criterion", criterion, "-o", file.as_str()];
        words.extend(SCORED);
        check(&folder, &format!("score-{criterion}"), &words);
        with_settings!({filters => filters(), omit_expression => true}, {
            assert_snapshot!(format!("scores-{criterion}"), folder.read(&file));
        });
    }
    let first = folder.read("taylor.json");
    assert_eq!(
        folder.document(
            &[&["score", "model", "--criterion", "taylor", "-o", "taylor.json"], &SCORED[..]].concat()
        )["parts"],
        folder.json("taylor.json")["parts"]
    );
    assert_eq!(folder.read("taylor.json"), first, "a finished file is read, not made again");
}

#[test]
fn score_again_after_each_removal_by_sublayer_and_screened() {
    let folder = Folder::new();
    check(
        &folder,
        "score-iterative",
        &[&["score", "model", "--criterion", "perplexity", "--iterative", "3", "-o", "i.json"], &SCORED[..]]
            .concat(),
    );
    check(
        &folder,
        "score-sublayer",
        &[&["score", "model", "--criterion", "taylor", "--unit", "sublayer", "-o", "s.json"], &SCORED[..]]
            .concat(),
    );
    check(
        &folder,
        "score-screen",
        &[&["score", "model", "--criterion", "perplexity", "--screen", "2", "-o", "h.json"], &SCORED[..]]
            .concat(),
    );
}

#[test]
fn score_on_text_that_the_model_writes() {
    let folder = Folder::new();
    let words =
        ["score", "model", "--criterion", "perplexity", "--samples", "2", "--tokens", "8", "-o", "own.json"];
    check(&folder, "score-own-text", &words);
}

#[test]
fn plan_for_each_kind_of_target() {
    let folder = Folder::new();
    scored(&folder, "magnitude", "scores.json", &[]);
    for (name, target) in [
        ("blocks", "blocks=2"),
        ("params", "params=80%"),
        ("macs", "macs=70%"),
        ("memory", "memory=100kB"),
        ("latency", "latency=1ms@raspberry-pi-4"),
    ] {
        let file = format!("{name}.plan.json");
        check(
            &folder,
            &format!("plan-{name}"),
            &["plan", "model", "--scores", "scores.json", "--target", target, "-o", &file],
        );
    }
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!("plan-file", folder.read("blocks.plan.json"));
    });
    let document = folder.document(&[
        "plan",
        "model",
        "--scores",
        "scores.json",
        "--target",
        "blocks=2",
        "--force",
        "-o",
        "blocks.plan.json",
    ]);
    assert_holds(&document, &folder.json("blocks.plan.json"));
    check(&folder, "inspect-plan", &["inspect", "model", "--plan", "params.plan.json"]);
}

#[test]
fn apply_and_verify() {
    let folder = Folder::new();
    scored(&folder, "magnitude", "scores.json", &[]);
    folder.ok(&["plan", "model", "--scores", "scores.json", "--target", "blocks=2", "-o", "plan.json"]);
    check_both(&folder, "apply", &["apply", "model", "--plan", "plan.json", "-o", "out", "--force"]);
    check_both(
        &folder,
        "apply-gguf",
        &["apply", "model", "--plan", "plan.json", "-o", "gguf", "--format", "gguf", "--force"],
    );
    check_both(&folder, "verify", &["verify", "out"]);
    check_both(&folder, "verify-against", &["verify", "out", "--against", "model", "--plan", "plan.json"]);
    check(&folder, "verify-gguf", &["verify", "gguf", "--against", "model", "--plan", "plan.json"]);
    let config = folder.json("out/config.json");
    assert_eq!(config["num_hidden_layers"], 6);
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!("card", folder.read("out/README.md"));
    });
    check(&folder, "explain", &["explain", "model", "model.layers.3"]);
    check(&folder, "explain-not", &["explain", "model", "model.norm"]);
    check_both(&folder, "explain-axis", &["explain", "model", "model.layers.3.mlp.up_proj.weight:0"]);
    check(&folder, "explain-heads", &["explain", "model", "model.layers.3.self_attn.k_proj"]);
    check(&folder, "explain-nothing", &["explain", "model", "model.layers.9"]);
}

#[test]
fn compress_does_all_of_it() {
    let folder = Folder::new();
    let words = [&["compress", "model", "--target", "params=90%", "-o", "out"], &SCORED[..]].concat();
    check(&folder, "compress", &words);
    assert_eq!(
        folder.names(),
        ["config.json", "model", "out", "out.plan.json", "out.scores.json", "text.txt"]
    );
    let again = folder.document(&[&words[..], &["--force"]].concat());
    assert_holds(&again["plan"], &folder.json("out.plan.json"));
    assert_eq!(again["ran"], true);
}

#[test]
fn generate_and_eval() {
    let folder = Folder::new();
    check_both(&folder, "generate", &["generate", "model", "--prompt", "he w", "--new-tokens", "4"]);
    check(
        &folder,
        "generate-chat",
        &["generate", "model", "--chat", "--prompt", "hel", "--new-tokens", "3", "--temperature", "1"],
    );
    check_both(
        &folder,
        "eval",
        &[
            "eval",
            "model",
            "--task",
            "perplexity",
            "--data",
            "text.txt:31-40",
            "--windows",
            "3",
            "--tokens",
            "32",
        ],
    );
    check(
        &folder,
        "eval-own-text",
        &["eval", "model", "--task", "perplexity", "--windows", "2", "--tokens", "8"],
    );
}

#[test]
fn eval_by_each_protocol() {
    let folder = Folder::new();
    let eval = |more: &[&str]| {
        let words = ["eval", "model", "--task", "perplexity", "--data", "text.txt:38-39"];
        folder.document(&[&words[..], more].concat())
    };
    let sliding = eval(&["--protocol", "sliding", "--tokens", "32", "--stride", "8"]);
    let full = eval(&["--protocol", "full"]);
    let segments = eval(&["--tokens", "32"]);
    // The tokenizer is one of bytes, more or less: two lines are longer than the context of 256.
    assert_eq!(full["tokens"], 256);
    let predicted = |d: &serde_json::Value| d["predictions"].as_u64().unwrap();
    assert_eq!(
        predicted(&sliding),
        predicted(&full) + full["windows"].as_u64().unwrap() - 1,
        "all but the first"
    );
    assert_eq!(predicted(&segments), 31 * segments["windows"].as_u64().unwrap());
    // One window that holds the whole text is the full context.
    let whole = eval(&["--protocol", "full", "--tokens", "100000"]);
    let one = eval(&["--protocol", "sliding", "--tokens", "100000"]);
    assert_eq!(whole["perplexity"], one["perplexity"]);
    assert_eq!((&whole["perplexity_stderr"], whole["windows"].as_u64()), (&serde_json::Value::Null, Some(1)));
    check(
        &folder,
        "eval-sliding",
        &[
            "eval",
            "model",
            "--task",
            "perplexity",
            "--data",
            "text.txt:38-39",
            "--protocol",
            "sliding",
            "--tokens",
            "64",
            "--stride",
            "48",
        ],
    );
}

#[test]
fn questions_are_answered_and_text_continued() {
    let folder = Folder::new();
    let line = |i: usize| {
        let options = format!(r#""the door", "a ladder {i}", "shears""#);
        format!(
            r#"{{"question": "What hangs behind door {i}?", "options": [{options}], "answer": {}}}"#,
            i % 3
        )
    };
    folder.write("questions.jsonl", &(0..12).map(|i| line(i) + "\n").collect::<String>());
    let words =
        ["eval", "model", "--task", "choice", "--data", "questions.jsonl", "--keep-answers", "answers.jsonl"];
    check_both(&folder, "eval-choice", &words);
    let first: serde_json::Value =
        serde_json::from_str(folder.read("answers.jsonl").lines().next().unwrap()).unwrap();
    assert_eq!(first["bytes"], serde_json::json!([8, 10, 6]));
    assert!(first["log_likelihoods"].as_array().unwrap().iter().all(|l| l.as_f64().unwrap() < 0.0));
    let some = folder.document(&[&words[..], &["--limit", "5"]].concat());
    assert_eq!(some["questions"], 5);
    let other = folder.document(&[&words[..], &["--prompt", "Q {question}\\nA"]].concat());
    assert_eq!(other["prompt"], "Q {question}\nA");
    folder.write("questions.jsonl", "{\"question\": \"q\", \"options\": [\"a\"], \"answer\": 0}\n");
    check(&folder, "eval-choice-bad", &words);
    check_both(
        &folder,
        "eval-repetition",
        &[
            "eval",
            "model",
            "--task",
            "repetition",
            "--data",
            "text.txt:31-40",
            "--windows",
            "3",
            "--prompt-tokens",
            "8",
            "--new-tokens",
            "40",
        ],
    );
    check(&folder, "eval-choice-no-data", &["eval", "model", "--task", "choice"]);
    check(
        &folder,
        "eval-stride",
        &["eval", "model", "--task", "perplexity", "--data", "text.txt", "--stride", "4"],
    );
}

#[test]
fn devices_are_listed() {
    let folder = Folder::bare();
    assert_snapshot!("devices", folder.transcript(&["devices"]));
    let document = folder.document(&["devices"]);
    assert!(
        document.as_array().unwrap().iter().all(|d| d["source"].as_str().is_some_and(|s| s.len() > 10)),
        "{document}"
    );
}

#[test]
fn help_names_every_command() {
    let folder = Folder::bare();
    check(&folder, "help", &["--help"]);
}
