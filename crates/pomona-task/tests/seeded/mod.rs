//! Weights and inputs as a function of their name, as `diffusers/seeded.py` makes them, and goldens that use them.
#![allow(dead_code, clippy::unwrap_used, reason = "tests; each file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Edit, Graph, ValueType, apply, region_at};
use pomona_models::{Component, Model, OutputFormat, SaveOptions, open, save};
use pomona_store::{Encoding, OutputDir, OutputOptions, SafetensorsWriter, TensorSink, TensorSpec};
use pomona_task::{ModelWeights, Residence};
use serde::Deserialize;

/// Numbers in [-1, 1): splitmix64 from the FNV-1a hash of the name, upper 24 bits.
pub fn uniform(name: &str, n: usize) -> Vec<f32> {
    let seed = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
    let number = |i: u64| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (1..=n as u64).map(number).collect()
}

/// Matrices and kernels of about unit gain, norms around 1, small biases.
pub fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let u = uniform(name, shape.iter().product());
    let (factor, offset) = match shape {
        [_, _, ..] => ((1.5 / (shape[1..].iter().product::<usize>() as f64).sqrt()) as f32, 0.0),
        // Deep plain networks: signals must not fade on their way.
        _ if name.ends_with(".conv_block.1.running_var") => (0.125, 0.5),
        _ if name.ends_with(".weight") || name.ends_with(".running_var") => (0.25, 1.0),
        _ => (0.125, 0.0),
    };
    u.into_iter().map(|v| offset + v * factor).collect()
}

/// A directory with the config and the weights of its graph.
pub fn checkpoint(dir: &Path, config: &Path) -> PathBuf {
    checkpoint_of(dir, config, &weight)
}

/// The same with weights of another rule, by name and shape.
pub fn checkpoint_of(dir: &Path, config: &Path, weight: &dyn Fn(&str, &[usize]) -> Vec<f32>) -> PathBuf {
    let model = open(config).unwrap();
    let mut out = OutputDir::create(dir.join("source"), &OutputOptions::default()).unwrap();
    let tensors = &model.graph().unwrap().tensors;
    let spec = |t: &pomona_graph::TensorDef| TensorSpec {
        name: t.name.clone(),
        encoding: Encoding::F32,
        shape: t.shape.clone(),
    };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let mut sink =
        SafetensorsWriter::new(&mut out, "model", specs.clone(), u64::MAX, &BTreeMap::new()).unwrap();
    for (i, s) in specs.iter().enumerate() {
        assert!(sink.begin(i).unwrap());
        let bytes: Vec<u8> = weight(&s.name, &s.shape).into_iter().flat_map(f32::to_le_bytes).collect();
        sink.write(&bytes).unwrap();
        sink.end().unwrap();
    }
    sink.finish().unwrap();
    drop(sink);
    out.write("config.json", &std::fs::read(config).unwrap()).unwrap();
    out.commit().unwrap()
}

#[derive(Deserialize)]
pub struct Golden {
    pub inputs: BTreeMap<String, Input>,
    pub outputs: BTreeMap<String, Output>,
}

/// Given numbers, or those of the input's name.
#[derive(Deserialize)]
pub struct Input {
    pub shape: Vec<usize>,
    pub values: Option<Vec<f32>>,
    pub ints: Option<Vec<i64>>,
}

#[derive(Deserialize)]
pub struct Output {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub fn golden(folder: &Path) -> Golden {
    serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap()
}

/// The golden's inputs that the graph has.
pub fn feeds(graph: &Graph, golden: &Golden, device: &Device) -> Feeds {
    let mut feeds = Feeds::default();
    for (name, input) in &golden.inputs {
        let id = graph.input(name).unwrap();
        let tensor = match (&input.ints, &input.values) {
            (Some(ints), _) => Tensor::from_i64(ints.clone(), &input.shape, device),
            (_, Some(values)) => Tensor::from_f32(values.clone(), &input.shape, device),
            _ => {
                let drawn = uniform(&format!("input:{name}"), input.shape.iter().product());
                Tensor::from_f32(drawn.into_iter().map(|v| v * 1.5).collect(), &input.shape, device)
            }
        };
        assert_eq!(graph.value(id).ty == ValueType::Int, input.ints.is_some(), "{name}");
        feeds.insert(id, tensor.unwrap());
    }
    feeds
}

/// The named output for given feeds.
pub fn output(component: &Component, feeds: &Feeds, name: &str) -> Tensor {
    let device = Device::cpu();
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    let wanted = component.graph.output(name).unwrap();
    evaluate(&component.graph, &weights, feeds, &[wanted], &Options::default()).unwrap().remove(0)
}

pub fn assert_close(got: &[f32], want: &[f32], what: &str) {
    let scale = want.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
    let gap = got.iter().zip(want).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert_eq!(got.len(), want.len(), "{what}");
    assert!(gap <= 1e-4 * scale, "{what}: largest gap {gap} at scale {scale}");
}

/// A golden's network gives the golden's outputs.
pub fn check(folder: &Path) -> (tempfile::TempDir, Model, Golden) {
    let dir = tempfile::tempdir().unwrap();
    let model = open(checkpoint(dir.path(), &folder.join("config.json"))).unwrap();
    let golden = golden(folder);
    let component = model.only().unwrap();
    let feeds = feeds(&component.graph, &golden, &Device::cpu());
    for (name, wanted) in &golden.outputs {
        let got = output(component, &feeds, name);
        assert_eq!(got.shape(), wanted.shape, "{} {name}", folder.display());
        assert_close(&got.to_f32().unwrap(), &wanted.values, &format!("{} {name}", folder.display()));
    }
    (dir, model, golden)
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
pub fn pruned_equals_masked(folder: &Path, parts: &[&str], format: OutputFormat) {
    let (dir, model, golden) = check(folder);
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
    assert_eq!(got.to_f32().unwrap(), wanted.to_f32().unwrap(), "{} without {parts:?}", folder.display());
}
