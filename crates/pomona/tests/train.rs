//! Whole trainings through the command line, on a small model.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::time::SystemTime;

use common::Folder;
use common::runs::{lines, stopped};
use serde_json::Value;

/// Fast enough for a test, long enough to be stopped in.
const SHORT: [&str; 12] =
    ["--data", "text.txt", "--seq", "24", "--batch", "2", "--lr", "3e-3", "--steps", "60", "--seed", "4"];

fn words<'a>(command: &'a [&'a str], out: &'a str, more: &'a [&'a str]) -> Vec<&'a str> {
    [command, &SHORT, &["-o", out], more].concat()
}

fn weights(folder: &Folder, out: &str) -> Vec<u8> {
    std::fs::read(folder.path(out).join("model.safetensors")).unwrap()
}

#[test]
fn a_run_lowers_the_loss_and_its_output_verifies() {
    let folder = Folder::new();
    let more =
        ["--keep-checkpoints", "--valid", "text.txt:31-40", "--valid-every", "25", "--valid-samples", "6"];
    let done = folder.document(&words(&["-q", "finetune", "model"], "out", &more));
    let held = |key: &str| done[key].as_f64().unwrap();
    assert!(held("held_out_first") > 4.0 && held("held_out_last") < 2.5, "{done}");
    let (first, last) = (done["loss_first"].as_f64().unwrap(), done["loss_last"].as_f64().unwrap());
    println!("loss from {first:.3} to {last:.3}");
    assert!(first > 4.0 && last < 2.5, "from {first} to {last}");
    assert_eq!(done["ran"], true);
    let checked = folder.document(&["verify", "out"]);
    assert_eq!(checked["ran"], true);
    let text = folder.document(&[
        "-q",
        "eval",
        "model",
        "--task",
        "perplexity",
        "--data",
        "text.txt",
        "--tokens",
        "24",
    ]);
    let after = folder.document(&[
        "-q",
        "eval",
        "out",
        "--task",
        "perplexity",
        "--data",
        "text.txt",
        "--tokens",
        "24",
    ]);
    let of = |d: &Value| d["perplexity"].as_f64().unwrap();
    assert!(of(&after) < 12.0 && of(&text) > 60.0, "{} to {}", of(&text), of(&after));
    // As the source stores them, under the source's names.
    let config: Value = serde_json::from_str(&folder.read("out/config.json")).unwrap();
    assert_eq!((&config["torch_dtype"], &config["model_type"]), (&"bfloat16".into(), &"llama".into()));
    assert!(folder.path("out/tokenizer.json").is_file());
    let log = lines(&folder, "out.train");
    let measured = log.iter().filter(|l| l["valid"].is_number()).map(|l| l["step"].as_u64().unwrap());
    assert_eq!((log.len(), measured.collect::<Vec<_>>()), (61, vec![0, 25, 50, 60]));
    let svg = folder.read("out.train/curves.svg");
    assert!(svg.starts_with("<svg") && svg.contains("cross-entropy"));
    let manifest = folder.json("out/pomona.json");
    assert_eq!(manifest["training"][0]["steps"], 60);
    // What was trained can be trained on, and keeps its history.
    folder.ok(&[
        "-q", "finetune", "out", "--data", "text.txt", "--seq", "24", "--batch", "2", "--steps", "1", "-o",
        "more",
    ]);
    assert_eq!(folder.json("more/pomona.json")["training"].as_array().unwrap().len(), 2);
}

