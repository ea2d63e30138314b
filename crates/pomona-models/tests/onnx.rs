//! ONNX files that are damaged, hostile or hold what is not read, and how weights lie in those that are written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use pomona_graph::Recipe;
use pomona_models::{Model, OutputFormat, SaveOptions, open, save};
use pomona_store::onnx::{
    OnnxAttribute, OnnxDim, OnnxGraph, OnnxModel, OnnxNode, OnnxPort, OnnxValue, element, small_tensor,
};
use pomona_store::{Encoding, OnnxWriter, OutputDir, OutputOptions, TensorSink, TensorSpec};

fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> OnnxNode {
    let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    OnnxNode {
        name: name.into(),
        op: op.into(),
        inputs: text(inputs),
        outputs: text(outputs),
        ..OnnxNode::default()
    }
}

fn port(name: &str, shape: &[OnnxDim]) -> OnnxPort {
    OnnxPort { name: name.into(), element: element::FLOAT, shape: Some(shape.to_vec()) }
}

/// `x [batch, 4]` through the nodes to `y`.
fn model(nodes: Vec<OnnxNode>, opset: i64) -> OnnxModel {
    OnnxModel {
        ir_version: 8,
        opsets: vec![(String::new(), opset)],
        producer: "test".into(),
        graph: OnnxGraph {
            name: "g".into(),
            nodes,
            inputs: vec![port("x", &[OnnxDim::Name("batch".into()), OnnxDim::Size(4)])],
            outputs: vec![port("y", &[OnnxDim::Unknown, OnnxDim::Unknown])],
            ..OnnxGraph::default()
        },
        functions: Vec::new(),
    }
}

/// Writes a model with float tensors counted up from 0.
fn write(dir: &Path, model: &OnnxModel, tensors: &[(&str, &[usize])], limit: u64) -> PathBuf {
    let mut out =
        OutputDir::create(dir.join("m"), &OutputOptions { force: true, ..Default::default() }).unwrap();
    let spec = |(name, shape): &(&str, &[usize])| TensorSpec {
        name: (*name).to_owned(),
        encoding: Encoding::F32,
        shape: shape.to_vec(),
    };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let mut sink = OnnxWriter::new(&mut out, "m", model, specs.clone(), limit).unwrap();
    for (i, s) in specs.iter().enumerate() {
        assert!(sink.begin(i).unwrap());
        let n: usize = s.shape.iter().product();
        let bytes: Vec<u8> = (0..n).flat_map(|v| (v as f32).to_le_bytes()).collect();
        sink.write(&bytes).unwrap();
        sink.end().unwrap();
    }
    sink.finish().unwrap();
    drop(sink);
    out.commit().unwrap().join("m.onnx")
}

/// Two products with a tanh between them.
fn two_layers() -> OnnxModel {
    let nodes = vec![
        node("MatMul", "/first/MatMul", &["x", "a"], &["t"]),
        node("Tanh", "/act/Tanh", &["t"], &["u"]),
        node("MatMul", "/second/MatMul", &["u", "second.weight"], &["y"]),
    ];
    model(nodes, 17)
}

const WEIGHTS: &[(&str, &[usize])] = &[("a", &[4, 6]), ("second.weight", &[6, 3])];

fn refusal(path: &Path) -> String {
    match open(path) {
        Ok(m) => panic!("opened with {} operators", m.graph().unwrap().nodes.len()),
        Err(e) => e.to_string(),
    }
}

#[test]
fn weights_are_read_where_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    for (limit, files) in [(u64::MAX, 1), (8, 2)] {
        let path = write(dir.path(), &two_layers(), WEIGHTS, limit);
        let model = open(&path).unwrap();
        let graph = model.graph().unwrap();
        let paths: Vec<&str> = graph.nodes.iter().map(|n| n.path.as_str()).collect();
        assert_eq!(paths, ["first", "act", "second"]);
        assert_eq!(model.checkpoint().unwrap().files().count(), files);
        // [in, out] in the file, [out, in] in the graph.
        assert_eq!(model.materialise("a").unwrap()[..4], [0.0, 6.0, 12.0, 18.0]);
        assert_eq!(model.materialise("second.weight").unwrap()[..3], [0.0, 3.0, 6.0]);
        assert_eq!(graph.defaults["batch"], 1);
    }
}

