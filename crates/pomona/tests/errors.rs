//! What could not be done (exit 1), what was used wrongly (exit 2), and what stays silent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Folder, config, filters};
use insta::{assert_snapshot, with_settings};
use serde_json::json;

fn all(folder: &Folder, name: &str, commands: &[&[&str]]) {
    let text: Vec<String> = commands.iter().map(|c| folder.transcript(c)).collect();
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!(name, text.join("\n"));
    });
}

#[test]
fn wrong_use_ends_with_2() {
    let folder = Folder::new();
    let commands: &[&[&str]] = &[
        &[],
        &["prune", "model"],
        &["score", "model", "--criterion", "beauty", "-o", "s.json"],
        &["score", "model", "--criterion", "taylor", "--screen", "-o", "s.json"],
        &["score", "model", "--criterion", "taylor", "--unit", "neuron", "-o", "s.json"],
        &["score", "model", "--criterion", "taylor", "--protect", "4", "-o", "s.json"],
        &["score", "model", "--criterion", "taylor", "--samples", "0", "-o", "s.json"],
        &["score", "model", "--criterion", "taylor", "--tokens", "1", "-o", "s.json"],
        &["plan", "model", "--scores", "s.json", "--target", "speed=2", "-o", "p.json"],
        &["plan", "model", "--scores", "s.json", "--target", "params=120%", "-o", "p.json"],
        &["apply", "model", "--plan", "p.json"],
        &["verify", "model", "--plan", "p.json"],
        &["inspect", "model", "--input", "tokens"],
        &["eval", "model", "--task", "beauty"],
    ];
    for words in commands {
        assert_eq!(folder.run(words).status.code(), Some(2), "{words:?}");
    }
    all(&folder, "wrong-use", commands);
}

