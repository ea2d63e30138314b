//! ONNX files against ONNX Runtime: goldens made by `goldens/onnx/make.py`, and with POMONA_ONNX_CASES=DIR files of any
//! size in the same form (`NAME.onnx` beside `NAME.safetensors` with `in.*` and `out.*`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Annotation, Op, Recipe, ValueType};
use pomona_models::{Component, Model, OutputFormat, SaveOptions, open, save};
use pomona_store::Checkpoint;
use pomona_task::{ModelWeights, Residence};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/onnx")
}

fn cases(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut out: Vec<PathBuf> = files
        .filter(|p| p.extension().is_some_and(|e| e == "onnx") && p.with_extension("safetensors").is_file())
        .collect();
    out.sort();
    out
}

/// Largest distance of an output to ONNX Runtime's, in units of what counts as close.
fn distance(component: &Component, golden: &Checkpoint) -> Result<f32, String> {
    let (graph, device) = (&component.graph, Device::cpu());
    let mut feeds = Feeds::default();
    for port in &graph.inputs {
        let info = golden.info(&format!("in.{}", port.name)).map_err(|e| e.to_string())?;
        let values = golden.decode(info).unwrap();
        let tensor = match graph.value(port.value).ty {
            ValueType::Float => Tensor::from_f32(values, &info.shape, &device),
            ValueType::Int => {
                Tensor::from_i64(values.iter().map(|v| *v as i64).collect(), &info.shape, &device)
            }
            ValueType::Bool => {
                Tensor::from_bool(values.iter().map(|v| *v != 0.0).collect(), &info.shape, &device)
            }
        };
        feeds.insert(port.value, tensor.unwrap());
    }
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    let wanted: Vec<_> = graph.outputs.iter().map(|p| p.value).collect();
    let got = evaluate(graph, &weights, &feeds, &wanted, &Options::default()).map_err(|e| e.to_string())?;
    let mut worst = 0.0_f32;
    for (port, tensor) in graph.outputs.iter().zip(got) {
        let info = golden.info(&format!("out.{}", port.name)).map_err(|e| e.to_string())?;
        let want = golden.decode(info).unwrap();
        if tensor.shape() != info.shape {
            return Err(format!("{}: shape {:?}, {:?} was expected", port.name, tensor.shape(), info.shape));
        }
        let got: Vec<f32> = match tensor.kind() {
            pomona_exec::Kind::Float => tensor.to_f32().unwrap(),
            pomona_exec::Kind::Int => tensor.as_i64().unwrap().iter().map(|v| *v as f32).collect(),
            pomona_exec::Kind::Bool => {
                tensor.as_bool().unwrap().iter().map(|v| f32::from(u8::from(*v))).collect()
            }
        };
        let scale = want.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
        let gap = got.iter().zip(&want).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        worst = worst.max(gap / (1e-4 * scale));
    }
    Ok(worst)
}

/// Writes the model as ONNX and opens what was written without its manifest, as any other program sees it.
fn again(path: &Path, opset: u32, dir: &Path) -> Result<Model, String> {
    let text = |e: pomona_models::ModelError| e.to_string();
    let model = open(path).map_err(text)?;
    let graph = model.graph().map_err(text)?;
    let recipe = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
    let options = SaveOptions { format: OutputFormat::Onnx, opset: Some(opset), ..SaveOptions::default() };
    let out = save(&model, graph, &recipe, &options, dir.join(format!("out{opset}")), &mut |_, _| {});
    let out = out.map_err(text)?.path;
    let again = open(out.join("model.onnx")).map_err(|e| format!("operator set {opset}: {e}"))?;
    // Open sizes keep their names.
    let ports = |m: &Model| {
        let graph = m.graph().unwrap();
        graph.inputs.iter().map(|p| (p.name.clone(), graph.value(p.value).clone())).collect::<Vec<_>>()
    };
    match ports(&again) == ports(&model) {
        true => Ok(again),
        false => Err(format!("inputs {:?}, {:?} were expected", ports(&again), ports(&model))),
    }
}

