//! PyTorch files, zip and legacy.

use crate::bound::{Trial, cuts};
use crate::common::Folder;
use crate::hostile::torch::*;

const COMMANDS: &[&[&str]] = &[&["inspect", "m.pth"], &["export", "m.pth", "-o", "out"]];

#[test]
fn pickles_that_want_to_run_something() {
    let folder = Folder::bare();
    let mut trial = Trial::new(&folder, "m.pth", COMMANDS);
    for (name, object, _) in forbidden() {
        trial.attack(&format!("{name}, zip"), &zip(&object, 0));
        trial.attack(&format!("{name}, legacy"), &legacy(&object, &[], 0, 0));
    }
    assert!(!folder.path("owned").exists());
    trial.end();
}

#[test]
fn pytorch_files_that_lie() {
    let folder = Folder::bare();
    let mut trial = Trial::new(&folder, "m.pth", COMMANDS);
    for attack in [broken(), tensors(), bombs(), archives(), legacies()].concat() {
        trial.attack(&attack.name, &attack.bytes);
    }
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../pomona-store/tests/torch/");
    for name in ["nested_zip.pth", "nested_legacy.pth"] {
        let good = std::fs::read(format!("{goldens}{name}")).unwrap();
        for cut in cuts(good.len(), 40) {
            trial.attack(&format!("{name} cut to {cut}"), &good[..cut]);
        }
    }
    trial.end();
    // The weights of a directory are read by the same reader.
    let folder = Folder::new();
    std::fs::remove_file(folder.path("model/model.safetensors")).unwrap();
    let commands: &[&[&str]] = &[&["inspect", "model"]];
    let mut trial = Trial::new(&folder, "model/pytorch_model.bin", commands);
    for attack in archives() {
        trial.attack(&attack.name, &attack.bytes);
    }
    trial.end();
}
