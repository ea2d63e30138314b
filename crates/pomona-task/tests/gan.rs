//! Generators give the outputs of PyTorch.
#![allow(clippy::unwrap_used, reason = "tests")]

mod seeded;

use std::path::Path;

use seeded::check;

#[test]
fn pix2pix_generators() {
    for name in ["pix2pix", "pix2pix_keras"] {
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gan").join(name));
    }
}
