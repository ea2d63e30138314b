//! Trainings on folders of pictures and recordings through the command line.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::Folder;
use common::media::{picture, wav};
use common::runs::{lines, stopped};
use serde_json::Value;

const RESNET: &str = r#"{"architecture": "resnet_cifar", "layers": [1, 1], "width": 8, "num_classes": 3,
    "image_size": 16, "torch_dtype": "float32"}"#;
const GENERATOR: &str =
    r#"{"architecture": "pix2pix", "num_downs": 5, "ngf": 4, "image_size": 32, "torch_dtype": "float32"}"#;
const TONES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/media/tones.onnx");

/// `network` with seeded weights.
fn folder(config: &str) -> Folder {
    let folder = Folder::bare();
    std::fs::create_dir(folder.path("net")).unwrap();
    folder.write("net/config.json", config);
    folder.ok(&["-q", "init", "net/config.json", "--seed", "3", "--dtype", "f32", "-o", "network"]);
    folder
}

fn put(folder: &Folder, name: &str, bytes: &[u8]) {
    let path = folder.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A number of 0 to 255 that looks drawn.
fn noise(seed: u32) -> u32 {
    let z = (seed ^ 0x9E37_79B9).wrapping_mul(0x85EB_CA6B);
    (z ^ (z >> 13)).wrapping_mul(0xC2B2_AE35) >> 24
}

/// Pictures of stripes whose direction is the class: flat, upright, slanting.
fn stripes(folder: &Folder, into: &str, count: u32) {
    for (class, name) in ["flat", "slanting", "upright"].iter().enumerate() {
        for i in 0..count {
            let bytes = picture(16, 16, |x, y| {
                let along = [y, x + y, x][class] + noise(i * 7 + 1) % 5;
                let base = if (along / 2).is_multiple_of(2) { 60 } else { 170 };
                [0, 1, 2].map(|c| (base + noise(i * 5003 + x * 31 + y * 17 + c) % 60) as u8)
            });
            put(folder, &format!("{into}/{name}/{i:03}.png"), &bytes);
        }
    }
}

fn weights(folder: &Folder, out: &str) -> Vec<u8> {
    std::fs::read(folder.path(out).join("model.safetensors")).unwrap()
}

fn says(folder: &Folder, words: &[&str]) -> String {
    let done = folder.run(words);
    assert_eq!(done.status.code(), Some(1), "{words:?}");
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn a_classifier_learns_from_folders_and_its_statistics_follow() {
    let f = folder(RESNET);
    stripes(&f, "train", 24);
    stripes(&f, "test", 8);
    let right = |model: &str| {
        let done = f.document(&["-q", "eval", model, "--task", "top1", "--data", "test"]);
        done["top1"].as_f64().unwrap()
    };
    let command = |out: &'static str, more: &[&'static str]| {
        let all = ["-q", "finetune", "network", "--data", "train", "--valid", "test", "--batch", "12"];
        [&all, &["--steps", "40", "--lr", "0.02", "--augment", "shift=1", "-o", out][..], more].concat()
    };
    let done = f.document(&command("out", &["--keep-checkpoints"]));
    assert!(
        done["held_out_last"].as_f64().unwrap() < 0.5 * done["held_out_first"].as_f64().unwrap(),
        "{done}"
    );
    let (before, after) = (right("network"), right("out"));
    assert!(before < 0.6 && after > 0.9, "from {before} to {after}");
    // Without the statistics the same training gives another network.
    f.ok(&command("frozen", &["--freeze-statistics"]));
    assert!(weights(&f, "frozen") != weights(&f, "out"));
    // What is drawn for pictures, and the statistics, go on where a run was stopped.
    for (round, signal) in ["TERM", "KILL"].into_iter().enumerate() {
        let begin = command("again", &["--force", "--save-steps", "3"]);
        if stopped(&f, &begin, "again.train", 9 + 8 * round, signal) {
            f.ok(&command("again", &["--resume"]));
        }
        assert!(weights(&f, "again") == weights(&f, "out"), "after {signal}");
        ["again", "again.train"].iter().for_each(|name| std::fs::remove_dir_all(f.path(name)).unwrap());
    }
    // Held-out classes have the training data's numbers, whichever of them are there; others are refused.
    std::fs::create_dir(f.path("some")).unwrap();
    std::fs::rename(f.path("test/upright"), f.path("some/upright")).unwrap();
    let held = |of: &'static str| {
        let words = command("held", &["--force"])
            .iter()
            .map(|w| if *w == "test" { of } else { *w })
            .collect::<Vec<_>>();
        let done = f.document(&words);
        std::fs::remove_dir_all(f.path("held.train")).unwrap();
        done["held_out_last"].as_f64().unwrap()
    };
    assert!(held("some") < 0.5, "the class is known");
    std::fs::rename(f.path("some/upright"), f.path("some/wavy")).unwrap();
    let words = command("x", &[]).iter().map(|w| if *w == "test" { "some" } else { *w }).collect::<Vec<_>>();
    assert!(says(&f, &words).contains("the folder wavy, a class that the training data do not have"));
    // Averaged weights go with averaged statistics.
    f.ok(&command("averaged", &["--ema", "0.5"]));
    assert!(right("averaged") > 0.9);
    // A damaged picture is named, what was learnt is kept, and nothing is written.
    let whole = std::fs::read(f.path("train/flat/007.png")).unwrap();
    std::fs::write(f.path("train/flat/007.png"), &whole[..whole.len() / 2]).unwrap();
    let message = says(&f, &command("broken", &[]));
    assert!(message.contains("train/flat/007.png: is a damaged PNG"), "{message}");
    assert!(!f.path("broken").exists());
    let kept = lines(&f, "broken.train").len();
    assert!(
        kept == 0 || message.contains(&format!("the state after step {} is kept", kept - 1)),
        "{kept}: {message}"
    );
    let usage =
        f.run(&["finetune", "network", "--data", "train", "--reverse-pairs", "--steps", "1", "-o", "x"]);
    assert_eq!(usage.status.code(), Some(2));
    let message = says(&f, &["finetune", "network", "--data", "empty", "--steps", "1", "-o", "x"]);
    assert!(message.contains("empty"), "{message}");
}

