//! Wav2Lip's generator: exact counts of it and its compact form, the compact form as a plan, its inner levels.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../pomona-task/tests/masks/mod.rs"]
mod masks;
#[path = "../../pomona-task/tests/seeded/mod.rs"]
mod seeded;

use std::path::{Path, PathBuf};
use std::time::Duration;

use pomona_exec::{Device, Feeds, Loaded, Options, WeightProvider, evaluate};
use pomona_graph::{Edit, Graph, Plan, Recipe, apply};
use pomona_models::{Model, OutputFormat, SaveOptions, open, representable, save};
use pomona_prune::criteria::filters::{Aggregate, FilterCriterion};
use pomona_prune::methods::filters::{Scoring, open_groups, score};
use pomona_prune::methods::inner_layers::{self, Cut, Share};
use pomona_prune::methods::wav2lip_compact::{Planning, Stays, plan};
use pomona_prune::{
    DataId, FilterScores, FilterSettings, LadderOptions, Sample, Sweep, drop_levels, group_levels, report,
    sweep,
};
use pomona_task::{EditedWeights, ModelWeights, Residence};
use serde_json::{Value, json};

fn config(dir: &Path, config: &Value) -> PathBuf {
    let path = dir.join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A bare config's model. The graph is built; the file may go.
fn bare(value: &Value) -> Model {
    let dir = tempfile::tempdir().unwrap();
    open(config(dir.path(), value)).unwrap()
}

/// Parameters, MACs `full`, MACs `thop`.
fn counts(graph: &Graph) -> (u64, u64, u64) {
    let r = report(graph).unwrap();
    assert_eq!(r.uncounted, []);
    (r.parameters, r.macs.full, r.macs.thop)
}

fn original() -> Value {
    json!({"architecture": "wav2lip"})
}

const ORIGINAL: (u64, u64, u64) = (36_298_035, 3_966_984_192, 6_202_417_152);
const PLAIN: (u64, u64, u64) = (20_061_555, 1_066_229_760, 3_301_662_720);
const COMPACT: (u64, u64, u64) = (1_258_143, 75_002_880, 214_717_440);
const COMPACT_128: (u64, u64, u64) = (1_602_207, 132_461_568, 384_513_024);

/// Integers by `wav2lip_counts.py`.
#[test]
fn counts_are_the_specification_s_to_the_unit() {
    let quarter = json!({"architecture": "wav2lip", "nef": 4, "naf": 8, "ndf": 8});
    let table = [
        (original(), ORIGINAL),
        (json!({"architecture": "wav2lip", "residual": false}), PLAIN),
        (quarter, (2_275_983, 256_300_032, 396_014_592)),
        (json!({"architecture": "nota_wav2lip"}), COMPACT),
        (json!({"architecture": "wav2lip", "x_size": 128}), (41_803_059, 6_979_608_576, 11_012_431_872)),
        (json!({"architecture": "nota_wav2lip", "x_size": 128}), COMPACT_128),
    ];
    for (config, expected) in table {
        assert_eq!(counts(bare(&config).graph().unwrap()), expected, "{config}");
    }
}

fn compact(graph: &Graph, stays: Stays<'_>) -> pomona_prune::Result<Plan> {
    plan(&Planning { graph, stays, component: None, fingerprint: "f", tool: "t" })
}

fn best(criterion: FilterCriterion) -> Stays<'static> {
    Stays::Best { criterion, aggregate: Aggregate::Makers, seed: 7, weights: None }
}

#[test]
fn the_plan_of_a_bare_config_leaves_the_published_network() {
    for (config, expected) in
        [(original(), COMPACT), (json!({"architecture": "wav2lip", "x_size": 128}), COMPACT_128)]
    {
        let model = bare(&config);
        let graph = model.graph().unwrap();
        for stays in [Stays::First, best(FilterCriterion::Random)] {
            let p = compact(graph, stays).unwrap();
            let bypasses = p.edits.iter().filter(|e| matches!(e, Edit::Bypass { .. })).count();
            assert_eq!(bypasses, 28);
            let (edited, _) = apply(graph, &p.edits).unwrap();
            assert_eq!(counts(&edited), expected);
            // The published implementation's config holds it, with all its names.
            representable(&model, &edited).unwrap().unwrap();
            let residuals = apply(graph, &p.edits[..28]).unwrap().0;
            assert_eq!(residuals.nodes.len(), edited.nodes.len());
        }
    }
    let graph = bare(&original());
    let plain = compact(graph.graph().unwrap(), Stays::First).unwrap();
    assert_eq!(counts(&apply(graph.graph().unwrap(), &plain.edits[..28]).unwrap().0), PLAIN);
    let kept = |e: &Edit| match e {
        Edit::Keep { indices, .. } => Some(indices.clone()),
        _ => None,
    };
    assert!(plain.edits.iter().filter_map(kept).all(|kept| (0..kept.len() as u32).eq(kept)));
}

