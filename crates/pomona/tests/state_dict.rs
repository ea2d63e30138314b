//! PyTorch files on the command line, and how far a cut network has moved.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::media::png;
use common::{Folder, filters};
use insta::{assert_snapshot, with_settings};

/// `net.th` with its config beside it as `net.json`, `bare.pth` without one, `module.pth`, and pictures.
fn folder() -> Folder {
    let folder = Folder::bare();
    // The Llama config would be that of every bare file beside it.
    std::fs::remove_file(folder.path("config.json")).unwrap();
    let nets = concat!(env!("CARGO_MANIFEST_DIR"), "/../pomona-task/tests");
    for (from, to) in [
        ("state_dict/net.th", "net.th"),
        ("state_dict/net.pth", "bare.pth"),
        ("state_dict/module.pth", "module.pth"),
        ("vision/resnet_cifar_a/config.json", "net.json"),
    ] {
        std::fs::copy(format!("{nets}/{from}"), folder.path(to)).unwrap();
    }
    std::fs::create_dir(folder.path("pictures")).unwrap();
    for i in 0..12_u8 {
        std::fs::write(folder.path(&format!("pictures/{i:02}.png")), png(i)).unwrap();
    }
    folder
}

#[test]
fn state_dicts_are_shown_cut_and_refused() {
    let folder = folder();
    let commands: &[&[&str]] = &[
        &["inspect", "net.th", "--depth", "1"],
        &["inspect", "bare.pth", "--depth", "1"],
        &["inspect", "module.pth"],
        &["score", "bare.pth", "--criterion", "perplexity", "--data", "text.txt", "-o", "b.json"],
        &["score", "bare.pth", "--method", "filters", "--criterion", "l1", "-o", "b.json"],
    ];
    let text: Vec<String> = commands.iter().map(|c| folder.transcript(c)).collect();
    with_settings!({filters => filters(), omit_expression => true}, {
        assert_snapshot!("state-dict", text.join("\n"));
    });
}

#[test]
fn what_was_read_from_pytorch_is_verified_against_it() {
    let folder = folder();
    folder.ok(&["score", "net.th", "--method", "filters", "--criterion", "l2", "-o", "s.json"]);
    folder.ok(&[
        "plan", "net.th", "--method", "filters", "--scores", "s.json", "--target", "macs=70%", "-o", "p.json",
    ]);
    folder.ok(&["apply", "net.th", "--plan", "p.json", "-o", "out"]);
    folder.ok(&["verify", "out", "--against", "net.th", "--plan", "p.json"]);
    let same = folder.ok(&[
        "--json",
        "eval",
        "net.th",
        "--task",
        "agreement",
        "--against",
        "net.th",
        "--data",
        "pictures",
    ]);
    let same: serde_json::Value = serde_json::from_str(&same).unwrap();
    assert_eq!((same["agreement"].as_f64(), same["kl"].as_f64()), (Some(1.0), Some(0.0)));
    let eval = [
        "--json",
        "eval",
        "out",
        "--task",
        "agreement",
        "--against",
        "net.th",
        "--data",
        "pictures",
        "--batch",
    ];
    let run = |more: &[&str]| -> (f64, f64) {
        let text = folder.ok(&[&eval[..], more].concat());
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found["pictures"], 12);
        (found["agreement"].as_f64().unwrap(), found["kl"].as_f64().unwrap())
    };
    let (share, kl) = run(&["5", "--keep-logits", "dense.safetensors"]);
    assert!(kl > 0.0 && (0.0..=1.0).contains(&share), "{share} {kl}");
    // Kept logits and other batches give the same figures.
    let (again, near) = run(&["12", "--keep-logits", "dense.safetensors"]);
    assert!(again == share && (near - kl).abs() < 1e-6 * kl.max(1.0), "{near} {kl}");
    // Another model's kept logits are not taken.
    let wrong = folder.run(&[
        "eval",
        "net.th",
        "--task",
        "agreement",
        "--against",
        "out",
        "--data",
        "pictures",
        "--keep-logits",
        "dense.safetensors",
    ]);
    assert_eq!(wrong.status.code(), Some(1));
    let nothing = folder.run(&["eval", "net.th", "--task", "agreement", "--data", "pictures"]);
    assert_eq!(nothing.status.code(), Some(2));
}
