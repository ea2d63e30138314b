//! Generators give the outputs of PyTorch.
#![allow(clippy::unwrap_used, reason = "tests")]

mod seeded;

use std::path::Path;

use seeded::check;

fn all(names: &[&str]) {
    for name in names {
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gan").join(name));
    }
}

#[test]
fn pix2pix_generators() {
    all(&["pix2pix", "pix2pix_keras"]);
}

#[test]
fn dcgan_generators_and_discriminators() {
    all(&["dcgan_generator", "dcgan_generator_64", "dcgan_discriminator", "dcgan_discriminator_64"]);
}

#[test]
fn talking_face_generators() {
    all(&["wav2lip", "nota_wav2lip"]);
}

#[test]
fn tiny_auto_encoders() {
    all(&["taesd_encoder", "taesd_decoder", "taef2_encoder", "taef2_decoder"]);
}