#[test]
fn labels_that_the_model_does_not_have_are_refused() {
    let f = folder(RESNET);
    stripes(&f, "train", 1);
    let bytes = std::fs::read(f.path("train/flat/000.png")).unwrap();
    put(&f, "train/zigzag/000.png", &bytes);
    let message = says(&f, &["finetune", "network", "--data", "train", "--steps", "1", "-o", "x"]);
    assert!(message.contains("label 3") && message.contains("3 classes"), "{message}");
}

/// A picture and its negative, side by side or apart.
fn negatives(f: &Folder, count: u32) {
    for i in 0..count {
        let shade = |x: u32, y: u32| {
            let v = (20 + (x * (3 + i % 4) + y * (2 + i % 3)) * 2 + i * 9) % 200;
            [v as u8, (v + 20) as u8, (v + 40) as u8]
        };
        let turned = |x: u32, y: u32| shade(x, y).map(|v| 255 - v);
        let both = picture(80, 40, |x, y| if x < 40 { shade(x, y) } else { turned(x - 40, y) });
        put(f, &format!("joined/{i:02}.png"), &both);
        put(f, &format!("apart/A/{i:02}.png"), &picture(40, 40, shade));
        put(f, &format!("apart/B/{i:02}.png"), &picture(40, 40, turned));
        put(f, &format!("turned/input/{i:02}.png"), &picture(40, 40, turned));
        put(f, &format!("turned/target/{i:02}.png"), &picture(40, 40, shade));
    }
}

fn finetuned(f: &Folder, out: &str, more: &[&str]) -> Value {
    let all =
        ["-q", "finetune", "network", "--batch", "4", "--steps", "40", "--lr", "5e-3", "--force", "-o", out];
    f.document(&[&all, more].concat())
}

