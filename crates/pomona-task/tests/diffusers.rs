//! Networks of diffusers pipelines give the outputs of diffusers and transformers; pruned equals masked, also through a
//! stock directory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod seeded;

use std::path::{Path, PathBuf};

use pomona_models::OutputFormat;
use seeded::{check, pruned_equals_masked};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diffusers").join(name)
}

#[test]
fn conditional_unets() {
    for name in ["unet_sd1", "unet_sd2", "unet_small", "unet_sdxl", "unet_mixed"] {
        check(&folder(name));
    }
}

#[test]
fn unconditional_unets() {
    for name in ["unet2d", "unet2d_plain"] {
        check(&folder(name));
    }
}

#[test]
fn auto_encoders() {
    for name in ["vae", "vae_bare", "taesd"] {
        check(&folder(name));
    }
}

#[test]
fn text_encoders() {
    for name in ["clip", "clip_projection"] {
        check(&folder(name));
    }
}

#[test]
fn plans_that_diffusers_can_hold() {
    let pairs = ["down_blocks.0.attentions.1", "up_blocks.2.attentions.1"];
    // Fewer attentions than resnets is not in the config; a missing mid block is.
    pruned_equals_masked(&folder("unet_sd1"), &["mid_block"], OutputFormat::Hf);
    pruned_equals_masked(&folder("unet_sd1"), &pairs, OutputFormat::Pomona);
    pruned_equals_masked(&folder("unet_sd2"), &["mid_block.attentions.0"], OutputFormat::Pomona);
    pruned_equals_masked(&folder("unet2d"), &["mid_block"], OutputFormat::Hf);
    pruned_equals_masked(&folder("clip"), &["text_model.encoder.layers.0"], OutputFormat::Hf);
    pruned_equals_masked(
        &folder("clip_projection"),
        &["text_model.encoder.layers.1.mlp"],
        OutputFormat::Pomona,
    );
    pruned_equals_masked(&folder("vae"), &["decoder.mid_block.attentions.0"], OutputFormat::Pomona);
    pruned_equals_masked(&folder("taesd"), &["decoder.layers.2"], OutputFormat::Pomona);
}