#[test]
fn untouched_weights_are_written_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let source = write(dir.path(), &two_layers(), WEIGHTS, u64::MAX);
    let model = open(&source).unwrap();
    let graph = model.graph().unwrap();
    let recipe = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
    for (name, shard_size, data) in [("inside", u64::MAX, false), ("outside", 1, true)] {
        let options = SaveOptions { shard_size, ..SaveOptions::default() };
        let out = save(&model, graph, &recipe, &options, dir.path().join(name), &mut |_, _| {}).unwrap();
        assert_eq!(out.format, OutputFormat::Onnx, "what came as ONNX goes out as ONNX");
        assert_eq!(out.path.join("model.onnx.data").is_file(), data);
        let again = open(out.path.join("model.onnx")).unwrap();
        for file in [&model, &again] {
            let info = file.checkpoint().unwrap().get("a").unwrap();
            assert_eq!(info.shape, [4, 6]);
        }
        let bytes = |m: &Model| {
            m.checkpoint().unwrap().bytes(m.checkpoint().unwrap().get("a").unwrap()).unwrap().to_vec()
        };
        assert_eq!(bytes(&model), bytes(&again));
        // With the manifest the graph keeps its paths.
        let own = open(&out.path).unwrap();
        assert_eq!(own.graph().unwrap(), graph);
    }
}

#[test]
fn everything_that_is_not_read_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut strange = node("FusedThing", "", &["a1"], &["b1"]);
    strange.domain = "com.example".into();
    let nodes = vec![
        node("Loop", "decoder/loop", &["x"], &["a1"]),
        strange,
        node("NonMaxSuppression", "boxes", &["b1"], &["c1"]),
        node("Loop", "again", &["c1"], &["y"]),
    ];
    let message = refusal(&write(dir.path(), &model(nodes, 17), &[], u64::MAX));
    for part in [
        "3 operators",
        "Loop (`decoder/loop`, `again`)",
        "com.example.FusedThing (`b1`)",
        "NonMaxSuppression (`boxes`)",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // What an operator cannot do is collected as well.
    let mut pool = node("MaxPool", "pool", &["p"], &["q", "indices"]);
    pool.attributes.push(OnnxAttribute { name: "kernel_shape".into(), value: OnnxValue::Ints(vec![2]) });
    let nodes = vec![
        node("Unsqueeze", "u", &["x", "axes"], &["p"]),
        pool,
        node("Gather", "pick", &["x", "x"], &["g"]),
        node("Relu", "after", &["q"], &["y"]),
    ];
    let mut both = model(nodes, 17);
    both.graph.initializers.push(small_tensor("axes", Encoding::I64, &[1], 1_i64.to_le_bytes().to_vec()));
    let message = refusal(&write(dir.path(), &both, &[], u64::MAX));
    assert!(
        message.contains("(`pool`)") && message.contains("(`pick`)") && !message.contains("after"),
        "{message}"
    );
}

#[test]
fn a_decision_at_run_time_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let branch = OnnxGraph { outputs: vec![port("x", &[])], ..OnnxGraph::default() };
    let mut decision = node("If", "gate", &["c"], &["y"]);
    for name in ["then_branch", "else_branch"] {
        decision
            .attributes
            .push(OnnxAttribute { name: name.into(), value: OnnxValue::Graph(Box::new(branch.clone())) });
    }
    let nodes = vec![node("Cast", "bool", &["x"], &["c"]), decision];
    let mut m = model(nodes, 17);
    m.graph.nodes[0].attributes.push(OnnxAttribute { name: "to".into(), value: OnnxValue::Int(9) });
    let message = refusal(&write(dir.path(), &m, &[], u64::MAX));
    assert!(message.contains("If (`gate`)") && message.contains("control flow"), "{message}");
}

#[test]
fn versions_outside_the_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for opset in [6, 23] {
        let mut m = two_layers();
        m.opsets[0].1 = opset;
        let message = refusal(&write(dir.path(), &m, WEIGHTS, u64::MAX));
        assert!(
            message.contains(&format!("operator set {opset}")) && message.contains("7 to 22"),
            "{message}"
        );
    }
    let mut old = two_layers();
    old.ir_version = 2;
    assert!(refusal(&write(dir.path(), &old, WEIGHTS, u64::MAX)).contains("IR version 2"));
}

