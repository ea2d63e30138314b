//! BK-SDM's students of Stable Diffusion 1.4 and 2.1: exact parameters and MACs in both conventions, and what goes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use pomona_graph::{apply, diff};
use pomona_models::open;
use pomona_prune::methods::bk_sdm::{Planning, Variant, edits, plan};
use pomona_prune::methods::depth::report;

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
