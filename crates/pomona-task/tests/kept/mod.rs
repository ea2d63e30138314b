//! ONNX files and what they must compute, kept for `scripts/check_onnx.py --cases DIR`.

use std::collections::BTreeMap;
use std::path::Path;

use pomona_exec::{Kind, Tensor};
use pomona_store::{Encoding, OutputDir, OutputOptions, SafetensorsWriter, TensorSink, TensorSpec};

/// Keeps a file and its case where POMONA_ONNX_OUT says.
pub fn keep(
    name: &str,
    file: &Path,
    given: &BTreeMap<String, Tensor>,
    expected: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
) {
    let Some(out) = std::env::var_os("POMONA_ONNX_OUT") else { return };
    let options = OutputOptions { force: true, ..OutputOptions::default() };
    let mut dir = OutputDir::create(Path::new(&out).join(name), &options).unwrap();
    let mut items: Vec<(TensorSpec, Vec<u8>)> = Vec::new();
    for (name, t) in given {
        let (encoding, bytes) = match t.kind() {
            Kind::Int => (Encoding::I64, t.as_i64().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect()),
            _ => (Encoding::F32, t.to_f32().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        items.push((TensorSpec { name: format!("in.{name}"), encoding, shape: t.shape().to_vec() }, bytes));
    }
    for (name, (shape, values)) in expected {
        let name = if given.contains_key(name) { format!("out_{name}") } else { name.clone() };
        let spec = TensorSpec { name: format!("out.{name}"), encoding: Encoding::F32, shape: shape.clone() };
        items.push((spec, values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    let specs = items.iter().map(|i| i.0.clone()).collect();
    let mut sink = SafetensorsWriter::new(&mut dir, "case", specs, u64::MAX, &BTreeMap::new()).unwrap();
    for (i, (_, bytes)) in items.iter().enumerate() {
        assert!(sink.begin(i).unwrap());
        sink.write(bytes).unwrap();
        sink.end().unwrap();
    }
    sink.finish().unwrap();
    drop(sink);
    dir.write("model.onnx", &std::fs::read(file).unwrap()).unwrap();
    dir.commit().unwrap();
}
