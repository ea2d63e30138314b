//! Networks of diffusers pipelines give the outputs of diffusers and transformers; pruned equals masked, also through a
//! stock directory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod seeded;

use std::path::{Path, PathBuf};

use pomona_exec::{Device, Feeds, Options, evaluate};
use pomona_graph::{Edit, Graph, apply, region_at};
use pomona_models::{Model, OutputFormat, SaveOptions, open, save};
use pomona_task::{ModelWeights, Residence};
use seeded::{check, feeds, output};

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

/// Feeds for a run in which the values of bypassed parts are fed with what enters the parts.
fn masked(model: &Model, edits: &[Edit], mut feeds: Feeds) -> Feeds {
    let (component, device) = (model.only().unwrap(), Device::cpu());
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    let graph = &component.graph;
    let mut parts: Vec<_> = edits.iter().map(|e| bypass(graph, e)).collect();
    // In the order of the graph, so that a part further on sees the earlier ones masked.
    parts.sort();
    for (_, from, to) in parts {
        let value = evaluate(graph, &weights, &feeds, &[from], &Options::default()).unwrap().remove(0);
        feeds.insert(to, value);
    }
    feeds
}

fn bypass(graph: &Graph, edit: &Edit) -> (usize, pomona_graph::ValueId, pomona_graph::ValueId) {
    let Edit::Bypass { from, to } = edit else { unreachable!("these edits are bypasses") };
    let order = graph.find_node(&to.0).unwrap().0 as usize;
    (order, graph.resolve(from).unwrap(), graph.resolve(to).unwrap())
}

/// The plan's graph, saved in a format and read again, against the masked source.
fn pruned_equals_masked(name: &str, parts: &[&str], format: OutputFormat) {
    let (dir, model, golden) = check(&folder(name));
    let graph = model.graph().unwrap();
    let edits: Vec<Edit> = parts.iter().flat_map(|p| region_at(graph, p).unwrap().edits()).collect();
    let (edited, recipe) = apply(graph, &edits).unwrap();
    let port = golden.outputs.keys().next().unwrap();
    let given = feeds(graph, &golden, &Device::cpu());
    let wanted = output(model.only().unwrap(), &masked(&model, &edits, given), port);
    let options = SaveOptions { format, ..SaveOptions::default() };
    let saved = save(&model, &edited, &recipe, &options, dir.path().join("out"), &mut |_, _| {}).unwrap();
    assert_eq!(saved.format, format);
    if format == OutputFormat::Hf {
        std::fs::remove_file(saved.path.join("pomona.json")).unwrap();
    }
    let again = open(&saved.path).unwrap();
    let component = again.only().unwrap();
    let got = output(component, &feeds(&component.graph, &golden, &Device::cpu()), port);
    assert_eq!(got.to_f32().unwrap(), wanted.to_f32().unwrap(), "{name} without {parts:?}");
}

#[test]
fn plans_that_diffusers_can_hold() {
    let pairs = ["down_blocks.0.attentions.1", "up_blocks.2.attentions.1"];
    // Fewer attentions than resnets is not in the config; a missing mid block is.
    pruned_equals_masked("unet_sd1", &["mid_block"], OutputFormat::Hf);
    pruned_equals_masked("unet_sd1", &pairs, OutputFormat::Pomona);
    pruned_equals_masked("unet_sd2", &["mid_block.attentions.0"], OutputFormat::Pomona);
    pruned_equals_masked("unet2d", &["mid_block"], OutputFormat::Hf);
    pruned_equals_masked("clip", &["text_model.encoder.layers.0"], OutputFormat::Hf);
    pruned_equals_masked("clip_projection", &["text_model.encoder.layers.1.mlp"], OutputFormat::Pomona);
    pruned_equals_masked("vae", &["decoder.mid_block.attentions.0"], OutputFormat::Pomona);
    pruned_equals_masked("taesd", &["decoder.layers.2"], OutputFormat::Pomona);
}
