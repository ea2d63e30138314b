//! Every architecture goes out as ONNX and comes back equal to its reference library. With POMONA_ONNX_OUT=DIR the files and
//! what they must compute are kept there (`NAME/model.onnx`, `NAME/case.safetensors`) for `scripts/check_onnx.py --cases DIR`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod kept;
mod seeded;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kept::keep;
use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Graph, Recipe, ValueId};
use pomona_models::{Model, OutputFormat, SaveOptions, open, save};
use pomona_task::{ModelWeights, Residence, empty_states, token_feeds};
use seeded::{assert_close, check, feeds};

/// Written and opened again without the manifest, as any other program sees it.
fn round_trip(model: &Model, dir: &Path, opset: u32) -> (PathBuf, Model) {
    let graph = model.graph().unwrap();
    let recipe = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
    let options = SaveOptions { format: OutputFormat::Onnx, opset: Some(opset), ..SaveOptions::default() };
    let out =
        save(model, graph, &recipe, &options, dir.join(format!("onnx{opset}")), &mut |_, _| {}).unwrap();
    let file = out.path.join("model.onnx");
    let again = open(&file).unwrap();
    (file, again)
}

/// Ports by name: a state goes in under its name and comes out as `NAME.next`.
fn named(graph: &Graph, feeds: &Feeds) -> BTreeMap<String, Tensor> {
    let ports = graph.inputs.iter().map(|p| (p.name.clone(), p.value));
    let all = ports.chain(graph.states.iter().map(|s| (s.name.clone(), s.input)));
    all.map(|(name, v)| (name, feeds[&v].clone())).collect()
}

/// An output that has an input's name gets another in ONNX.
fn out_name(graph: &Graph, name: &str) -> String {
    if graph.input(name).is_some() { format!("out_{name}") } else { name.to_owned() }
}

fn run(model: &Model, given: &BTreeMap<String, Tensor>, wanted: &[String]) -> Vec<Tensor> {
    let component = model.only().unwrap();
    let graph = &component.graph;
    let feeds: Feeds = graph.inputs.iter().map(|p| (p.value, given[&p.name].clone())).collect();
    let wanted: Vec<ValueId> = wanted.iter().map(|n| graph.output(&out_name(graph, n)).unwrap()).collect();
    let weights = ModelWeights::new(component, &Device::cpu(), Residence::Memory);
    evaluate(graph, &weights, &feeds, &wanted, &Options::default()).unwrap()
}

fn all(area: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(area);
    let mut count = 0;
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    for folder in
        folders.iter().filter(|f| f.join("config.json").is_file() && f.join("expected.json").is_file())
    {
        let name = format!("{area}_{}", folder.file_name().unwrap().to_string_lossy());
        let (dir, model, golden) = check(folder);
        let graph = model.graph().unwrap();
        let given = named(graph, &feeds(graph, &golden, &Device::cpu()));
        let wanted: Vec<String> = golden.outputs.keys().cloned().collect();
        for opset in [17, 22] {
            let (file, again) = round_trip(&model, dir.path(), opset);
            for (name, got) in wanted.iter().zip(run(&again, &given, &wanted)) {
                let golden = &golden.outputs[name];
                assert_eq!(got.shape(), golden.shape, "{} {name}", folder.display());
                assert_close(
                    &got.to_f32().unwrap(),
                    &golden.values,
                    &format!("{} {name} {opset}", folder.display()),
                );
            }
            let expected =
                golden.outputs.iter().map(|(n, o)| (n.clone(), (o.shape.clone(), o.values.clone())));
            keep(&format!("{name}_{opset}"), &file, &given, &expected.collect());
        }
        let (whole, again) = (graph.parameters(), open(dir.path().join("onnx17/model.onnx")).unwrap());
        let found = again.graph().unwrap();
        println!(
            "{name}: {} operators and {whole} parameters, {} and {} read again",
            graph.nodes.len(),
            found.nodes.len(),
            found.parameters()
        );
        count += 1;
    }
    assert!(count > 1, "no goldens in {area}");
}

#[test]
fn diffusers_networks_come_back() {
    all("diffusers");
}

#[test]
fn vision_networks_and_text_encoders_come_back() {
    all("vision");
}

#[test]
fn gans_come_back() {
    all("gan");
}

#[test]
fn language_models_come_back_with_their_caches() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-models/tests/goldens");
    let mut count = 0;
    for entry in std::fs::read_dir(goldens).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("config.json").is_file() || !folder.join("expected.json").is_file() {
            continue;
        }
        let Ok(model) = open(&folder) else { continue };
        let graph = model.graph().unwrap();
        let (Some(_), Some(logits)) = (graph.input("input_ids"), graph.output("logits")) else { continue };
        let device = Device::cpu();
        let mut feeds = token_feeds(graph, &[&[3, 7, 1, 9, 4]], 0, &device).unwrap();
        feeds.extend(empty_states(graph, 1, &device).unwrap());
        let weights = ModelWeights::new(model.only().unwrap(), &device, Residence::Memory);
        let states: Vec<ValueId> = graph.states.iter().map(|s| s.output).collect();
        let wanted: Vec<ValueId> = std::iter::once(logits).chain(states).collect();
        let values = evaluate(graph, &weights, &feeds, &wanted, &Options::default()).unwrap();
        let names = std::iter::once("logits".to_owned())
            .chain(graph.states.iter().map(|s| format!("{}.next", s.name)));
        let names: Vec<String> = names.collect();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let scratch = tempfile::tempdir().unwrap();
        let (file, again) = round_trip(&model, scratch.path(), 17);
        let given = named(graph, &feeds);
        for ((got, want), what) in run(&again, &given, &names).iter().zip(&values).zip(&names) {
            assert_eq!(got.shape(), want.shape(), "{name} {what}");
            assert_close(&got.to_f32().unwrap(), &want.to_f32().unwrap(), &format!("{name} {what}"));
        }
        let expected =
            names.iter().zip(&values).map(|(n, t)| (n.clone(), (t.shape().to_vec(), t.to_f32().unwrap())));
        keep(&format!("text_{name}"), &file, &given, &expected.collect());
        println!("{name}: {} states", graph.states.len());
        count += 1;
    }
    assert!(count > 1);
}