/// The bytes of a model whose weights lie outside, with another file name of the same length.
fn elsewhere(dir: &Path, name: &str) -> PathBuf {
    let path = write(dir, &two_layers(), WEIGHTS, 8);
    let bytes = std::fs::read(&path).unwrap();
    let old = b"m.onnx.data";
    assert_eq!(old.len(), name.len());
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(old) {
            out.extend(name.as_bytes());
            at += old.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    std::fs::write(&path, out).unwrap();
    path
}

#[test]
fn data_outside_the_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["../m/m.data", "/etc/passwd", "a/../../bcd", "..\\\\secrets"] {
        let path = elsewhere(dir.path(), name);
        let message = refusal(&path);
        assert!(message.contains(name) && message.contains("not a name inside"), "{message}");
    }
    let message = refusal(&elsewhere(dir.path(), "n.onnx.data"));
    assert!(message.contains("n.onnx.data"), "{message}");
}

#[cfg(unix)]
#[test]
fn links_out_of_the_directory_are_refused_but_a_cache_of_links_is_read() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &two_layers(), WEIGHTS, 8);
    let data = path.with_file_name("m.onnx.data");
    let blobs = dir.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    std::fs::rename(&data, blobs.join("1")).unwrap();
    symlink("../blobs/1", &data).unwrap();
    let message = refusal(&path);
    assert!(message.contains("`m.onnx.data`") && message.contains("leads out"), "{message}");
    // The layout of a hub's cache: model and data are links to one folder.
    std::fs::rename(&path, blobs.join("2")).unwrap();
    symlink("../blobs/2", &path).unwrap();
    assert_eq!(open(&path).unwrap().graph().unwrap().nodes.len(), 3);
}

#[test]
fn data_that_end_early_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &two_layers(), WEIGHTS, 8);
    let data = path.with_file_name("m.onnx.data");
    let bytes = std::fs::read(&data).unwrap();
    std::fs::write(&data, &bytes[..bytes.len() - 4]).unwrap();
    let message = refusal(&path);
    assert!(message.contains("second.weight") && message.contains("takes"), "{message}");
    // A shape that its data do not fill.
    let path = write(dir.path(), &two_layers(), WEIGHTS, u64::MAX);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|w| w == [8, 4, 8, 6]).unwrap();
    bytes[at + 1] = 5;
    std::fs::write(&path, &bytes).unwrap();
    let message = refusal(&path);
    assert!(message.contains("`a`") && message.contains("takes 120"), "{message}");
}

#[test]
fn truncated_and_changed_files_never_break_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &two_layers(), WEIGHTS, u64::MAX);
    let bytes = std::fs::read(&path).unwrap();
    let file = dir.path().join("damaged.onnx");
    for len in 0..bytes.len() {
        std::fs::write(&file, &bytes[..len]).unwrap();
        let _ = open(&file);
    }
    let mut seed = 7_u64;
    for _ in 0..3000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut changed = bytes.clone();
        let at = (seed >> 33) as usize % changed.len();
        changed[at] = (seed >> 20) as u8;
        std::fs::write(&file, &changed).unwrap();
        let _ = open(&file);
    }
}

#[test]
fn sizes_beyond_memory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (op, shape) in [("ConstantOfShape", [1_i64 << 40, 1 << 40]), ("ConstantOfShape", [i64::MAX, 2])] {
        let mut m =
            model(vec![node(op, "huge", &["s"], &["h"]), node("Add", "sum", &["x", "h"], &["y"])], 17);
        let bytes = shape.iter().flat_map(|v| v.to_le_bytes()).collect();
        m.graph.initializers.push(small_tensor("s", Encoding::I64, &[2], bytes));
        refusal(&write(dir.path(), &m, &[], u64::MAX));
    }
    // Reversed padding, absurd strides.
    let mut conv = node("Conv", "c", &["p", "w"], &["y"]);
    conv.attributes.push(OnnxAttribute { name: "strides".into(), value: OnnxValue::Ints(vec![i64::MAX]) });
    conv.attributes
        .push(OnnxAttribute { name: "pads".into(), value: OnnxValue::Ints(vec![i64::MAX, i64::MAX]) });
    let mut m = model(vec![node("Unsqueeze", "u", &["x", "axes"], &["p"]), conv], 17);
    m.graph.initializers.push(small_tensor("axes", Encoding::I64, &[1], 1_i64.to_le_bytes().to_vec()));
    refusal(&write(dir.path(), &m, &[("w", &[2, 1, 3])], u64::MAX));
}
