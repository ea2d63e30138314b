//! Any ONNX file in, plan, out: every golden file is scored, planned and cut by the program; what it writes computes finite numbers
//! of the golden's shapes. With POMONA_ONNX_OUT=DIR the outputs are kept there with what our executor computes, for
//! `scripts/check_onnx.py --cases DIR`, which runs them in ONNX Runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "../../pomona-task/tests/kept/mod.rs"]
mod kept;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pomona_exec::{Device, Feeds, Kind, Options, Tensor, evaluate};
use pomona_graph::ValueType;
use pomona_models::open;
use pomona_store::Checkpoint;
use pomona_task::{ModelWeights, Residence};

/// Files without a group that can be cut, and a part of the reason that is given.
const WHOLE: &[(&str, &str)] = &[
    ("elementwise", "`row:0`: it is an axis of the input `x`"),
    ("functions", "it has no weights"),
    ("gru_bidirectional1", "it is an axis of the input `h0`"),
    ("gru_reverse", "it is an axis of the input `h0`"),
    ("half", "it is an axis of the output `y`"),
    ("layout", "it is an axis of the input `x`"),
    ("lstm_bidirectional", "it is an axis of the input `h0`"),
    ("lstm_forward", "it is an axis of the input `h0`"),
    ("norms", "it is an axis of the input `x`"),
    ("qdq_pairs", "it is an axis of the output `lin.d`"),
    ("shapes", "its rows are what the ids stand for"),
    ("softmax_old", "it has no weights"),
    ("spatial", "it is an axis of the output `y.conv1`"),
];

fn pomona(args: &[&str]) -> Result<(), String> {
    let out = Command::new(env!("CARGO_BIN_EXE_pomona")).arg("--quiet").args(args).output().unwrap();
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// Scores by magnitude, plans to four fifths of the parameters, applies.
fn cut(file: &Path, dir: &Path) -> Result<PathBuf, String> {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (model, scores, plan, out) = (file.to_str().unwrap(), path("scores"), path("plan"), path("out"));
    let method = ["--method", "filters"];
    pomona(&[&["score", model, "--criterion", "l1", "-o", &scores], &method[..]].concat())?;
    pomona(
        &[&["plan", model, "--scores", &scores, "--target", "params=80%", "-o", &plan], &method[..]].concat(),
    )?;
    pomona(&["apply", model, "--plan", &plan, "-o", &out])?;
    pomona(&["verify", &out, "--against", model, "--plan", &plan])?;
    Ok(PathBuf::from(out).join("model.onnx"))
}

fn parameters(file: &Path) -> usize {
    let model = open(file).unwrap();
    model.graph().unwrap().tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum()
}

/// Outputs by name, with the golden's inputs.
fn run(file: &Path, golden: &Checkpoint) -> BTreeMap<String, Tensor> {
    let (model, device) = (open(file).unwrap(), Device::cpu());
    let component = model.only().unwrap();
    let graph = &component.graph;
    let mut feeds = Feeds::default();
    for port in &graph.inputs {
        let info = golden.info(&format!("in.{}", port.name)).unwrap();
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
    let found = evaluate(graph, &weights, &feeds, &wanted, &Options::default()).unwrap();
    graph.outputs.iter().map(|p| p.name.clone()).zip(found).collect()
}

fn keep(name: &str, file: &Path, golden: &Checkpoint, outputs: &BTreeMap<String, Tensor>) {
    kept::keep_items(name, file, || {
        let mut items = kept::inputs(golden);
        for (name, t) in outputs {
            let values: Vec<f32> = match t.kind() {
                Kind::Float => t.to_f32().unwrap(),
                Kind::Int => t.as_i64().unwrap().iter().map(|v| *v as f32).collect(),
                Kind::Bool => t.as_bool().unwrap().iter().map(|v| f32::from(u8::from(*v))).collect(),
            };
            items.push(kept::floats(format!("out.{name}"), t.shape(), &values));
        }
        items
    });
}

#[test]
fn any_file_is_cut_or_says_why_not() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-task/tests/goldens/onnx");
    let mut files: Vec<PathBuf> = std::fs::read_dir(goldens)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.sort();
    let (mut done, mut whole) = (0, Vec::new());
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let golden = Checkpoint::open(file.with_extension("safetensors")).unwrap();
        let out = match cut(file, scratch.path()) {
            Ok(out) => out,
            Err(why) => {
                whole.push((name.to_owned(), why));
                continue;
            }
        };
        let (before, after) = (parameters(file), parameters(&out));
        assert!(after < before, "{name}: {after} of {before} parameters");
        let outputs = run(&out, &golden);
        for (port, tensor) in &outputs {
            let want = golden.info(&format!("out.{port}")).unwrap();
            assert_eq!(tensor.shape(), want.shape, "{name}: {port}");
            if tensor.kind() == Kind::Float {
                assert!(tensor.to_f32().unwrap().iter().all(|v| v.is_finite()), "{name}: {port}");
            }
        }
        keep(&format!("planned_{name}"), &out, &golden, &outputs);
        println!("{name}: {after} of {before} parameters");
        done += 1;
    }
    for (name, why) in &whole {
        println!("{name} stays whole: {why}");
        let Some((_, reason)) = WHOLE.iter().find(|(n, _)| n == name) else { panic!("{name}: {why}") };
        assert!(why.contains(reason), "{name}: {why}");
    }
    assert_eq!(done + whole.len(), files.len());
    assert_eq!(whole.len(), WHOLE.len());
}

#[test]
fn sizes_are_given_on_the_command_line() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-task/tests/goldens/onnx/cnn_opset7.onnx");
    let inspect = |size: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_pomona"))
            .args(["inspect", "--json", "--input", size])
            .arg(&file)
            .output()
            .unwrap();
        let report: Option<serde_json::Value> = serde_json::from_slice(&out.stdout).ok();
        let macs = report.and_then(|r| r["macs"]["full"].as_u64());
        macs.ok_or_else(|| String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let one = inspect("batch=1").unwrap();
    assert!(one > 0);
    assert_eq!(inspect("batch=7").unwrap(), 7 * one);
    let unknown = inspect("side=7").unwrap_err();
    assert!(unknown.contains("`side`") && unknown.contains("it has batch"), "{unknown}");
    assert!(inspect("batch=-1").unwrap_err().contains("not negative"));
    assert!(inspect("batch").unwrap_err().contains("NAME=SIZE"));
}