#[test]
fn a_stopped_run_ends_with_the_same_bits() {
    let folder = Folder::new();
    let mut seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    let settings: [&[&str]; 2] = [
        &["--accumulate", "2", "--ema", "0.9"],
        &["--lora-rank", "4", "--lora-dropout", "0.2", "--optimizer", "sgd", "--clip", "0", "--epochs", "2"],
    ];
    for (kind, more) in settings.iter().enumerate() {
        let steps = more.contains(&"--epochs");
        let given: Vec<&str> = match steps {
            true => SHORT.iter().filter(|w| **w != "--steps" && **w != "60").copied().collect(),
            false => SHORT.to_vec(),
        };
        let command = |out: &'static str, further: &[&'static str]| {
            [&["-q", "finetune", "model"][..], &given, &["-o", out], more, further].concat()
        };
        folder.ok(&command("whole", &["--force"]));
        let count = lines(&folder, "whole.train").len() as u32;
        assert!(count >= 20, "{count} steps");
        let mut stops = 0;
        for round in 0..5 {
            let at = 1 + random(count - 4) as usize;
            // Half of them without a word: what is not on the disk is done again.
            let (signal, saves): (_, &[&str]) =
                if round % 2 == 0 { ("TERM", &[]) } else { ("KILL", &["--save-steps", "3"]) };
            let begin = [command("out", &["--force"]), saves.to_vec()].concat();
            let was = stopped(&folder, &begin, "out.train", at, signal);
            println!("settings {kind}: {signal} at step {at}: stopped {was}");
            stops += u32::from(was);
            if was {
                assert!(!folder.path("out").join("model.safetensors").exists(), "no output before the end");
                folder.ok(&command("out", &["--resume"]));
            }
            assert!(
                weights(&folder, "out") == weights(&folder, "whole"),
                "settings {kind}, {signal} at step {at}"
            );
            let log = lines(&folder, "out.train");
            let numbers: Vec<u64> = log.iter().map(|l| l["step"].as_u64().unwrap()).collect();
            assert_eq!(numbers, (1..=u64::from(count)).collect::<Vec<_>>(), "{signal} at step {at}");
            std::fs::remove_dir_all(folder.path("out")).unwrap();
            std::fs::remove_dir_all(folder.path("out.train")).unwrap();
        }
        assert!(stops >= 3, "{stops} of 5 runs were stopped");
        std::fs::remove_dir_all(folder.path("whole.train")).unwrap();
    }
}

#[test]
fn a_run_goes_on_only_as_it_was() {
    let folder = Folder::new();
    let all = words(&["-q", "finetune", "model"], "out", &[]);
    assert!(stopped(&folder, &all, "out.train", 5, "TERM"));
    let again = folder.run(&all);
    let errors = String::from_utf8(again.stderr).unwrap();
    assert!(
        again.status.code() == Some(1) && errors.contains("--resume goes on") && errors.contains("--force"),
        "{errors}"
    );
    let other =
        folder.run(&words(&["-q", "finetune", "model"], "out", &["--resume", "--weight-decay", "0.1"]));
    let errors = String::from_utf8(other.stderr).unwrap();
    assert!(errors.contains("its course.weight_decay was 0.0, and is 0.1 now"), "{errors}");
    folder.write("text.txt", &folder.read("text.txt").replace("ladder", "bucket"));
    let other = folder.run(&words(&["-q", "finetune", "model"], "out", &["--resume"]));
    assert!(String::from_utf8(other.stderr).unwrap().contains("its data was"));
}

