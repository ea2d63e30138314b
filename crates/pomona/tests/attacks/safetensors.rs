//! safetensors files and shard indices.

use crate::bound::{Trial, cuts};
use crate::common::Folder;
use crate::hostile;

const COMMANDS: &[&[&str]] = &[&["inspect", "model"], &["export", "model", "-o", "out", "--format", "hf"]];

#[test]
fn safetensors_that_lie() {
    let folder = Folder::new();
    let good = std::fs::read(folder.path("model/model.safetensors")).unwrap();
    let mut trial = Trial::new(&folder, "model/model.safetensors", COMMANDS);
    for attack in [hostile::safetensors::headers(), hostile::safetensors::tensors()].concat() {
        trial.attack(&attack.name, &attack.bytes);
    }
    for cut in cuts(good.len(), 40) {
        trial.attack(&format!("cut to {cut} of {} bytes", good.len()), &good[..cut]);
    }
    trial.end();
}

#[test]
fn indices_that_lie() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path("model/model.safetensors")).unwrap();
    std::fs::create_dir(folder.path("model/folder")).unwrap();
    for name in ["secret.safetensors", "model/s.safetensors", "model/t.safetensors"] {
        std::fs::write(folder.path(name), hostile::safetensors::shard()).unwrap();
    }
    let mut trial = Trial::new(&folder, "model/model.safetensors.index.json", COMMANDS);
    for (name, index, _) in hostile::safetensors::indices() {
        trial.attack(name, index.as_bytes());
    }
    let deep = format!("{{\"weight_map\":{}", "[".repeat(1 << 20));
    trial.attack("deep nesting", deep.as_bytes());
    trial.end();
}
