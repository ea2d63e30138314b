//! Wav2Lip's generator from the command line: its compact form, and its inner levels.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Folder, filters};
use insta::{assert_snapshot, with_settings};

const SMALL: &str = r#"{"architecture": "wav2lip", "nef": 4, "naf": 4, "ndf": 4, "torch_dtype": "float32"}"#;

fn check(folder: &Folder, name: &str, words: &[&str]) {
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!(name, folder.transcript(words));
    });
}

/// `net/config.json` of a small generator and `network` with seeded weights.
fn folder(config: &str) -> Folder {
    let folder = Folder::bare();
    std::fs::create_dir(folder.path("net")).unwrap();
    std::fs::write(folder.path("net/config.json"), config).unwrap();
    folder
}

fn seeded() -> Folder {
    let folder = folder(SMALL);
    folder.ok(&["-q", "init", "net/config.json", "--seed", "3", "--dtype", "f32", "-o", "network"]);
    folder
}

#[test]
fn a_bare_config_is_planned_and_shown() {
    let f = folder(r#"{"architecture": "wav2lip"}"#);
    let words = ["plan", "net/config.json", "--method", "wav2lip-compact", "-o", "p.json"];
    check(&f, "plan", &words);
    let plan = f.json("p.json");
    let cost = |at: &str| {
        let c = &plan[at];
        ["parameters", "macs", "macs_thop"].map(|k| c[k].as_u64())
    };
    assert_eq!(cost("before")[..2], [Some(36_298_035), Some(3_966_984_192)]);
    assert_eq!(cost("after")[..2], [Some(1_258_143), Some(75_002_880)]);
    check(&f, "inspect-plan", &["inspect", "net/config.json", "--plan", "p.json"]);
    check(&f, "explain", &["explain", "net/config.json", "face_encoder_blocks.1.1"]);
    check(&f, "explain-width", &["explain", "net/config.json", "audio_encoder.0.conv_block.0.weight:0"]);
}

#[test]
fn one_command_makes_the_compact_network() {
    let f = seeded();
    let words = ["compress", "network", "--method", "wav2lip-compact", "--criterion"];
    for criterion in ["l1", "l2", "random", "first"] {
        let document = f.document(&[&words[..], &[criterion, "-o", criterion]].concat());
        assert_eq!(document["ran"], true);
        assert_eq!(document["plan"]["criterion"], criterion);
        let plan = format!("{criterion}.plan.json");
        f.ok(&["-q", "verify", criterion, "--against", "network", "--plan", &plan]);
        let config = f.json(&format!("{criterion}/config.json"));
        assert_eq!((&config["architecture"], &config["nef"]), (&"nota_wav2lip".into(), &1.into()));
        assert_eq!(
            f.document(&["inspect", criterion])["parameters"],
            document["plan"]["after"]["parameters"]
        );
    }
    // A plan of the bare config fits the weights too.
    f.ok(&["-q", "plan", "net/config.json", "--method", "wav2lip-compact", "-o", "bare.json"]);
    f.ok(&["-q", "apply", "network", "--plan", "bare.json", "-o", "of-bare"]);
    f.ok(&["-q", "verify", "of-bare", "--against", "network", "--plan", "bare.json"]);
    let bytes = |dir: &str| std::fs::read(f.path(&format!("{dir}/model.safetensors"))).unwrap();
    assert_eq!(bytes("of-bare"), bytes("first"));
    assert_ne!(bytes("of-bare"), bytes("l1"));
    f.ok(&["-q", "export", "l1", "--format", "onnx", "-o", "onnx"]);
}

#[test]
fn inner_levels_are_measured_and_cut() {
    let f = seeded();
    let words = ["score", "network", "--method", "inner-layers", "--ratios", "50%", "--samples", "1"];
    let found = f.document(&[&words[..], &["-o", "s.json", "--chart", "s.svg"]].concat());
    let levels: Vec<(&str, u64)> = found["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["layer"].as_str().unwrap().split('.').next().unwrap(), r["level"].as_u64().unwrap()))
        .collect();
    let of = |branch: &str| levels.iter().filter(|l| l.0 == branch).map(|l| l.1).collect::<Vec<_>>();
    assert_eq!(of("face_encoder_blocks"), [0, 1, 2, 3, 4, 5, 6, 6]);
    assert_eq!(of("audio_encoder"), [2, 3, 4, 5, 6, 6]);
    assert_eq!(of("face_decoder_blocks"), [6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(of("output_block"), [0]);
    let svg = f.read("s.svg");
    assert!(svg.starts_with("<svg") && svg.contains("decoder"));
    f.ok(&["-q", "score", "network", "--method", "filters", "-o", "f.json"]);
    let words = ["plan", "network", "--method", "inner-layers", "--scores", "f.json", "--from-level", "5"];
    check(&f, "inner", &[&words[..], &["--ratio", "50%", "-o", "p.json"]].concat());
    f.ok(&["-q", "apply", "network", "--plan", "p.json", "-o", "cut"]);
    f.ok(&["-q", "verify", "cut", "--against", "network", "--plan", "p.json"]);
}

#[test]
fn what_does_not_fit_says_what_would() {
    let f = folder(SMALL);
    std::fs::create_dir(f.path("other")).unwrap();
    std::fs::write(f.path("other/config.json"), r#"{"architecture": "nota_wav2lip"}"#).unwrap();
    let compact = ["--method", "wav2lip-compact", "-o", "p.json"];
    let plan = |more: &[&str]| f.transcript(&[&["plan"], more, &compact].concat());
    let all = [
        plan(&["net/config.json", "--criterion", "l1"]),
        plan(&["net/config.json", "--criterion", "perplexity"]),
        plan(&["net/config.json", "--criterion", "taylor"]),
        plan(&["net/config.json", "--target", "params=50%"]),
        plan(&["other/config.json"]),
        f.transcript(&["score", "net/config.json", "--method", "wav2lip-compact", "-o", "s.json"]),
        f.transcript(&[
            "plan",
            "net/config.json",
            "--method",
            "inner-layers",
            "--drop-levels",
            "1",
            "-o",
            "p.json",
        ]),
        f.transcript(&[
            "plan",
            "net/config.json",
            "--criterion",
            "l1",
            "--target",
            "blocks=1",
            "-o",
            "p.json",
        ]),
    ];
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!("refused", all.join("\n"));
    });
}