#[test]
fn bad_data_are_named_and_nothing_is_lost() {
    let folder = Folder::new();
    folder.write(
        "good.jsonl",
        "{\"text\": \"the shears hang behind the door and the ladder too\"}\n".repeat(9).as_str(),
    );
    folder.write("bad.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\n");
    folder.write("odd.jsonl", "{\"body\": 1}\n");
    std::fs::write(folder.path("binary.txt"), [0x66, 0xff, 0xfe]).unwrap();
    let base =
        ["-q", "finetune", "model", "--seq", "8", "--batch", "1", "--steps", "2", "-o", "out", "--data"];
    folder.ok(&[&base[..], &["good.jsonl"]].concat());
    let kept = weights(&folder, "out");
    for (file, part) in [
        ("bad.jsonl", "line 2 is no JSON"),
        ("odd.jsonl", "has the keys [\"body\"]"),
        ("binary.txt", "is not UTF-8 text"),
        ("none.txt", "cannot be read"),
        ("good.jsonl:1-99", "has 9 lines"),
    ] {
        let done = folder.run(&[&base[..], &[file, "--force"]].concat());
        let errors = String::from_utf8(done.stderr).unwrap();
        let name = file.split(':').next().unwrap();
        assert!(done.status.code() == Some(1) && errors.contains(name) && errors.contains(part), "{errors}");
        assert!(weights(&folder, "out") == kept, "{file}");
    }
    // A short text, a rate that leads nowhere.
    folder.write("short.txt", "a");
    let done = folder.run(&[&base[..], &["short.txt", "--force"]].concat());
    assert!(String::from_utf8(done.stderr).unwrap().contains("too few for a window of 8"));
    let wild = [
        "-q",
        "finetune",
        "model",
        "--seq",
        "8",
        "--batch",
        "1",
        "--steps",
        "40",
        "-o",
        "wild",
        "--data",
        "good.jsonl",
    ];
    let wild = [
        &wild[..],
        &["--optimizer", "sgd", "--lr", "1e30", "--clip", "0", "--warmup", "0", "--save-steps", "1"],
    ]
    .concat();
    let done = folder.run(&wild);
    let errors = String::from_utf8(done.stderr).unwrap();
    assert!(
        errors.contains("is not finite") && errors.contains("windows ") && errors.contains("step-0000"),
        "{errors}"
    );
    assert!(!folder.path("wild").exists());
}

#[test]
fn adapters_change_their_weights_only_and_go_to_peft() {
    let folder = Folder::new();
    let more = [
        "--lora-rank",
        "4",
        "--lora-targets",
        "q_proj,down_proj",
        "--adapter-out",
        "adapter",
        "--dtype",
        "f32",
    ];
    let done = folder.document(&words(&["-q", "finetune", "model"], "out", &more));
    assert_eq!(done["trained_parameters"], 8 * (4 * (32 + 32) + 4 * (64 + 32)));
    let (before, after) = (done["loss_first"].as_f64().unwrap(), done["loss_last"].as_f64().unwrap());
    assert!(after < before - 0.3, "{before} to {after}");
    let config = folder.json("adapter/adapter_config.json");
    assert_eq!(config["target_modules"], serde_json::json!(["down_proj", "q_proj"]));
    assert_eq!((&config["r"], &config["peft_type"]), (&4.into(), &"LORA".into()));
    let adapter = pomona_store::Checkpoint::open(folder.path("adapter/adapter_model.safetensors")).unwrap();
    let info = adapter.info("base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight").unwrap();
    assert_eq!(info.shape, [4, 32]);
    let old = pomona_store::Checkpoint::open(folder.path("model")).unwrap();
    let new = pomona_store::Checkpoint::open(folder.path("out")).unwrap();
    for t in old.tensors() {
        let (a, b) = (old.decode(t).unwrap(), new.decode(new.info(&t.name).unwrap()).unwrap());
        let meant = t.name.contains("q_proj") || t.name.contains("down_proj");
        assert_eq!(a != b, meant, "{}", t.name);
    }
    let wrong =
        folder.run(&words(&["finetune", "model"], "w", &["--lora-rank", "4", "--lora-targets", "qq_proj"]));
    assert!(
        String::from_utf8(wrong.stderr)
            .unwrap()
            .contains("no Linear node is called `qq_proj`; there are down_proj")
    );
}

