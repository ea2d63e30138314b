//! ONNX files and what they must compute, kept for `scripts/check_onnx.py --cases DIR`.

use std::collections::BTreeMap;
use std::path::Path;

use pomona_exec::{Kind, Tensor};
use pomona_store::{
    Checkpoint, Encoding, OutputDir, OutputOptions, SafetensorsWriter, TensorSink, TensorSpec,
};

/// A tensor of a case, `in.NAME` or `out.NAME`, and its bytes.
type Item = (TensorSpec, Vec<u8>);

/// A tensor of floats.
pub fn floats(name: String, shape: &[usize], values: &[f32]) -> Item {
    let spec = TensorSpec { name, encoding: Encoding::F32, shape: shape.to_vec() };
    (spec, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// The inputs of a golden as they are.
#[allow(dead_code, reason = "not every test has goldens")]
pub fn inputs(golden: &Checkpoint) -> Vec<Item> {
    let given = golden.tensors().iter().filter(|t| t.name.starts_with("in."));
    given
        .map(|info| {
            let spec =
                TensorSpec { name: info.name.clone(), encoding: info.encoding, shape: info.shape.clone() };
            (spec, golden.bytes(info).unwrap().to_vec())
        })
        .collect()
}

/// Keeps a file and its case where POMONA_ONNX_OUT says.
pub fn keep_items(name: &str, file: &Path, items: impl FnOnce() -> Vec<Item>) {
    let Some(out) = std::env::var_os("POMONA_ONNX_OUT") else { return };
    let items = items();
    let options = OutputOptions { force: true, ..OutputOptions::default() };
    let mut dir = OutputDir::create(Path::new(&out).join(name), &options).unwrap();
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

/// As [`keep_items`], of tensors that were given and values that are expected.
#[allow(dead_code, reason = "tests with goldens keep those")]
pub fn keep(
    name: &str,
    file: &Path,
    given: &BTreeMap<String, Tensor>,
    expected: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
) {
    keep_items(name, file, || {
        let given_items = given.iter().map(|(name, t)| match t.kind() {
            Kind::Int => {
                let spec = TensorSpec {
                    name: format!("in.{name}"),
                    encoding: Encoding::I64,
                    shape: t.shape().to_vec(),
                };
                (spec, t.as_i64().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            _ => floats(format!("in.{name}"), t.shape(), &t.to_f32().unwrap()),
        });
        let expected_items = expected.iter().map(|(name, (shape, values))| {
            let name = if given.contains_key(name) { format!("out_{name}") } else { name.clone() };
            floats(format!("out.{name}"), shape, values)
        });
        given_items.chain(expected_items).collect()
    });
}
