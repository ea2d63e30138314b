//! PyTorch files as models (`state_dict/make_files.py`): with a config beside them they run, without one their tensors are cut.
#![allow(clippy::unwrap_used, reason = "tests")]

mod seeded;

use std::path::{Path, PathBuf};

use pomona_exec::Device;
use pomona_graph::{Edit, apply};
use pomona_models::{Model, OutputFormat, SaveOptions, SourceKind, open, save};
use seeded::{assert_close, feeds, golden, output};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state_dict").join(name)
}

fn network() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vision/resnet_cifar_a")
}

/// A copy of a file, and the network's config under a name beside it.
fn beside(name: &str, config: Option<&str>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::copy(file(name), &path).unwrap();
    if let Some(config) = config {
        std::fs::copy(network().join("config.json"), dir.path().join(config)).unwrap();
    }
    (dir, path)
}

fn gives_the_golden(model: &Model) {
    let golden = golden(&network());
    let component = model.only().unwrap();
    let feeds = feeds(&component.graph, &golden, &Device::cpu());
    for (name, wanted) in &golden.outputs {
        let got = output(component, &feeds, name).to_f32().unwrap();
        assert_close(&got, &wanted.values, &model.path.display().to_string());
    }
}

#[test]
fn a_config_beside_the_file_makes_it_run() {
    for (name, config) in [
        ("net.th", "net.json"),
        ("net.th", "config.json"),
        ("net.pth", "net.json"),
        ("net.pth", "config.json"),
    ] {
        let (dir, path) = beside(name, Some(config));
        let model = open(&path).unwrap();
        assert_eq!(model.source, SourceKind::StateDict);
        assert_eq!(model.architecture, "resnet20");
        assert!(model.left_over().is_empty(), "{:?}", model.left_over());
        gives_the_golden(&model);
        if config == "config.json" {
            gives_the_golden(&open(dir.path()).unwrap());
        }
    }
}

#[test]
fn a_cut_file_is_saved_as_safetensors_and_equals_the_cut_original() {
    let (dir, path) = beside("net.th", Some("net.json"));
    let model = open(&path).unwrap();
    let graph = model.graph().unwrap();
    let group = pomona_graph::channel_groups(graph)
        .unwrap()
        .into_iter()
        .find(|g| g.name == "layer3.0.conv1.weight:0")
        .unwrap();
    let edits = pomona_graph::keep_edits(graph, std::slice::from_ref(&group), &[(0, vec![0, 3, 9])].into());
    assert!(matches!(edits.as_slice(), [Edit::Keep { .. }]));
    let (edited, recipe) = apply(graph, &edits).unwrap();
    let saved =
        save(&model, &edited, &recipe, &SaveOptions::default(), dir.path().join("out"), &mut |_, _| {})
            .unwrap();
    assert_eq!(saved.format, OutputFormat::Pomona);
    let again = open(&saved.path).unwrap();
    let (whole, cut) = (model.only().unwrap(), again.only().unwrap());
    let row = whole.graph.tensors.iter().find(|t| t.name == "layer3.0.conv1.weight").unwrap();
    let n = row.shape[1..].iter().product::<usize>();
    let (before, after) = (whole.materialise(&row.name).unwrap(), cut.materialise(&row.name).unwrap());
    let wanted: Vec<f32> = [0, 3, 9].iter().flat_map(|r| before[r * n..(r + 1) * n].to_vec()).collect();
    assert_eq!(after, wanted);
}

#[test]
fn without_a_config_the_tensors_are_known() {
    let (dir, path) = beside("net.th", None);
    let model = open(&path).unwrap();
    assert!(model.is_opaque());
    assert_eq!(model.architecture, "state dict");
    let parameters = model.graph().unwrap().parameters();
    let known = open(network().join("config.json")).unwrap();
    let wanted = known.graph().unwrap().parameters();
    assert_eq!(parameters, wanted);
    assert_eq!(open(dir.path()).unwrap().fingerprint().unwrap(), model.fingerprint().unwrap());
    // Another tool's config.json does not stand in the way; one under the file's own name must name a network.
    std::fs::write(dir.path().join("config.json"), r#"{"optimizer": "sgd"}"#).unwrap();
    assert!(open(&path).unwrap().is_opaque());
    std::fs::write(dir.path().join("net.json"), r#"{"optimizer": "sgd"}"#).unwrap();
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("net.json"), "{message}");
    std::fs::write(dir.path().join("net.json"), r#"{"architecture": "resnet56"}"#).unwrap();
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("layer1.0.conv1.weight") || message.contains("conv1.weight"), "{message}");
    assert!(message.contains("the config asks for"), "{message}");
}

#[test]
fn pickled_modules_are_refused_with_what_to_do() {
    let message = open(file("module.pth")).unwrap_err().to_string();
    assert!(message.contains("module.pth") && message.contains("state_dict"), "{message}");
}