fn check(dir: &Path) {
    let mut failed = Vec::new();
    for path in cases(dir) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let golden = Checkpoint::open(path.with_extension("safetensors")).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let run = |model: Result<Model, String>| {
            model.and_then(|m| Ok((distance(m.only().unwrap(), &golden)?, m.graph().unwrap().nodes.len())))
        };
        let results = [
            ("read", run(open(&path).map_err(|e| e.to_string()))),
            ("written as 17", run(again(&path, 17, scratch.path()))),
            ("written as 22", run(again(&path, 22, scratch.path()))),
        ];
        for (what, result) in results {
            match result {
                Ok((d, nodes)) if d <= 1.0 => {
                    println!("{name} {what}: {d:.3} of the tolerance, {nodes} operators");
                }
                Ok((d, _)) => failed.push(format!("{name} {what}: {d} times the tolerance")),
                Err(e) => failed.push(format!("{name} {what}: {e}")),
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// How many operators of each name a file becomes, activations by function.
fn operators(name: &str) -> BTreeMap<String, usize> {
    let model = open(goldens().join(format!("{name}.onnx"))).unwrap();
    let mut out = BTreeMap::new();
    for node in &model.graph().unwrap().nodes {
        let name = match node.op {
            Op::Activation { function } => format!("{function:?}"),
            _ => node.op.name().to_owned(),
        };
        *out.entry(name).or_default() += 1;
    }
    out
}

#[test]
fn decomposed_operators_become_whole_again() {
    for (name, wanted) in [
        (
            "vit",
            vec![("Attention", 2), ("LayerNorm", 5), ("Softmax", 0), ("Gelu", 2), ("Erf", 0), ("Linear", 13)],
        ),
        ("vit_fused", vec![("Attention", 2), ("Split", 2), ("LayerNorm", 5), ("Softmax", 0), ("Gelu", 2)]),
        ("vit_static", vec![("Attention", 2), ("Split", 2), ("LayerNorm", 5), ("Gelu", 2)]),
        ("text", vec![("Attention", 1), ("LayerNorm", 3), ("Embedding", 1), ("Softmax", 0)]),
        ("unet", vec![("Attention", 1), ("GroupNorm", 2), ("InstanceNorm", 0), ("Silu", 1), ("Sigmoid", 0)]),
        ("speech", vec![("Recurrent", 2), ("Conv", 1)]),
        // Of three transpositions around its convolution and pooling the first is left: the input has channels last.
        ("nhwc", vec![("Transpose", 1), ("Conv", 1), ("Pool", 1)]),
        // Rounding within a pattern keeps it apart.
        (
            "quantised_vit",
            vec![("Attention", 0), ("LayerNorm", 0), ("Linear", 13), ("Softmax", 2), ("Erf", 2)],
        ),
    ] {
        let found = operators(name);
        for (op, count) in wanted {
            assert_eq!(found.get(op).copied().unwrap_or(0), count, "{name}: {op} of {found:?}");
        }
    }
}

#[test]
fn quantised_pairs_become_annotations_and_come_back() {
    let targets = |m: &Model| {
        let notes = m.graph().unwrap().annotations.values().flatten();
        let target = |n: &Annotation| match n {
            Annotation::Quantisation { target, bits, scales, .. } => {
                format!("{target:?} {bits} {}", scales.len())
            }
            other => format!("{other:?}"),
        };
        let mut all: Vec<String> = notes.map(target).collect();
        all.sort();
        all
    };
    let one = "Input(0) 8 1";
    for (name, wanted) in [
        ("qdq", vec![one, one, "Weight 8 4", "Weight 8 5"]),
        (
            "qdq_pairs",
            vec![one, one, one, one, one, one, one, one, one, "Output(0) 8 1", "Weight 8 1", "Weight 8 6"],
        ),
    ] {
        let path = goldens().join(format!("{name}.onnx"));
        let model = open(&path).unwrap();
        assert_eq!(targets(&model), wanted, "{name}");
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(targets(&again(&path, 17, scratch.path()).unwrap()), targets(&model), "{name}");
    }
}

#[test]
fn imported_files_compute_what_onnx_runtime_does() {
    check(&goldens());
}

#[test]
fn files_of_any_size_compute_what_onnx_runtime_does() {
    match std::env::var_os("POMONA_ONNX_CASES") {
        Some(dir) => check(Path::new(&dir)),
        None => println!("skipped: POMONA_ONNX_CASES is not set"),
    }
}
