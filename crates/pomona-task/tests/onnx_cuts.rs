//! ONNX files in, random cuts of their channels, ONNX files out: the output computes what the masked source does. With
//! POMONA_ONNX_OUT=DIR outputs and what they must compute are kept there for `scripts/check_onnx.py --cases DIR`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod kept;
mod masks;

use std::path::{Path, PathBuf};

use masks::{gap, held, outputs, random_cut, run_cut, run_masked};
use pomona_exec::{Device, Feeds, Tensor};
use pomona_graph::{Graph, GraphError, ValueType, apply, channel_groups};
use pomona_models::{Model, OutputFormat, SaveOptions, open, save};
use pomona_store::Checkpoint;
use pomona_task::{ModelWeights, Residence};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const CUTS: u64 = 12;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/onnx")
}

fn feeds(graph: &Graph, golden: &Checkpoint) -> Feeds {
    let device = Device::cpu();
    let feed = |p: &pomona_graph::Port| {
        let info = golden.info(&format!("in.{}", p.name)).unwrap();
        let values = golden.decode(info).unwrap();
        let tensor = match graph.value(p.value).ty {
            ValueType::Int => {
                Tensor::from_i64(values.iter().map(|v| *v as i64).collect(), &info.shape, &device)
            }
            _ => Tensor::from_f32(values, &info.shape, &device),
        };
        (p.value, tensor.unwrap())
    };
    graph.inputs.iter().map(feed).collect()
}

/// Inputs as they are and outputs as they must be, beside a copy of the file.
fn keep(name: &str, file: &Path, golden: &Checkpoint, graph: &Graph, expected: &[Vec<f32>]) {
    kept::keep_items(name, file, || {
        let mut items = kept::inputs(golden);
        for (port, values) in graph.outputs.iter().zip(expected) {
            let name = format!("out.{}", port.name);
            let shape = &golden.info(&name).unwrap().shape;
            items.push(kept::floats(name, shape, values));
        }
        items
    });
}

fn run(model: &Model, golden: &Checkpoint) -> Vec<Vec<f32>> {
    let component = model.only().unwrap();
    let weights = ModelWeights::new(component, &Device::cpu(), Residence::Memory);
    outputs(&component.graph, &weights, &feeds(&component.graph, golden))
}

fn check(name: &str) {
    let path = goldens().join(format!("{name}.onnx"));
    let golden = Checkpoint::open(path.with_extension("safetensors")).unwrap();
    let model = open(&path).unwrap();
    let component = model.only().unwrap();
    let graph = &component.graph;
    let groups = channel_groups(graph).unwrap();
    assert!(!groups.is_empty(), "{name} has nothing that can be cut");
    let weights = held(graph, |tensor, _| component.materialise(tensor).unwrap());
    let given = feeds(graph, &golden);
    let scratch = tempfile::tempdir().unwrap();
    let mut made = 0;
    for seed in 0..CUTS {
        let edits = random_cut(graph, &groups, &mut ChaCha8Rng::seed_from_u64(seed));
        let (edited, recipe) = match apply(graph, &edits) {
            Ok(found) if !edits.is_empty() => found,
            Ok(_) | Err(GraphError::Edit { .. }) => continue,
            Err(e) => panic!("{name}, cut {seed}: {e}"),
        };
        let masked = run_masked(graph, &weights, (&edited, &recipe), &given);
        let cut = run_cut(graph, &weights, (&edited, &recipe), &given);
        assert!(gap(&masked, &cut) < 1.0, "{name}, cut {seed}");
        let options =
            SaveOptions { opset: Some(if seed % 2 == 0 { 17 } else { 21 }), ..SaveOptions::default() };
        let out = scratch.path().join(seed.to_string());
        let out = save(&model, &edited, &recipe, &options, out, &mut |_, _| {}).unwrap();
        assert_eq!(out.format, OutputFormat::Onnx, "{name}");
        let file = out.path.join("model.onnx");
        let again = run(&open(&file).unwrap(), &golden);
        assert!(gap(&masked, &again) < 1.0, "{name}, cut {seed} as a file");
        assert!(
            gap(&masked, &run(&open(&out.path).unwrap(), &golden)) < 1.0,
            "{name}, cut {seed} with its manifest"
        );
        keep(&format!("cut_{name}_{seed}"), &file, &golden, graph, &masked);
        made += 1;
    }
    println!("{name}: {made} of {CUTS} cuts of {} groups", groups.len());
    assert!(made > 2, "{name}: {made} cuts made");
}

#[test]
fn cut_convolutional_networks_equal_the_masked_ones() {
    for name in ["cnn_opset7", "cnn_opset13", "cnn_opset22", "nhwc", "gan", "unet", "external", "qdq"] {
        check(name);
    }
}

#[test]
fn cut_transformers_equal_the_masked_ones() {
    for name in ["vit", "vit_fused", "vit_static", "text"] {
        check(name);
    }
}

#[test]
fn cut_speech_networks_equal_the_masked_ones() {
    check("speech");
}
