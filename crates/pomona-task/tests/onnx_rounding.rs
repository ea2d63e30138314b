//! Rounding that was annotated in the graph goes out as pairs of QuantizeLinear and DequantizeLinear, and what is written computes what
//! our executor simulates. With POMONA_ONNX_OUT=DIR files and outputs are kept there for ONNX Runtime (`scripts/check_onnx.py --cases DIR`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod kept;

use std::collections::BTreeMap;
use std::path::Path;

use kept::keep;
use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Annotation, Graph, Op, QuantTarget, Recipe, Slot};
use pomona_models::{Component, Model, OutputFormat, SaveOptions, open, save};
use pomona_store::Checkpoint;
use pomona_task::{ModelWeights, Residence};

fn note(
    target: QuantTarget,
    axis: Option<usize>,
    scales: Vec<f32>,
    (bits, signed, zero): Width,
) -> Annotation {
    let zero_points = if zero == 0 { Vec::new() } else { vec![zero; scales.len()] };
    Annotation::Quantisation { target, bits, signed, axis, block: None, scales, zero_points }
}

/// Bits, signed, zero point.
type Width = (u8, bool, i32);

/// Every weight a channel at a time (by turns over all of it), values before the first operator with weights and after the last.
fn annotate(model: &Model, weight: Width, value: Width) -> Graph {
    let mut graph = model.graph().unwrap().clone();
    let weighed: Vec<_> = graph
        .nodes
        .iter()
        .filter(|n| matches!(n.op, Op::Linear { .. } | Op::Conv { .. } | Op::ConvTranspose { .. }))
        .cloned()
        .collect();
    assert!(weighed.len() > 2);
    for (i, node) in weighed.iter().enumerate() {
        let t = graph.tensor(node.weights[&Slot::Weight]).clone();
        let values = model.materialise(&t.name).unwrap();
        let steps = (1_u32 << (weight.0 - 1)) as f32 - 1.0;
        let largest = |v: &[f32]| v.iter().fold(1e-6_f32, |m, x| m.max(x.abs())) / steps;
        let (axis, scales) = match i % 2 {
            0 => (Some(0), values.chunks(values.len() / t.shape[0]).map(largest).collect()),
            _ => (None, vec![largest(&values)]),
        };
        let mut notes = vec![note(QuantTarget::Weight, axis, scales, weight)];
        let step = if value.0 == 8 { 0.03 } else { 0.003 };
        if i == 0 {
            notes.push(note(QuantTarget::Input(0), None, vec![step], value));
        }
        if i + 1 == weighed.len() {
            notes.push(note(QuantTarget::Output(0), None, vec![step], value));
        }
        graph.annotations.insert(node.path.clone(), notes);
    }
    graph
}

fn run(component: &Component, graph: &Graph, golden: &Checkpoint) -> Vec<Tensor> {
    let device = Device::cpu();
    let feed = |p: &pomona_graph::Port| {
        let info = golden.info(&format!("in.{}", p.name)).unwrap();
        (p.value, Tensor::from_f32(golden.decode(info).unwrap(), &info.shape, &device).unwrap())
    };
    let feeds: Feeds = graph.inputs.iter().map(feed).collect();
    let wanted: Vec<_> = graph.outputs.iter().map(|p| p.value).collect();
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    evaluate(graph, &weights, &feeds, &wanted, &Options::default()).unwrap()
}

fn gap(a: &[f32], b: &[f32]) -> f32 {
    let scale = a.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / (1e-4 * scale)
}

#[test]
fn annotated_rounding_is_written_and_read_again() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/onnx");
    let byte: Width = (8, true, 0);
    for (name, opset, weight, value) in [
        ("cnn_opset13", 17, byte, (8, false, 128)),
        ("cnn_opset13", 22, byte, (8, true, -3)),
        ("cnn_opset13", 22, (16, true, 0), (16, false, 32768)),
        ("vit", 17, byte, (8, false, 128)),
        ("vit", 22, byte, (16, true, 5)),
    ] {
        let case = format!("rounded_{name}_{opset}_{}_{}", weight.0, value.0);
        let model = open(goldens.join(format!("{name}.onnx"))).unwrap();
        let golden = Checkpoint::open(goldens.join(format!("{name}.safetensors"))).unwrap();
        let (component, graph) = (model.only().unwrap(), annotate(&model, weight, value));
        let plain = run(component, model.graph().unwrap(), &golden).remove(0);
        let want = run(component, &graph, &golden).remove(0);
        let (plain, values) = (plain.to_f32().unwrap(), want.to_f32().unwrap());
        let moved = gap(&plain, &values);
        assert!(moved > 1.0, "{case}: rounding changes nothing ({moved})");
        let recipe = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
        let options =
            SaveOptions { format: OutputFormat::Onnx, opset: Some(opset), ..SaveOptions::default() };
        let dir = tempfile::tempdir().unwrap();
        let out = save(&model, &graph, &recipe, &options, dir.path().join("out"), &mut |_, _| {}).unwrap();
        let file = out.path.join("model.onnx");
        let again = open(&file).unwrap();
        let found = again.graph().unwrap();
        let count = |g: &Graph| g.annotations.values().flatten().count();
        assert_eq!(count(found), count(&graph), "{case}");
        let got = run(again.only().unwrap(), found, &golden).remove(0);
        let share = gap(&values, &got.to_f32().unwrap());
        assert!(share <= moved / 10.0 && share <= 1.0, "{case}: {share} times the tolerance");
        println!(
            "{case}: {} annotations, moves the output by {moved:.0} tolerances, again within {share:.3}",
            count(&graph)
        );
        let given: BTreeMap<String, Tensor> = graph
            .inputs
            .iter()
            .map(|p| {
                let info = golden.info(&format!("in.{}", p.name)).unwrap();
                let t = Tensor::from_f32(golden.decode(info).unwrap(), &info.shape, &Device::cpu());
                (p.name.clone(), t.unwrap())
            })
            .collect();
        let expected = BTreeMap::from([(graph.outputs[0].name.clone(), (want.shape().to_vec(), values))]);
        keep(&case, &file, &given, &expected);
    }
}

#[test]
fn rounding_that_the_operator_set_lacks_is_refused_by_node() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/onnx");
    let model = open(goldens.join("cnn_opset13.onnx")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (weight, value) in [((4, true, 0), (8, true, 0)), ((16, true, 0), (16, true, 0))] {
        let graph = annotate(&model, weight, value);
        let recipe = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
        let options = SaveOptions { format: OutputFormat::Onnx, opset: Some(17), ..SaveOptions::default() };
        let out = dir.path().join("out");
        let message = match save(&model, &graph, &recipe, &options, &out, &mut |_, _| {}) {
            Ok(_) => panic!("{} bits were written", weight.0),
            Err(e) => e.to_string(),
        };
        let bits = format!("rounded to {} bits, which operator set 17 does not have", weight.0);
        assert!(message.contains("`c1`") && message.contains(&bits), "{message}");
        assert!(!out.exists());
        // Nobody said which operator set: the oldest that has the rounding, if any.
        let options = SaveOptions { opset: None, ..options };
        match save(&model, &graph, &recipe, &options, &out, &mut |_, _| {}) {
            Ok(written) => {
                let again = open(written.path.join("model.onnx")).unwrap();
                assert_eq!((weight.0, &again.only().unwrap().config["onnx"]["opset"]), (16, &21.into()));
            }
            Err(_) => assert_eq!(weight.0, 4),
        }
    }
}
