//! Filters and inner layers from the command line, on small networks of pictures.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Folder, filters};
use insta::{assert_snapshot, with_settings};

const RESNET: &str = r#"{"architecture": "resnet_cifar", "layers": [1, 1], "torch_dtype": "float32"}"#;
const GENERATOR: &str =
    r#"{"architecture": "pix2pix", "num_downs": 5, "ngf": 4, "image_size": 32, "torch_dtype": "float32"}"#;

fn check(folder: &Folder, name: &str, words: &[&str]) {
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!(name, folder.transcript(words));
    });
}

/// `model` with seeded weights.
fn folder(config: &str) -> Folder {
    let folder = Folder::bare();
    std::fs::create_dir(folder.path("net")).unwrap();
    std::fs::write(folder.path("net/config.json"), config).unwrap();
    folder.ok(&["-q", "init", "net/config.json", "--seed", "3", "--dtype", "f32", "-o", "network"]);
    folder
}

#[test]
fn groups_are_listed_and_explained() {
    let f = folder(RESNET);
    check(&f, "groups", &["inspect", "network", "--groups"]);
    check(&f, "explain", &["explain", "network", "layer1.0.conv1"]);
    let document = f.document(&["inspect", "network", "--groups"]);
    let groups = document["groups"].as_array().unwrap();
    assert!(groups.iter().any(|g| g["locked"].is_null() && g["granularity"]["kind"] == "channel"));
    assert!(groups.iter().any(|g| g["locked"].as_str().is_some_and(|w| w.contains("output"))));
    let f = folder(GENERATOR);
    check(&f, "groups-joined", &["inspect", "network", "--groups"]);
}

#[test]
fn filters_are_scored_planned_applied_and_verified() {
    let f = folder(RESNET);
    check(&f, "score", &["score", "network", "--method", "filters", "--criterion", "l2", "-o", "s.json"]);
    check(
        &f,
        "plan",
        &[
            "plan", "network", "--method", "filters", "--scores", "s.json", "--target", "macs=70%", "-o",
            "p.json",
        ],
    );
    let plan = f.json("p.json");
    let macs = |at: &str| plan[at]["macs"].as_u64().unwrap();
    assert!(macs("after") * 10 <= macs("before") * 7);
    f.ok(&["-q", "apply", "network", "--plan", "p.json", "-o", "cut"]);
    f.ok(&["-q", "verify", "cut", "--against", "network", "--plan", "p.json"]);
    assert_eq!(f.document(&["inspect", "cut"])["parameters"], plan["after"]["parameters"]);
    let ratios = ["--ratio", "*.conv1=50%", "--ratio", "layer1.0.conv1=25%", "--round", "4", "--force"];
    let words = ["plan", "network", "--method", "filters", "--scores", "s.json", "-o", "p.json"];
    let plan = f.document(&[&words[..], &ratios].concat());
    let kept: Vec<usize> =
        plan["edits"].as_array().unwrap().iter().map(|e| e["indices"].as_array().unwrap().len()).collect();
    assert_eq!(kept, [12, 16]);
}

#[test]
fn taylor_reads_tensors_and_one_command_does_it_all() {
    let f = folder(RESNET);
    let (n, side) = (4, 32);
    let pixels: Vec<f32> = (0..n * 3 * side * side).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
    let bytes = pixels.len() * 4;
    let header = format!(
        r#"{{"pixel_values":{{"dtype":"F32","shape":[{n},3,{side},{side}],"data_offsets":[0,{bytes}]}},"target":{{"dtype":"F32","shape":[{n}],"data_offsets":[{bytes},{}]}}}}"#,
        bytes + n * 4
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    let target = [1.0_f32, 7.0, 2.0, 9.0];
    file.extend(pixels.iter().chain(&target).flat_map(|v| v.to_le_bytes()));
    std::fs::write(f.path("data.safetensors"), file).unwrap();
    let words =
        ["compress", "network", "--method", "filters", "--criterion", "taylor", "--data", "data.safetensors"];
    let document = f.document(&[&words[..], &["--target", "params=60%", "--global", "-o", "out"]].concat());
    assert_eq!(document["ran"], true);
    let share = |at: &str| document["plan"][at]["parameters"].as_f64().unwrap();
    assert!(share("after") <= 0.6 * share("before"));
    assert_eq!(f.json("out.scores.json")["settings"]["samples"], 4);
}

#[test]
fn inner_layers_are_measured_drawn_and_cut() {
    let f = folder(GENERATOR);
    let sweep =
        ["score", "network", "--method", "inner-layers", "--ratios", "50%", "--samples", "2", "-o", "s.json"];
    check(&f, "sweep", &[&sweep[..], &["--chart", "s.svg", "--metric", "ssim"]].concat());
    let svg = f.read("s.svg");
    assert!(svg.starts_with("<svg") && svg.contains("SSIM") && svg.contains("decoder"), "{svg}");
    let words = ["compress", "network", "--method", "inner-layers", "--drop-levels", "1", "-o", "shallow"];
    let document = f.document(&words);
    assert_eq!(document["ran"], true);
    assert_eq!(document["plan"]["target"]["asked"], "1 innermost levels out");
    let words =
        ["compress", "network", "--method", "inner-layers", "--drop-levels", "1", "--from-level", "2"];
    let document = f.document(&[&words[..], &["--ratio", "50%", "-o", "both"]].concat());
    assert_eq!(document["ran"], true);
    f.ok(&["-q", "verify", "both", "--against", "network", "--plan", "both.plan.json"]);
}

#[test]
fn what_does_not_fit_says_what_would() {
    let f = folder(GENERATOR);
    let refused = [
        &["plan", "network", "--method", "filters", "--target", "params=50%", "-o", "p.json"][..],
        &["plan", "network", "--method", "inner-layers", "-o", "p.json"],
        &["plan", "network", "--method", "inner-layers", "--drop-levels", "9", "-o", "p.json"],
        &["score", "network", "--method", "filters", "--criterion", "perplexity", "-o", "s.json"],
        &["score", "network", "--method", "filters", "--criterion", "taylor", "-o", "s.json"],
        &["score", "network", "--method", "inner-layers", "--metric", "fid", "-o", "s.json"],
        &["score", "network", "--method", "bk-sdm-base", "-o", "s.json"],
    ];
    let all: Vec<String> = refused.iter().map(|words| f.transcript(words)).collect();
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!("refused", all.join("\n"));
    });
}