#[test]
fn what_is_no_such_network_is_told() {
    let refused =
        |config: Value, stays| compact(bare(&config).graph().unwrap(), stays).unwrap_err().to_string();
    let message = refused(json!({"architecture": "nota_wav2lip"}), Stays::First);
    assert!(message.contains("residual convolutions") && message.contains("has none"), "{message}");
    let message = refused(json!({"architecture": "wav2lip", "naf": 6}), Stays::First);
    assert!(message.contains("has 6 channels, which have no quarter"), "{message}");
    let message = refused(original(), best(FilterCriterion::L1));
    assert!(message.contains("a bare config has no weights for criterion l1"), "{message}");
    let message = refused(original(), best(FilterCriterion::Taylor));
    assert!(message.contains("needs data and a loss"), "{message}");
}

/// A small generator with seeded weights, and what it is fed. Each unit's signal is larger by `gain`.
fn small(dir: &Path, gain: f32) -> (Model, Feeds) {
    let value = json!({"architecture": "wav2lip", "nef": 8, "naf": 8, "ndf": 8, "torch_dtype": "float32"});
    std::fs::create_dir(dir.join("config")).unwrap();
    let weight = |name: &str, shape: &[usize]| {
        let by = if name.ends_with("running_var") { gain.powi(-2) } else { 1.0 };
        seeded::weight(name, shape).into_iter().map(|v| v * by).collect()
    };
    let source = seeded::checkpoint_of(dir, &config(&dir.join("config"), &value), &weight);
    let model = open(source).unwrap();
    let fed = inputs(model.graph().unwrap());
    (model, fed)
}

fn inputs(graph: &Graph) -> Feeds {
    let text = r#"{"inputs": {"audio_sequences": {"shape": [1, 1, 80, 16]}, "face_sequences": {"shape": [1, 6, 96, 96]}},
        "outputs": {}}"#;
    seeded::feeds(graph, &serde_json::from_str(text).unwrap(), &Device::cpu())
}

/// The output with the residual convolutions skipped and the channels zeroed behind their norms.
fn masked(model: &Model, plan: &Plan, fed: &Feeds) -> Vec<Vec<f32>> {
    let graph = model.graph().unwrap();
    let device = Device::cpu();
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let (shallow, recipe) = apply(graph, &plan.edits[..28]).unwrap();
    // Skipped: each residual convolution's output is fed with its input, along the graph.
    let mut skipped = fed.clone();
    let mut ends: Vec<_> = plan.edits[..28]
        .iter()
        .map(|e| {
            let Edit::Bypass { from, to } = e else { panic!("{e:?}") };
            (graph.find_node(&to.0).unwrap(), graph.resolve(from).unwrap(), graph.resolve(to).unwrap())
        })
        .collect();
    ends.sort();
    for (_, from, to) in ends {
        let value = evaluate(graph, &weights, &skipped, &[from], &Options::default()).unwrap().remove(0);
        skipped.insert(to, value);
    }
    let whole = masks::outputs(graph, &weights, &skipped);
    let made = EditedWeights::new(graph, &weights, (&shallow, &recipe), &device);
    let all = shallow.iter_tensors().map(|(id, _)| (id, made.get(id).unwrap())).collect();
    let held = masks::Held(Loaded(all));
    let fed = inputs(&shallow);
    assert!(masks::gap(&whole, &masks::outputs(&shallow, &held, &fed)) < 1.0, "bypassed is skipped");
    let (edited, recipe): (Graph, Recipe) = apply(&shallow, &plan.edits[28..]).unwrap();
    masks::run_masked(&shallow, &held, (&edited, &recipe), &fed)
}

