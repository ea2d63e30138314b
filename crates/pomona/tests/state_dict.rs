//! PyTorch files on the command line, and how far a cut network has moved.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

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

/// A grey PNG of 8 x 8 pixels, stored without compression.
fn png(seed: u8) -> Vec<u8> {
    fn crc(bytes: &[u8]) -> u32 {
        let step = |c: u32, _: u32| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 };
        !bytes.iter().fold(!0, |c, b| (0..8).fold(c ^ u32::from(*b), step))
    }
    let mut raw = Vec::new();
    for y in 0..8_u32 {
        raw.push(0);
        raw.extend((0..8_u32).map(|x| ((u32::from(seed) + 3) * (x * 37 + y * 101 + 11) % 256) as u8));
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for v in &raw {
        a = (a + u32::from(*v)) % 65521;
        b = (b + a) % 65521;
    }
    let mut data = vec![0x78, 1, 1];
    data.extend((raw.len() as u16).to_le_bytes());
    data.extend((!(raw.len() as u16)).to_le_bytes());
    data.extend(&raw);
    data.extend((b << 16 | a).to_be_bytes());
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [
        (b"IHDR", [&[0, 0, 0, 8, 0, 0, 0, 8, 8, 0, 0, 0, 0][..]].concat()),
        (b"IDAT", data),
        (b"IEND", vec![]),
    ] {
        out.extend((body.len() as u32).to_be_bytes());
        let named = [&kind[..], &body].concat();
        out.extend(&named);
        out.extend(crc(&named).to_be_bytes());
    }
    out
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
