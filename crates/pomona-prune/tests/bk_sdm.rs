//! BK-SDM's students of Stable Diffusion 1.4 and 2.1: exact parameters and MACs in both conventions, and what goes.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../pomona-task/tests/seeded/mod.rs"]
mod seeded;

use std::path::Path;

use pomona_exec::{Device, Options, evaluate};
use pomona_graph::{Edit, Graph, ValueId, apply, diff};
use pomona_models::{OutputFormat, SaveOptions, open, save};
use pomona_prune::methods::bk_sdm::{Planning, Variant, edits, plan};
use pomona_prune::methods::depth::report;
use pomona_task::{ModelWeights, Residence};

/// Parameters, MACs of convolutions and linear layers, MACs of attention's two products.
type Row = (Option<Variant>, u64, u64, u64);

const SD14: [Row; 4] = [
    (None, 859_520_964, 338_610_585_600, 63_026_135_040),
    (Some(Variant::Base), 579_384_964, 223_672_074_240, 37_824_921_600),
    (Some(Variant::Small), 482_346_884, 217_645_383_680, 37_801_820_160),
    (Some(Variant::Tiny), 323_384_964, 204_952_698_880, 37_801_820_160),
];

const SD21: [Row; 4] = [
    (None, 865_910_724, 339_102_597_120, 63_026_135_040),
    (Some(Variant::Base), 583_480_964, 223_987_466_240, 37_824_921_600),
    (Some(Variant::Small), 485_787_524, 217_910_312_960, 37_801_820_160),
    (Some(Variant::Tiny), 326_825_604, 205_217_628_160, 37_801_820_160),
];

fn config(name: &str) -> pomona_models::Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unets").join(name);
    open(path).unwrap()
}

#[test]
fn counts_are_those_of_the_papers_models() {
    for (name, rows) in [("sd14.json", SD14), ("sd21.json", SD21)] {
        let model = config(name);
        let graph = model.graph().unwrap();
        for (variant, parameters, thop, attention) in rows {
            let edits = variant.map(|v| edits(graph, v).unwrap()).unwrap_or_default();
            let (edited, _) = apply(graph, &edits).unwrap();
            let r = report(&edited).unwrap();
            assert_eq!(r.parameters, parameters, "{name} {variant:?}");
            assert_eq!((r.macs.thop, r.macs.full), (thop, thop + attention), "{name} {variant:?}");
            assert_eq!(r.uncounted, [], "{name} {variant:?}");
        }
    }
}

#[test]
fn the_diff_names_the_blocks_that_went() {
    let model = config("sd14.json");
    let graph = model.graph().unwrap();
    let fingerprint = model.fingerprint().unwrap();
    let on = Planning { graph, component: None, fingerprint: &fingerprint, tool: "test" };
    let removed = |variant| plan(&on, variant).unwrap().removed;
    let pairs = |down: std::ops::Range<usize>, up: std::ops::Range<usize>| {
        let mut out: Vec<String> = Vec::new();
        for i in down {
            out.push(format!("down_blocks.{i}.resnets.1"));
            out.extend((i < 3).then(|| format!("down_blocks.{i}.attentions.1")));
        }
        for i in up {
            out.push(format!("up_blocks.{i}.resnets.1"));
            out.extend((i > 0).then(|| format!("up_blocks.{i}.attentions.1")));
        }
        out
    };
    assert_eq!(removed(Variant::Base), pairs(0..4, 0..4));
    let mut small = pairs(0..4, 0..4);
    small.insert(7, "mid_block".to_owned());
    assert_eq!(removed(Variant::Small), small);
    let mut tiny = pairs(0..3, 1..4);
    let inner = ["down_blocks.2.downsamplers", "down_blocks.3", "mid_block", "up_blocks.0"];
    tiny.splice(6..6, inner.map(str::to_owned));
    assert_eq!(removed(Variant::Tiny), tiny);
    let (edited, _) = apply(graph, &edits(graph, Variant::Small).unwrap()).unwrap();
    let found = diff(graph, &edited);
    let mid = found.removed.iter().find(|r| r.path == "mid_block").unwrap();
    assert_eq!((mid.class.as_str(), mid.parameters), ("UNetMidBlock2DCrossAttn", 97_038_080));
    assert_eq!(found.changed, []);
}

#[test]
fn other_networks_are_told_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, r#"{"_class_name": "AutoencoderTiny"}"#).unwrap();
    let model = open(path).unwrap();
    let message = edits(model.graph().unwrap(), Variant::Base).unwrap_err().to_string();
    assert!(message.contains("has 0 down blocks and 0 up blocks"), "{message}");
}

/// The students of small U-Nets with weights: what a stock directory holds gives the output of the source with the parts
/// masked.
#[test]
fn pruned_equals_masked_and_goes_back_to_diffusers() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-task/tests/diffusers");
    for name in ["unet_sd1", "unet_sd2"] {
        let (dir, model, golden) = seeded::check(&goldens.join(name));
        let source = model.only().unwrap();
        let device = Device::cpu();
        let inputs = || seeded::feeds(&source.graph, &golden, &device);
        for variant in [Variant::Base, Variant::Small, Variant::Tiny] {
            let edits = edits(&source.graph, variant).unwrap();
            let mut fed = inputs();
            let weights = ModelWeights::new(source, &device, Residence::Memory);
            let mut parts: Vec<_> = edits.iter().map(|e| ends(&source.graph, e)).collect();
            parts.sort();
            for (_, from, to) in parts {
                let run = evaluate(&source.graph, &weights, &fed, &[from], &Options::default());
                fed.insert(to, run.unwrap().remove(0));
            }
            let masked = seeded::output(source, &fed, "sample").to_f32().unwrap();
            let (edited, recipe) = apply(&source.graph, &edits).unwrap();
            let out = dir.path().join(variant.name());
            let options = SaveOptions { format: OutputFormat::Hf, ..SaveOptions::default() };
            let saved = save(&model, &edited, &recipe, &options, out, &mut |_, _| {}).unwrap();
            std::fs::remove_file(saved.path.join("pomona.json")).unwrap();
            let student = open(&saved.path).unwrap();
            let component = student.only().unwrap();
            let fed = seeded::feeds(&component.graph, &golden, &device);
            let got = seeded::output(component, &fed, "sample").to_f32().unwrap();
            assert_eq!(got, masked, "{name} {}", variant.name());
            let (levels, mid) = (
                component.config["block_out_channels"].as_array().unwrap().len(),
                &component.config["mid_block_type"],
            );
            let tiny = variant == Variant::Tiny;
            assert_eq!(
                (levels, component.config["layers_per_block"].as_u64()),
                (3 - usize::from(tiny), Some(1))
            );
            assert_eq!(
                mid.is_null() && component.config.get("mid_block_type").is_some(),
                variant != Variant::Base
            );
        }
    }
}

fn ends(graph: &Graph, edit: &Edit) -> (u32, ValueId, ValueId) {
    let Edit::Bypass { from, to } = edit else { unreachable!("these edits are bypasses") };
    let order = graph.find_node(&to.0).unwrap().0;
    (order, graph.resolve(from).unwrap(), graph.resolve(to).unwrap())
}