#[test]
fn a_student_follows_its_teacher_and_shares_what_is_the_same() {
    let folder = Folder::new();
    folder.ok(&["-q", "score", "model", "--criterion", "magnitude", "-o", "scores.json"]);
    folder.ok(&["-q", "plan", "model", "--scores", "scores.json", "--target", "blocks=2", "-o", "plan.json"]);
    folder.ok(&["-q", "apply", "model", "--plan", "plan.json", "-o", "student"]);
    let more =
        ["--teacher", "model", "--loss", "kl=1,temperature=2", "--loss", "features=0.5,normalise=relative"];
    let done = folder.document(&words(&["-q", "distill", "student"], "out", &more));
    let (first, last) = (done["loss_first"].as_f64().unwrap(), done["loss_last"].as_f64().unwrap());
    assert!(last < 0.7 * first, "{first} to {last}");
    let log = lines(&folder, "out.train");
    assert!(
        log[0]["losses"]["kl"].as_f64().unwrap() > 0.0
            && log[0]["losses"]["features"].as_f64().unwrap() > 0.0
    );
    // With the blocks before the first cut left alone, teacher and student share them: the same losses.
    let late = ["--teacher", "model", "--loss", "kl", "--train", "model.layers.7.*", "--dtype", "f32"];
    let run = folder.run(&words(&["distill", "student"], "late", &late));
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success() && said.contains("are one model up to model.layers.3"), "{said}");
    let wide = folder.run(&words(&["-q", "finetune", "student"], "no", &["--loss", "kl"]));
    assert!(String::from_utf8(wide.stderr).unwrap().contains("needs a teacher"));
}

/// Pictures `[count, 3, size, size]` whose brightness goes with their class, as a safetensors file.
fn pictures(folder: &Folder, name: &str, count: usize, size: usize) {
    let plane = 3 * size * size;
    let values: Vec<f32> = (0..count * plane)
        .map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3 + (i / plane % 4) as f32 * 0.5 - 0.75)
        .collect();
    let classes: Vec<f32> = (0..count).map(|i| (i % 4) as f32).collect();
    let (a, b) = (values.len() * 4, (values.len() + count) * 4);
    let header = format!(
        r#"{{"pixel_values":{{"dtype":"F32","shape":[{count},3,{size},{size}],"data_offsets":[0,{a}]}},"target":{{"dtype":"F32","shape":[{count}],"data_offsets":[{a},{b}]}}}}"#
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    values.iter().chain(&classes).for_each(|v| file.extend(v.to_le_bytes()));
    std::fs::write(folder.path(name), file).unwrap();
}

fn network(folder: &Folder, config: &str) {
    std::fs::create_dir(folder.path("net")).unwrap();
    folder.write("net/config.json", config);
    folder.ok(&["-q", "init", "net/config.json", "--seed", "3", "--dtype", "f32", "-o", "network"]);
}

#[test]
fn a_classifier_learns_from_tensors() {
    let folder = Folder::bare();
    network(
        &folder,
        r#"{"architecture": "vit_tiny_patch16_224", "num_classes": 4, "torch_dtype": "float32", "model_args":
        {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0}}"#,
    );
    pictures(&folder, "p.safetensors", 24, 16);
    let words = [
        "-q",
        "finetune",
        "network",
        "--data",
        "p.safetensors",
        "--batch",
        "8",
        "--lr",
        "3e-3",
        "--steps",
        "80",
        "-o",
        "out",
    ];
    let done = folder.document(&words);
    let (first, last) = (done["loss_first"].as_f64().unwrap(), done["loss_last"].as_f64().unwrap());
    assert!(first > 1.0 && last < 0.75 * first, "{first} to {last}");
    assert_eq!((done["samples"].as_u64(), done["ran"].as_bool()), (Some(640), Some(true)));
}

#[test]
fn blocks_that_are_run_again_give_the_same_training() {
    let folder = Folder::new();
    let settings: [&[&str]; 2] =
        [&["--accumulate", "2"], &["--lora-rank", "4", "--lora-dropout", "0.2", "--lr", "1e-2"]];
    for (i, own) in settings.iter().enumerate() {
        let losses = |name: &str, more: &[&str]| -> Vec<f64> {
            let base = [
                "-q", "finetune", "model", "--data", "text.txt", "--seq", "24", "--batch", "2", "--steps",
                "6", "-o", name,
            ];
            folder.ok(&[&base[..], own, more].concat());
            lines(&folder, &format!("{name}.train")).iter().filter_map(|l| l["loss"].as_f64()).collect()
        };
        let whole = losses(&format!("whole{i}"), &[]);
        let again = losses(&format!("again{i}"), &["--gradient-checkpointing"]);
        assert!(whole.len() == 6 && whole[5] < whole[0], "{whole:?}");
        for (a, b) in whole.iter().zip(&again) {
            assert!((a - b).abs() < 1e-4 * a, "{whole:?} {again:?}");
        }
    }
}

