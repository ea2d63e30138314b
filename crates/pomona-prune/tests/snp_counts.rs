//! SNP's published plans of DeiT, from bare configs, to the unit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod nets;

use std::path::Path;
use std::time::Duration;

use nets::Seeded;
use pomona_exec::{Device, Loaded};
use pomona_graph::{Graph, Plan};
use pomona_models::{Model, open};
use pomona_prune::criteria::filters::{Aggregate, FilterCriterion};
use pomona_prune::methods::filters::{Choice, Planning, Scoring, groups_of, plan, score};
use pomona_prune::{FilterSettings, Fit, LadderOptions, Ratios, ScoredUnit, report};
use serde_json::{Value, json};

fn bare(config: &Value) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    open(&path).unwrap()
}

fn timm(size: &str) -> Value {
    json!({"architecture": format!("deit_{size}_patch16_224")})
}

/// The same network of transformers; a DeiT has a second token there.
fn transformers(kind: &str, class: &str, width: usize) -> Value {
    let labels: serde_json::Map<_, _> = (0..1000).map(|i| (i.to_string(), json!("x"))).collect();
    json!({"model_type": kind, "architectures": [class], "hidden_size": width, "num_attention_heads": width / 64,
        "intermediate_size": 4 * width, "id2label": labels})
}

/// A plan by a committed file of ratios; which channels go is drawn, as there are no weights.
fn planned(graph: &Graph, file: &str) -> Plan {
    let settings = FilterSettings {
        criterion: FilterCriterion::Random,
        aggregate: Aggregate::Normalised,
        samples: 0,
        seed: 1,
        unit: ScoredUnit::Channels,
        gamma: None,
    };
    let on = Scoring {
        graph,
        weights: &Seeded(Loaded::default()),
        objective: None,
        device: &Device::cpu(),
        fingerprint: "f",
        component: None,
        tool: "t",
        at_once: 1,
        save_every: Duration::from_secs(60),
    };
    let scores = score(&on, &settings, None, &mut |_, _| Ok(())).unwrap();
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/snp");
    let ratios = Ratios::read(&recipes.join(format!("{file}.json"))).unwrap();
    let list = ratios.of(&groups_of(graph, ScoredUnit::Channels).unwrap().0).unwrap();
    let on = Planning {
        graph,
        scores: &scores,
        limits: LadderOptions::default(),
        choice: Choice::Ratios(&list, Some(ratios.words())),
        fit: Fit::Nearest,
        method: "snp",
        device: None,
        fingerprint: "f",
        component: None,
        tool: "t",
    };
    plan(&on).unwrap_or_else(|e| panic!("{e}"))
}

/// Size, file, parameters and MACs dense, and as published: the specification's counts (`deit_snp.py`).
const PUBLISHED: &[(&str, &str, [u64; 2], [u64; 2])] = &[
    ("tiny", "deit-tiny", [5_717_416, 1_253_683_200], [3_013_109, 638_230_983]),
    ("small", "deit-small", [22_050_664, 4_598_882_304], [10_056_977, 2_037_024_826]),
    ("small", "deit-small-1.3g", [22_050_664, 4_598_882_304], [6_469_874, 1_265_472_504]),
    ("base", "deit-base", [86_567_656, 17_563_828_224], [31_589_678, 6_322_330_768]),
];

#[test]
fn published_plans_have_the_published_sizes() {
    for (size, file, dense, pruned) in PUBLISHED {
        let width = match *size {
            "tiny" => 192,
            "small" => 384,
            _ => 768,
        };
        for config in [timm(size), transformers("vit", "ViTForImageClassification", width)] {
            let model = bare(&config);
            let p = planned(model.graph().unwrap(), file);
            assert_eq!([p.before.parameters, p.before.macs], *dense, "{file}");
            assert_eq!([p.after.parameters, p.after.macs], *pruned, "{file}");
            assert!(p.target.unwrap().asked.contains("as published"));
        }
    }
}

#[test]
fn a_distilled_deit_loses_its_second_token_s_channels_too() {
    let model = bare(&transformers("deit", "DeiTForImageClassification", 192));
    let p = planned(model.graph().unwrap(), "deit-tiny");
    // The token and its place: 153 channels each of what was 192.
    assert_eq!(p.before.parameters, 5_717_416 + 2 * 192);
    assert_eq!(p.after.parameters, 3_013_109 + 2 * 153);
}

#[test]
fn scales_of_attention_stay_those_of_the_whole_heads() {
    let model = bare(&timm("tiny"));
    let graph = model.graph().unwrap();
    let p = planned(graph, "deit-tiny");
    let (cut, _) = pomona_graph::apply(graph, &p.edits).unwrap();
    let scales: Vec<f64> = cut
        .nodes
        .iter()
        .filter_map(|n| match &n.op {
            pomona_graph::Op::Attention(a) => Some(a.scale),
            _ => None,
        })
        .collect();
    assert_eq!(scales, [0.125; 12]);
    assert_eq!(report(&cut).unwrap().parameters, 3_013_109);
}
