//! Image and text networks give the outputs of transformers, torchvision and timm; published networks have the published
//! sizes; pruned equals masked, also through a stock directory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod seeded;

use std::path::{Path, PathBuf};

use pomona_models::OutputFormat;
use seeded::{check, pruned_equals_masked};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vision").join(name)
}

#[test]
fn vision_transformers() {
    for name in ["vit", "vit_bare", "vit_heads", "deit", "deit_distilled"] {
        check(&folder(name));
    }
}

#[test]
fn vision_transformers_of_timm() {
    for name in ["timm_vit", "timm_vit_average", "timm_deit_distilled"] {
        check(&folder(name));
    }
}

#[test]
fn text_encoders() {
    for name in ["bert", "bert_mlm", "bert_sequence", "bert_token"] {
        check(&folder(name));
    }
}

#[test]
fn residual_networks() {
    for name in ["resnet_basic", "resnet_bottleneck", "resnet_cifar_a", "resnet_cifar_b"] {
        check(&folder(name));
    }
}

#[test]
fn separable_networks() {
    let timm = ["mobilenetv1_100", "mobilenetv2_035", "mobilenetv2_110d"];
    let lite = ["efficientnet_lite1", "tf_efficientnet_lite0"];
    for name in timm.into_iter().chain(lite).chain(["mobilenet_v2"]) {
        check(&folder(name));
    }
}

#[test]
fn fewer_blocks_in_stock_configs() {
    use OutputFormat::{Hf, Pomona};
    pruned_equals_masked(&folder("vit"), &["vit.encoder.layer.0"], Hf);
    pruned_equals_masked(&folder("vit_bare"), &["encoder.layer.1"], Hf);
    pruned_equals_masked(&folder("deit_distilled"), &["deit.encoder.layer.0"], Hf);
    pruned_equals_masked(&folder("bert_mlm"), &["bert.encoder.layer.0"], Hf);
    pruned_equals_masked(&folder("bert"), &["encoder.layer.1"], Hf);
    pruned_equals_masked(&folder("timm_vit"), &["blocks.0"], Hf);
    pruned_equals_masked(&folder("timm_vit_average"), &["blocks.1"], Hf);
    // A part of a block is nothing that a config can leave out.
    pruned_equals_masked(&folder("deit"), &["deit.encoder.layer.1.attention"], Pomona);
    pruned_equals_masked(&folder("bert_token"), &["bert.encoder.layer.0.attention"], Pomona);
    pruned_equals_masked(&folder("timm_vit"), &["blocks.1.mlp"], Pomona);
}

#[test]
fn fewer_blocks_of_convolutions() {
    use OutputFormat::Pomona;
    pruned_equals_masked(&folder("resnet_bottleneck"), &["layer2.1"], Pomona);
    pruned_equals_masked(&folder("resnet_cifar_a"), &["layer1.0", "layer3.1"], Pomona);
    pruned_equals_masked(&folder("mobilenet_v2"), &["features.3"], Pomona);
    pruned_equals_masked(&folder("efficientnet_lite1"), &["blocks.3.1", "blocks.5.2"], Pomona);
    pruned_equals_masked(&folder("mobilenetv1_100"), &["blocks.3.2"], Pomona);
}