/// Instructions can be limited to those of the processor, and the same model is scored alike with all of them.
#[test]
fn instructions_are_limited_by_name() {
    let folder = Folder::new();
    let run =
        |name: &str, words: &[&str]| folder.command(words).env("POMONA_INSTRUCTIONS", name).output().unwrap();
    let wrong = run("mmx", &["inspect", "model"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("POMONA_INSTRUCTIONS is `mmx`") && said.contains("portable"), "{said}");
    let perplexity = |name: &str| -> f64 {
        let words =
            &["--json", "eval", "model", "--task", "perplexity", "--data", "text.txt", "--tokens", "64"];
        let out = run(name, words);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        value["perplexity"].as_f64().unwrap()
    };
    let (widest, narrowest) = (perplexity(""), perplexity("portable"));
    assert!((widest / narrowest - 1.0).abs() < 1e-5, "{widest} {narrowest}");
}

#[test]
fn what_is_not_there_or_not_known_ends_with_1() {
    let folder = Folder::new();
    folder.write("unknown.json", r#"{"model_type": "pomology", "num_hidden_layers": 2}"#);
    folder.write("plain.json", r#"{"a": 1}"#);
    folder.write("broken.json", "{");
    folder.write("weights.onnx", "");
    let commands: &[&[&str]] = &[
        &["inspect", "gone"],
        &["inspect", "weights.onnx"],
        &["inspect", "unknown.json"],
        &["inspect", "plain.json"],
        &["inspect", "broken.json"],
        &["inspect", "model/model.safetensors"],
        &["inspect", "model", "--plan", "gone.json"],
        &["inspect", "model", "--plan", "plain.json"],
        &["inspect", "model", "--device", "abacus"],
        &["inspect", "model", "--input", "frames=3"],
        &["score", "config.json", "--criterion", "magnitude", "-o", "s.json"],
        &["score", "model", "--criterion", "perplexity", "--data", "gone.txt", "-o", "s.json"],
        &["score", "model", "--criterion", "perplexity", "--data", "text.txt:30-99", "-o", "s.json"],
        &[
            "score",
            "model",
            "--criterion",
            "perplexity",
            "--data",
            "text.txt",
            "--samples",
            "900",
            "-o",
            "s.json",
        ],
        &["score", "model", "--criterion", "magnitude", "-o", "no/such/folder/s.json"],
        &["score", "model", "--criterion", "magnitude", "-o", "model"],
        &["plan", "model", "--scores", "gone.json", "--target", "blocks=1", "-o", "p.json"],
        &["plan", "model", "--scores", "plain.json", "--target", "blocks=1", "-o", "p.json"],
        &["generate", "config.json", "--prompt", "he"],
        &["eval", "config.json", "--task", "perplexity", "--data", "text.txt"],
        &["init", "unknown.json", "--seed", "1", "-o", "m"],
        &["verify", "gone"],
        &["explain", "model", "model.layers.99"],
        &["export", "config.json", "-o", "out"],
    ];
    for words in commands {
        let done = folder.run(words);
        assert_eq!(done.status.code(), Some(1), "{words:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{words:?}");
    }
    all(&folder, "not-there", commands);
    assert!(!folder.path("s.json").exists() && !folder.path("m").exists() && !folder.path("out").exists());
}

#[test]
fn targets_outputs_and_plans_that_do_not_fit_end_with_1() {
    let folder = Folder::new();
    folder.ok(&["score", "model", "--criterion", "magnitude", "--protect", "1,1", "-o", "s.json"]);
    folder.ok(&["plan", "model", "--scores", "s.json", "--target", "blocks=2", "-o", "p.json"]);
    folder.ok(&["apply", "model", "--plan", "p.json", "-o", "out"]);
    folder.ok(&["init", "config.json", "--seed", "6", "-o", "other"]);
    std::fs::create_dir(folder.path("home")).unwrap();
    folder.write("home/letter.txt", "dear");
    let mut unfinished = folder.json("s.json");
    unfinished["complete"] = json!(false);
    folder.write("unfinished.json", &unfinished.to_string());
    let commands: &[&[&str]] = &[
        &["plan", "model", "--scores", "s.json", "--target", "blocks=7", "-o", "q.json"],
        &["plan", "model", "--scores", "s.json", "--target", "params=5%", "-o", "q.json"],
        &["plan", "model", "--scores", "s.json", "--target", "latency=1ms@abacus", "-o", "q.json"],
        &["plan", "model", "--scores", "s.json", "--target", "blocks=1", "-o", "p.json"],
        &["plan", "other", "--scores", "s.json", "--target", "blocks=1", "-o", "q.json"],
        &["plan", "model", "--scores", "unfinished.json", "--target", "blocks=1", "-o", "q.json"],
        &["score", "model", "--criterion", "magnitude", "--protect", "2,1", "-o", "s.json"],
        &["score", "other", "--criterion", "magnitude", "--protect", "1,1", "-o", "s.json"],
        &["apply", "other", "--plan", "p.json", "-o", "new"],
        &["apply", "model", "--plan", "p.json", "-o", "out"],
        &["apply", "model", "--plan", "p.json", "-o", "model", "--force"],
        &["apply", "model", "--plan", "p.json", "-o", "model/inside"],
        &["apply", "model", "--plan", "p.json", "-o", "home", "--force"],
        &["apply", "config.json", "--plan", "p.json", "-o", "new"],
        &["verify", "out", "--against", "other", "--plan", "p.json"],
        &["compress", "model", "--target", "blocks=1", "-o", "out"],
    ];
    for words in commands {
        assert_eq!(folder.run(words).status.code(), Some(1), "{words:?}");
    }
    all(&folder, "not-fitting", commands);
    assert!(!folder.path("new").exists() && !folder.path("q.json").exists());
    folder.ok(&["verify", "out", "--against", "model", "--plan", "p.json"]);
    folder.ok(&["apply", "model", "--plan", "p.json", "-o", "out", "--force"]);
}

#[test]
fn a_model_of_an_unknown_type_is_cut_but_not_run() {
    let folder = Folder::new();
    let config = folder.read("model/config.json").replace("\"llama\"", "\"pomology\"");
    folder.write("model/config.json", &config);
    let commands: &[&[&str]] = &[
        &["score", "model", "--criterion", "perplexity", "-o", "s.json"],
        &["generate", "model", "--prompt", "he"],
        &["eval", "model", "--task", "perplexity"],
        &["score", "model", "--criterion", "magnitude", "-o", "s.json"],
        &["plan", "model", "--scores", "s.json", "--target", "macs=70%", "-o", "p.json"],
        &["plan", "model", "--scores", "s.json", "--target", "blocks=1", "-o", "p.json"],
        &["apply", "model", "--plan", "p.json", "-o", "out"],
        &["verify", "out", "--against", "model", "--plan", "p.json"],
        &["apply", "model", "--plan", "p.json", "-o", "gguf", "--format", "gguf"],
    ];
    all(&folder, "opaque", commands);
    assert_eq!(folder.json("out/config.json")["num_hidden_layers"], 7);
}

#[test]
fn a_snapshot_of_a_hub_cache_is_read_through_its_links() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("hub/blobs")).unwrap();
    std::fs::create_dir_all(folder.path("hub/snapshots/abc")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::rename(folder.path("model").join(name), folder.path("hub/blobs").join(name)).unwrap();
        let link = folder.path("hub/snapshots/abc").join(name);
        std::os::unix::fs::symlink(format!("../../blobs/{name}"), link).unwrap();
    }
    let snapshot = "hub/snapshots/abc";
    folder.ok(&["score", snapshot, "--criterion", "magnitude", "-o", "s.json"]);
    folder.ok(&["plan", snapshot, "--scores", "s.json", "--target", "blocks=1", "-o", "p.json"]);
    folder.ok(&["apply", snapshot, "--plan", "p.json", "-o", "out"]);
    folder.ok(&["verify", "out", "--against", snapshot, "--plan", "p.json"]);
    assert!(std::fs::symlink_metadata(folder.path("out/tokenizer.json")).unwrap().is_file());
    let done = folder.run(&["apply", snapshot, "--plan", "p.json", "-o", "hub/blobs", "--force"]);
    assert!(
        String::from_utf8(done.stderr).unwrap().contains("overlaps the source"),
        "links do not hide the source"
    );
}

#[test]
fn inspect_of_a_directory_checks_its_index_and_headers() {
    let folder = Folder::bare();
    let mut large = config();
    large["hidden_size"] = json!(256);
    large["intermediate_size"] = json!(512);
    folder.write("large.json", &large.to_string());
    folder.ok(&["init", "large.json", "--seed", "1", "-o", "large"]);
    folder.ok(&["export", "large", "-o", "sharded", "--format", "hf", "--shard-size", "1048576"]);
    std::fs::remove_file(folder.path("sharded/pomona.json")).unwrap();
    folder.ok(&["inspect", "sharded"]);
    let index = "sharded/model.safetensors.index.json";
    let good = folder.json(index);
    let shards: Vec<String> =
        good["weight_map"].as_object().unwrap().values().map(|v| v.as_str().unwrap().to_owned()).collect();
    let shard = |n: usize| {
        format!(
            "sharded/{}",
            shards.iter().collect::<std::collections::BTreeSet<_>>().into_iter().nth(n).unwrap()
        )
    };
    let second = folder.path(&shard(1));
    let mut text = String::new();
    let mut see = |what: &str| text += &format!("{what}\n{}\n", folder.transcript(&["inspect", "sharded"]));

    let moved = folder.path("moved");
    std::fs::rename(&second, &moved).unwrap();
    see("a shard is missing");
    std::fs::rename(&moved, &second).unwrap();

    let bytes = std::fs::read(&second).unwrap();
    std::fs::write(&second, &bytes[..bytes.len() - 10]).unwrap();
    see("a shard is cut short");
    std::fs::write(&second, &bytes[..5]).unwrap();
    see("a shard is a stub");
    std::fs::write(&second, &bytes).unwrap();

    let mut bad = good.clone();
    bad["weight_map"]["model.layers.0.extra.weight"] = bad["weight_map"]["model.norm.weight"].clone();
    folder.write(index, &bad.to_string());
    see("the index names a tensor that its shard does not have");
    let mut bad = good.clone();
    bad["weight_map"].as_object_mut().unwrap().remove("model.norm.weight");
    folder.write(index, &bad.to_string());
    see("the index leaves a tensor out");
    folder.write(index, &good.to_string());

    let config = folder.read("sharded/config.json");
    folder.write(
        "sharded/config.json",
        &config.replace("\"intermediate_size\": 512", "\"intermediate_size\": 500"),
    );
    see("the config asks for other sizes");
    folder.write(
        "sharded/config.json",
        &config.replace("\"num_hidden_layers\": 8", "\"num_hidden_layers\": 9"),
    );
    see("the config asks for more blocks");
    folder.write(
        "sharded/config.json",
        &config.replace("\"num_hidden_layers\": 8", "\"num_hidden_layers\": 7"),
    );
    see("the config asks for fewer blocks");
    with_settings!({filters => filters(), omit_expression => true}, { assert_snapshot!("directory", text) });
}

#[test]
fn tensors_without_a_place_are_shown_and_not_dropped_silently() {
    let folder = Folder::bare();
    let mut shallow = config();
    shallow["num_hidden_layers"] = json!(9);
    folder.write("nine.json", &shallow.to_string());
    folder.ok(&["init", "nine.json", "--seed", "1", "-o", "model"]);
    folder.write("model/config.json", &config().to_string());
    let shown = folder.document(&["inspect", "model"]);
    assert_eq!(shown["unused"].as_array().unwrap().len(), 9);
    folder.ok(&["score", "model", "--criterion", "magnitude", "-o", "s.json"]);
    folder.ok(&["plan", "model", "--scores", "s.json", "--target", "blocks=1", "-o", "p.json"]);
    let commands: &[&[&str]] = &[
        &["apply", "model", "--plan", "p.json", "-o", "out"],
        &["compress", "model", "--criterion", "magnitude", "--target", "blocks=1", "-o", "out"],
        &["apply", "model", "--plan", "p.json", "-o", "out", "--drop-unused"],
    ];
    all(&folder, "unused", commands);
}

#[test]
fn quiet_says_nothing_but_the_result() {
    let folder = Folder::new();
    for words in [
        &[
            "-q",
            "score",
            "model",
            "--criterion",
            "taylor",
            "--data",
            "text.txt",
            "--samples",
            "2",
            "--tokens",
            "8",
            "-o",
            "s.json",
        ][..],
        &[
            "--quiet",
            "eval",
            "model",
            "--task",
            "perplexity",
            "--data",
            "text.txt",
            "--windows",
            "1",
            "--tokens",
            "16",
        ],
        &["generate", "model", "--prompt", "he", "--new-tokens", "2", "-q"],
    ] {
        let done = folder.run(words);
        assert!(done.status.success() && done.stderr.is_empty() && !done.stdout.is_empty(), "{words:?}");
    }
    let done = folder.run(&["-q", "inspect", "gone"]);
    assert!(done.status.code() == Some(1) && !done.stderr.is_empty(), "errors are still said");
}

#[test]
fn no_escapes_where_nobody_sees_colours() {
    let folder = Folder::new();
    for no_color in [None, Some("1")] {
        let mut command = folder.command(&["inspect", "model"]);
        command.envs(no_color.map(|v| ("NO_COLOR", v)));
        let done = command.output().unwrap();
        assert!(!done.stdout.contains(&0x1b) && !done.stderr.contains(&0x1b));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::bare();
    let mut deep = config();
    deep["num_hidden_layers"] = json!(150);
    folder.write("deep.json", &deep.to_string());
    for words in [&["inspect", "deep.json", "--groups"][..], &["--json", "inspect", "deep.json", "--groups"]]
    {
        let whole = folder.ok(words);
        assert!(whole.len() > 1 << 17, "more than a pipe holds: {}", whole.len());
        let mut child = folder.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(whole.starts_with(&line));
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(0));
        assert_eq!(String::from_utf8(done.stderr).unwrap(), "");
    }
}