#[test]
fn a_generator_learns_from_pairs_wherever_they_are() {
    let f = folder(GENERATOR);
    negatives(&f, 12);
    let done = finetuned(&f, "joined.out", &["--data", "joined", "--keep-checkpoints"]);
    let loss = |key: &str| done[key].as_f64().unwrap();
    assert!(loss("loss_last") < 0.5 * loss("loss_first"), "{done}");
    // The term is the absolute difference, as of pix2pix.
    assert!(lines(&f, "joined.out.train")[0]["losses"]["l1"].is_number());
    finetuned(&f, "apart.out", &["--data", "apart"]);
    assert!(weights(&f, "apart.out") == weights(&f, "joined.out"));
    // Negatives of negatives: the other way round is another training, wherever it is read from.
    finetuned(&f, "back.out", &["--data", "joined", "--reverse-pairs"]);
    finetuned(&f, "turned.out", &["--data", "turned"]);
    assert!(weights(&f, "back.out") == weights(&f, "turned.out"));
    assert!(weights(&f, "back.out") != weights(&f, "joined.out"));
    finetuned(&f, "flipped.out", &["--data", "joined", "--augment", "flip"]);
    assert!(weights(&f, "flipped.out") != weights(&f, "joined.out"));
    put(&f, "apart/A/03.jpg", b"x");
    let message = says(&f, &["finetune", "network", "--data", "apart", "--steps", "1", "-o", "x"]);
    assert!(message.contains("apart/A/03.png: and ") && message.contains("have one name"), "{message}");
    std::fs::remove_file(f.path("apart/A/03.jpg")).unwrap();
    std::fs::remove_file(f.path("apart/B/03.png")).unwrap();
    let command = |data: &'static str| ["finetune", "network", "--data", data, "--steps", "1", "-o", "x"];
    let message = says(&f, &command("apart"));
    assert!(message.contains("apart/A/03.png: has no partner"), "{message}");
    put(&f, "odd/0.png", &picture(33, 16, |_, _| [0; 3]));
    let message = says(&f, &command("odd"));
    assert!(message.contains("odd/0.png: is 33 pixels wide"), "{message}");
}

#[test]
fn a_network_of_waveforms_learns_from_recordings() {
    let f = Folder::bare();
    let tone = |class: u32, i: u32, length: u32| {
        let pitch = [0.12, 0.55][class as usize] * (1.0 + f64::from(noise(i)) / 2000.0);
        wav(8000, (0..length).map(move |t| 0.6 * (f64::from(t) * pitch + f64::from(i)).sin()))
    };
    for i in 0..16 {
        // Longer and shorter than the network takes.
        let length = [200, 256, 700][i as usize % 3];
        put(&f, &format!("sounds/high/{i:02}.wav"), &tone(1, i, length));
        put(&f, &format!("sounds/low/{i:02}.wav"), &tone(0, i, length));
    }
    let all =
        ["-q", "finetune", TONES, "--data", "sounds", "--valid", "sounds", "--batch", "8", "--lr", "0.02"];
    let done = f.document(&[&all[..], &["--steps", "60", "-o", "out"]].concat());
    let held = |key: &str| done[key].as_f64().unwrap();
    assert!(held("held_out_first") > 0.5 && held("held_out_last") < 0.2, "{done}");
    assert!(f.path("out/model.onnx").is_file());
    let command = ["finetune", TONES, "--data", "sounds", "--steps", "9", "--batch", "32", "-o", "x"];
    put(&f, "sounds/high/05.wav", &wav(16000, (0..300).map(|t| f64::from(t % 7) / 7.0)));
    let message = says(&f, &command);
    assert!(message.contains("05.wav: has 16000 numbers a second, and other recordings 8000"), "{message}");
    put(&f, "fast/high/0.wav", &wav(16000, (0..300).map(|t| f64::from(t % 7) / 7.0)));
    put(&f, "sounds/high/05.wav", &tone(1, 5, 300));
    let message = says(&f, &[&command[..], &["--valid", "fast"]].concat());
    assert!(message.contains("fast/high/0.wav: has 16000 numbers a second"), "{message}");
    let cut = tone(1, 5, 300);
    put(&f, "sounds/high/05.wav", &cut[..cut.len() - 101]);
    let message = says(&f, &command);
    assert!(message.contains("05.wav: is a damaged WAV file"), "{message}");
    assert!(!Path::new(&f.path("x")).exists());
}
