//! SNP and heads from the command line, on a small vision transformer and a small language model.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::media::png;
use common::{Folder, filters};
use insta::{assert_snapshot, with_settings};

const VIT: &str = r#"{"architecture": "vit_tiny_patch16_224", "num_classes": 5, "torch_dtype": "float32", "model_args":
    {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0}}"#;

/// `vit` with seeded weights, and twelve pictures.
fn folder() -> Folder {
    let folder = Folder::bare();
    for made in ["net", "pictures"] {
        std::fs::create_dir(folder.path(made)).unwrap();
    }
    folder.write("net/config.json", VIT);
    folder.ok(&["-q", "init", "net/config.json", "--seed", "3", "--dtype", "f32", "-o", "vit"]);
    for i in 0..12_u8 {
        std::fs::write(folder.path(&format!("pictures/{i:02}.png")), png(i)).unwrap();
    }
    folder.write(
        "ratios.json",
        r#"{"source": "a test", "qk": [0.25, 0.5], "v": 0.5, "ffn": [0.1, 0.2], "stream": 0.25}"#,
    );
    folder
}

fn check(name: &str, transcripts: &[String]) {
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!(name, transcripts.join("\n"));
    });
}

#[test]
fn neurons_are_scored_on_pictures_and_cut_by_a_file_of_ratios() {
    let f = folder();
    let commands: &[&[&str]] = &[
        &["score", "vit", "--method", "snp", "--data", "pictures", "--samples", "8", "-o", "s.json"],
        &[
            "plan",
            "vit",
            "--method",
            "snp",
            "--scores",
            "s.json",
            "--ratio-file",
            "ratios.json",
            "-o",
            "p.json",
        ],
        &["apply", "vit", "--plan", "p.json", "-o", "cut"],
        &["verify", "cut", "--against", "vit", "--plan", "p.json"],
    ];
    check("neurons", &commands.iter().map(|c| f.transcript(c)).collect::<Vec<_>>());
    let plan = f.json("p.json");
    assert_eq!(f.document(&["inspect", "cut"])["parameters"], plan["after"]["parameters"]);
    // A budget, and the opposite order at the same size.
    let budget = |scores: &str| {
        f.document(&[
            "plan", "vit", "--method", "snp", "--scores", scores, "--target", "macs=70%", "-o", "b.json",
            "--force",
        ])
    };
    let own = budget("s.json");
    let macs = |plan: &serde_json::Value, at: &str| plan[at]["macs"].as_u64().unwrap();
    assert!(macs(&own, "after") * 10 <= macs(&own, "before") * 7);
    let reverse = ["--criterion", "reverse", "--samples", "8", "-o", "r.json"];
    f.ok(&[&["-q", "score", "vit", "--method", "snp", "--data", "pictures"][..], &reverse].concat());
    let opposite = budget("r.json");
    assert_eq!(own["after"], opposite["after"]);
    assert_ne!(own["edits"], opposite["edits"]);
}

#[test]
fn heads_go_whole_and_one_command_does_it_all() {
    let f = folder();
    let words = ["compress", "vit", "--method", "heads", "--data", "pictures", "--ratio", "34%", "-o", "cut"];
    check("heads", &[f.transcript(&words)]);
    f.ok(&["-q", "verify", "cut", "--against", "vit", "--plan", "cut.plan.json"]);
    // Two heads of keys, each with two of queries: one group of them goes.
    let f = Folder::new();
    let words =
        ["compress", "model", "--method", "heads", "--data", "text.txt", "--ratio", "50%", "-o", "cut"];
    let plan = f.document(&words);
    assert!(plan.to_string().contains("self_attn.heads"), "{plan}");
    let explained = f.json("cut.plan.json");
    let share = |at: &str| explained[at]["parameters"].as_u64().unwrap();
    assert!(share("after") < share("before"));
}

#[test]
fn what_does_not_fit_is_told() {
    let f = folder();
    f.write("short.json", r#"{"qk": [0.5]}"#);
    f.write("wrong.json", r#"{"qkv": 0.5}"#);
    let score = |rest: &[&'static str]| [&["score", "vit", "--method"][..], rest, &["-o", "x.json"]].concat();
    let plan =
        |rest: &[&'static str]| [&["plan", "vit", "--method"][..], rest, &["-o", "x.plan.json"]].concat();
    f.ok(&score(&["snp", "--criterion", "random"]));
    let commands = [
        score(&["snp"]),
        score(&["snp", "--data", "nowhere"]),
        score(&["snp", "--gamma", "none"]),
        plan(&["snp"]),
        plan(&["heads", "--scores", "x.json", "--ratio", "50%"]),
        plan(&["snp", "--scores", "x.json", "--ratio-file", "short.json"]),
        plan(&["snp", "--scores", "x.json", "--ratio-file", "wrong.json"]),
        plan(&["snp", "--scores", "x.json"]),
        plan(&["snp", "--scores", "x.json", "--ratio", "blocks.7.attn.qk=50%"]),
    ];
    check("refused", &commands.iter().map(|c| f.transcript(c)).collect::<Vec<_>>());
    f.write("net/config.json", r#"{"architecture": "resnet_cifar", "layers": [1, 1]}"#);
    let words = ["score", "net/config.json", "--method", "heads", "--criterion", "random", "-o", "h.json"];
    check("no-heads", &[f.transcript(&words)]);
}
