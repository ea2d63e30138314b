//! ONNX files against ONNX Runtime: goldens made by `goldens/onnx/make.py`, and with POMONA_ONNX_CASES=DIR files of any
//! size in the same form (`NAME.onnx` beside `NAME.safetensors` with `in.*` and `out.*`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::ValueType;
use pomona_models::{Component, open};
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

fn check(dir: &Path) {
    let mut failed = Vec::new();
    for path in cases(dir) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let golden = Checkpoint::open(path.with_extension("safetensors")).unwrap();
        let result = open(&path).map_err(|e| e.to_string()).and_then(|m| {
            let nodes = m.graph().unwrap().nodes.len();
            distance(m.only().unwrap(), &golden).map(|d| (d, nodes, m.graph().unwrap().parameters()))
        });
        match result {
            Ok((d, nodes, parameters)) if d <= 1.0 => {
                println!("{name}: {d:.3} of the tolerance, {nodes} operators, {parameters} parameters")
            }
            Ok((d, ..)) => failed.push(format!("{name}: {d} times the tolerance")),
            Err(e) => failed.push(format!("{name}: {e}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
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