#[test]
fn pruned_equals_masked_and_loads_as_the_published_network() {
    let dir = tempfile::tempdir().unwrap();
    // A quarter of the channels is a quarter of each sum: twice the gain keeps what is left alive.
    let (model, fed) = small(dir.path(), 2.0);
    let (graph, device) = (model.graph().unwrap(), Device::cpu());
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let dense = masks::outputs(graph, &weights, &fed);
    let mut outputs = Vec::new();
    for criterion in
        [FilterCriterion::L1, FilterCriterion::L2, FilterCriterion::Random, FilterCriterion::BnScale]
    {
        let stays = Stays::Best {
            criterion,
            aggregate: Aggregate::Makers,
            seed: 7,
            weights: Some((&weights, &device)),
        };
        let p = compact(graph, stays).unwrap();
        let masked = masked(&model, &p, &fed);
        let (edited, recipe) = apply(graph, &p.edits).unwrap();
        for format in [OutputFormat::Hf, OutputFormat::Pomona] {
            let out = dir.path().join(format!("{}-{format:?}", criterion.name()));
            let options = SaveOptions { format, ..SaveOptions::default() };
            let saved = save(&model, &edited, &recipe, &options, out, &mut |_, _| {}).unwrap();
            if format == OutputFormat::Hf {
                std::fs::remove_file(saved.path.join("pomona.json")).unwrap();
            }
            let again = open(&saved.path).unwrap();
            let component = again.only().unwrap();
            if format == OutputFormat::Hf {
                let c = &component.config;
                assert_eq!((&c["architecture"], &c["residual"]), (&json!("nota_wav2lip"), &json!(false)));
                assert_eq!((&c["nef"], &c["naf"], &c["ndf"]), (&json!(2), &json!(2), &json!(2)));
                assert!(component.unused.is_empty());
                assert!(component.graph.find_tensor("audio_encoder.5.conv_block.0.weight").is_some());
            }
            let own = ModelWeights::new(component, &device, Residence::Memory);
            let got = masks::outputs(&component.graph, &own, &inputs(&component.graph));
            assert!(masks::gap(&masked, &got) < 1.0, "{criterion:?} {format:?}");
            if format == OutputFormat::Hf {
                assert!(masks::gap(&dense, &got) > 10.0);
                // Speech, which has the longest way, still shows.
                let mut silent = inputs(&component.graph);
                let audio = component.graph.input("audio_sequences").unwrap();
                let zero = pomona_exec::Tensor::full(0.0, &[1, 1, 80, 16], &device).unwrap();
                silent.insert(audio, zero);
                let without = masks::outputs(&component.graph, &own, &silent);
                assert!(masks::gap(&without, &got) > 2.0, "{criterion:?}: {}", masks::gap(&without, &got));
                outputs.push(got);
            }
        }
    }
    // The criteria choose differently.
    assert!(outputs.iter().skip(1).all(|o| o != &outputs[0]));
}

/// Only the best quarter of each width stays, by what is left after the residual convolutions went.
#[test]
fn the_criterion_is_measured_on_what_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _) = small(dir.path(), 1.0);
    let (graph, device) = (model.graph().unwrap(), Device::cpu());
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let stays = Stays::Best {
        criterion: FilterCriterion::L1,
        aggregate: Aggregate::Makers,
        seed: 0,
        weights: Some((&weights, &device)),
    };
    let p = compact(graph, stays).unwrap();
    let name = "face_encoder_blocks.2.0.conv_block.0.weight";
    let values = weights.get(graph.find_tensor(name).unwrap()).unwrap().to_f32().unwrap();
    let sums: Vec<f32> = values.chunks(values.len() / 32).map(|f| f.iter().map(|v| v.abs()).sum()).collect();
    let mut order: Vec<u32> = (0..32).collect();
    order.sort_by(|a, b| sums[*b as usize].total_cmp(&sums[*a as usize]));
    let mut wanted = order[..8].to_vec();
    wanted.sort_unstable();
    let found = p.edits.iter().find_map(|e| match e {
        Edit::Keep { group, indices } if *group == format!("{name}:0") => Some(indices.clone()),
        _ => None,
    });
    assert_eq!(found, Some(wanted));
}

fn random_scores(graph: &Graph) -> FilterScores {
    let none = masks::Held(Loaded::default());
    let on = Scoring {
        graph,
        weights: &none,
        objective: None,
        device: &Device::cpu(),
        fingerprint: "f",
        component: None,
        tool: "t",
        at_once: 1,
        save_every: Duration::ZERO,
    };
    let settings = FilterSettings {
        criterion: FilterCriterion::Random,
        aggregate: Aggregate::Makers,
        samples: 0,
        seed: 7,
        unit: pomona_prune::ScoredUnit::Channels,
        gamma: None,
    };
    score(&on, &settings, None, &mut |_, _| Ok(())).unwrap()
}