#[test]
fn widths_that_differ_meet_through_a_projection_that_no_output_has() {
    let folder = Folder::bare();
    network(&folder, r#"{"architecture": "resnet_cifar", "layers": [1, 1], "torch_dtype": "float32"}"#);
    pictures(&folder, "p.safetensors", 16, 32);
    folder.ok(&["-q", "score", "network", "--method", "filters", "--criterion", "l1", "-o", "s.json"]);
    folder.ok(&[
        "-q", "plan", "network", "--method", "filters", "--scores", "s.json", "--target", "macs=50%", "-o",
        "p.json",
    ]);
    folder.ok(&["-q", "apply", "network", "--plan", "p.json", "-o", "cut"]);
    let words = [
        "-q",
        "distill",
        "cut",
        "--teacher",
        "network",
        "--data",
        "p.safetensors",
        "--batch",
        "4",
        "--lr",
        "1e-2",
        "--steps",
        "40",
        "--loss",
        "output-mse=1",
        "--loss",
        "features=1,taps=layer1.0+layer1.0.conv1,normalise=relative",
        "-o",
        "out",
    ];
    let done = folder.document(&words);
    let (first, last) = (done["loss_first"].as_f64().unwrap(), done["loss_last"].as_f64().unwrap());
    assert!(last < 0.8 * first, "{first} to {last}");
    let (cut, out) = (folder.document(&["inspect", "cut"]), folder.document(&["inspect", "out"]));
    assert_eq!(cut["parameters"], out["parameters"]);
    assert!(done["trained_parameters"].as_u64() > cut["parameters"].as_u64());
}

#[test]
fn text_that_the_model_writes_can_be_trained_on() {
    let folder = Folder::new();
    let write = |out: &'static str, windows: &'static str, more: &[&'static str]| {
        let all =
            ["-q", "generate", "model", "--windows", windows, "--tokens", "9", "--seed", "3", "-o", out];
        [&all, more].concat()
    };
    folder.ok(&write("written.json", "40", &[]));
    let windows = folder.json("written.json")["training"].clone();
    let windows = windows.as_array().unwrap();
    assert!(windows.len() == 40 && windows.iter().all(|w| w.as_array().unwrap().len() == 9));
    assert_ne!(windows[0], windows[1]);
    // One that was stopped after its first part goes on to the same windows.
    let part: Vec<Value> = windows[..32].to_vec();
    folder.ok(&["-q", "score", "model", "--criterion", "magnitude", "-o", "s.json"]);
    let model = &folder.json("s.json")["fingerprint"];
    assert!(model.is_string());
    folder.write(
        "again.json.part",
        &serde_json::json!({"model": model, "tokens": 9, "seed": 3, "training": part}).to_string(),
    );
    folder.ok(&write("again.json", "40", &[]));
    assert_eq!(folder.read("again.json"), folder.read("written.json"));
    assert!(!folder.path("again.json.part").exists());
    assert_eq!(folder.run(&write("again.json", "1", &[])).status.code(), Some(1));
    folder.ok(&write("again.json", "33", &["--force"]));
    assert_eq!(folder.json("again.json")["training"].as_array().unwrap()[..], windows[..33]);
    let done =
        folder.document(&["-q", "finetune", "model", "--data", "written.json", "--steps", "2", "-o", "out"]);
    assert_eq!((&done["steps"], &done["tokens"]), (&2.into(), &(2 * 4 * 8).into()));
}
