//! GGUF files: the container, and metadata that describe a model which cannot be.

use crate::bound::{Trial, cuts};
use crate::common::Folder;
use crate::hostile;

const COMMANDS: &[&[&str]] = &[&["inspect", "m.gguf"], &["export", "m.gguf", "-o", "out"]];

#[test]
fn gguf_files_that_lie() {
    let folder = Folder::bare();
    let mut trial = Trial::new(&folder, "m.gguf", COMMANDS);
    use hostile::gguf::*;
    for attack in [headers(), metadata(), tensors(), bombs()].concat() {
        trial.attack(&attack.name, &attack.bytes);
    }
    trial.end();
}

#[test]
fn metadata_of_impossible_models() {
    let folder = Folder::new();
    folder.ok(&["export", "model", "-o", "g", "--format", "gguf"]);
    let good = std::fs::read(folder.path("g/model.gguf")).unwrap();
    std::fs::remove_dir_all(folder.path("g")).unwrap();
    let mut trial = Trial::new(&folder, "m.gguf", COMMANDS);
    let patched = |key: &str, value: u32| {
        let mut bytes = good.clone();
        let at = good.windows(key.len()).position(|w| w == key.as_bytes()).expect(key) + key.len() + 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for key in [
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
    ] {
        for value in [0, 3, 7, 1_000_000_000, u32::MAX] {
            trial.attack(&format!("{key} {value}"), &patched(&format!("llama.{key}"), value));
        }
    }
    for value in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
        trial.attack(
            &format!("epsilon {value}"),
            &patched("llama.attention.layer_norm_rms_epsilon", value.to_bits()),
        );
        trial.attack(&format!("base {value}"), &patched("llama.rope.freq_base", value.to_bits()));
    }
    for (from, to) in [
        (&b"blk.0.attn_q.weight"[..], &b"blk.1.attn_q.weight"[..]),
        (b"blk.7.", b"blk.9."),
        (b"token_embd", b"poken_embd"),
    ] {
        let at = good.windows(from.len()).position(|w| w == from).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        trial.attack(&format!("{} renamed", String::from_utf8_lossy(from)), &bytes);
    }
    for cut in cuts(good.len(), 60) {
        trial.attack(&format!("cut to {cut} of {} bytes", good.len()), &good[..cut]);
    }
    trial.end();
}