/// Integers by `wav2lip_counts.py`: speech belongs to the level of the face that is next coarser.
#[test]
fn inner_levels_of_both_branches_are_cut_with_exact_counts() {
    let model = bare(&original());
    let graph = model.graph().unwrap();
    let scores = random_scores(graph);
    let table = [
        (3, 0.25, (21_629_763, 3_522_843_648, 5_433_209_856)),
        (3, 0.75, (4_587_363, 2_974_872_576, 4_404_532_224)),
        (4, 0.50, (14_720_883, 3_656_294_400, 5_624_537_088)),
        (5, 0.25, (28_466_739, 3_928_190_976, 6_115_258_368)),
        (5, 0.50, (22_429_491, 3_896_500_224, 6_039_920_640)),
        (5, 0.75, (18_186_291, 3_871_911_936, 5_976_403_968)),
        (6, 0.50, (31_575_603, 3_962_265_600, 6_178_824_192)),
    ];
    for (from, ratio, expected) in table {
        let limits = LadderOptions::default();
        let on = inner_layers::Planning {
            graph,
            drop: 0,
            cut: Some(Cut { scores: &scores, limits, from, share: Share::Ratio(ratio) }),
            device: None,
            fingerprint: "f",
            component: None,
            tool: "t",
        };
        let p = inner_layers::plan(&on).unwrap();
        assert_eq!(counts(&apply(graph, &p.edits).unwrap().0), expected, "level {from} on, {ratio}");
    }
    let groups = open_groups(graph).unwrap();
    let levels = group_levels(graph, &groups).unwrap();
    let level = |path: &str| {
        let makes = |g: &&pomona_graph::ChannelGroup| g.makers(graph).any(|(_, p)| p == path);
        levels[groups.iter().position(|g| makes(&g)).unwrap()]
    };
    for (path, wanted) in [
        ("face_encoder_blocks.0.0.conv_block.0", 0),
        ("face_encoder_blocks.5.1.conv_block.0", 5),
        ("face_encoder_blocks.6.1.conv_block.0", 6),
        ("audio_encoder.0.conv_block.0", 2),
        ("audio_encoder.3.conv_block.0", 3),
        ("audio_encoder.12.conv_block.0", 6),
        ("face_decoder_blocks.0.0.conv_block.0", 6),
        ("face_decoder_blocks.6.0.conv_block.0", 0),
    ] {
        assert_eq!(level(path), Some(wanted), "{path}");
    }
    let message = drop_levels(graph, 1).unwrap_err().to_string();
    assert!(message.contains("`audio_sequences` only within the 1 innermost levels"), "{message}");
}

#[test]
fn the_sweep_measures_every_layer_of_both_branches() {
    let dir = tempfile::tempdir().unwrap();
    let (model, fed) = small(dir.path(), 1.0);
    let (graph, device) = (model.graph().unwrap(), Device::cpu());
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let scores = random_scores(graph);
    let sample: Sample = graph.inputs.iter().map(|p| (p.name.clone(), fed[&p.value].clone())).collect();
    let on = Sweep {
        graph,
        weights: &weights,
        scores: &scores,
        samples: &[sample],
        data: DataId { fingerprint: "d".into(), source: "noise".into() },
        device: &device,
    };
    let found = sweep(&on, &[0.5], None, &mut |_, _| Ok(())).unwrap();
    // Eight widths of the face's encoder, six of speech, seven of the decoder, one of the output.
    assert_eq!(found.rows.len(), 22);
    assert!(found.rows.iter().all(|r| r.removed * 2 == r.of && r.level.is_some()));
    let blind: Vec<&str> = found.rows.iter().filter(|r| r.l1 < 1e-6).map(|r| r.layer.as_str()).collect();
    assert!(blind.is_empty(), "{blind:?} do not show in the output");
}

#[test]
fn cut_inner_levels_equal_masked_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (model, fed) = small(dir.path(), 1.0);
    let (graph, device) = (model.graph().unwrap(), Device::cpu());
    let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
    let held =
        masks::Held(Loaded(graph.iter_tensors().map(|(id, _)| (id, weights.get(id).unwrap())).collect()));
    let scores = random_scores(graph);
    for (from, ratio) in [(6, 0.5), (5, 0.5), (3, 0.75), (0, 0.25)] {
        let on = inner_layers::Planning {
            graph,
            drop: 0,
            cut: Some(Cut {
                scores: &scores,
                limits: LadderOptions::default(),
                from,
                share: Share::Ratio(ratio),
            }),
            device: None,
            fingerprint: "f",
            component: None,
            tool: "t",
        };
        let p = inner_layers::plan(&on).unwrap();
        let (edited, recipe) = apply(graph, &p.edits).unwrap();
        let cut = masks::run_cut(graph, &held, (&edited, &recipe), &fed);
        let masked = masks::run_masked(graph, &held, (&edited, &recipe), &fed);
        assert!(masks::gap(&masked, &cut) < 1.0, "{from} {ratio}");
        assert!(masks::gap(&masks::outputs(graph, &held, &fed), &cut) > 10.0, "{from} {ratio}");
    }
}
