//! ONNX files.

use crate::bound::{Trial, cuts};
use crate::common::Folder;
use crate::hostile::onnx::*;

const COMMANDS: &[&[&str]] = &[&["inspect", "m.onnx"], &["export", "m.onnx", "-o", "out"]];

#[test]
fn onnx_files_that_lie() {
    let folder = Folder::bare();
    std::fs::write(folder.path("m.onnx"), good()).unwrap();
    folder.ok(&["inspect", "m.onnx"]);
    let mut trial = Trial::new(&folder, "m.onnx", COMMANDS);
    for attack in [wires(), tensors(), nodes(), bombs()].concat() {
        trial.attack(&attack.name, &attack.bytes);
    }
    trial.end();
}

/// What is cut from a message at the end of a field is a shorter message: then the file must be whole in itself.
#[test]
fn onnx_files_cut_short() {
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../pomona-task/tests/goldens/onnx/");
    for name in ["cnn_opset12.onnx", "vit_fused.onnx"] {
        let folder = Folder::bare();
        let good = std::fs::read(format!("{goldens}{name}")).unwrap();
        let mut trial = Trial::new(&folder, "m.onnx", COMMANDS);
        for cut in cuts(good.len(), 40) {
            trial.attack(&format!("{name} cut to {cut} of {}", good.len()), &good[..cut]);
        }
        trial.end();
    }
}
