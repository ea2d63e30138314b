//! PyTorch files against the values that PyTorch saved (`torch/make_goldens.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use pomona_store::{Checkpoint, Format};
use serde::Deserialize;

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

/// Our names of PyTorch's element types.
fn encoding(dtype: &str) -> &str {
    match dtype {
        "float64" => "f64",
        "float32" => "f32",
        "float16" => "f16",
        "bfloat16" => "bf16",
        "float8_e4m3fn" => "f8_e4m3",
        "int64" => "i64",
        "int32" => "i32",
        "int16" => "i16",
        "int8" => "i8",
        "uint8" => "u8",
        "uint16" => "u16",
        other => other,
    }
}

#[test]
fn every_file_gives_the_saved_values() {
    let text = std::fs::read_to_string(golden("expected.json")).unwrap();
    let files: BTreeMap<String, BTreeMap<String, Tensor>> = serde_json::from_str(&text).unwrap();
    assert_eq!(files.len(), 12);
    for (name, tensors) in &files {
        let file = Checkpoint::open(golden(name)).unwrap();
        assert_eq!(file.format(), Format::Torch);
        let mut names: Vec<&str> = file.names().collect();
        names.sort_unstable();
        assert_eq!(names, tensors.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
        for (tensor, wanted) in tensors {
            let info = file.info(tensor).unwrap();
            assert_eq!(info.shape, wanted.shape, "{name}: {tensor}");
            assert_eq!(info.encoding.name(), encoding(&wanted.dtype), "{name}: {tensor}");
            let values: Vec<f32> = wanted.values.iter().map(|v| *v as f32).collect();
            assert_eq!(file.decode(info).unwrap(), values, "{name}: {tensor}");
            if let Some(&rows) = info.shape.first().filter(|r| **r > 1) {
                let row = values.len() / rows;
                assert_eq!(file.decode_rows(info, 1..2).unwrap(), values[row..2 * row], "{name}: {tensor}");
            }
        }
    }
}

#[test]
fn contiguous_tensors_stay_in_the_map_and_tied_ones_share_it() {
    for name in ["views_zip.pth", "views_legacy.pth"] {
        let file = Checkpoint::open(golden(name)).unwrap();
        let info = |n: &str| file.info(n).unwrap();
        let mapped: Vec<&str> =
            file.tensors().iter().filter(|t| file.is_mapped(t)).map(|t| t.name.as_str()).collect();
        assert_eq!(mapped, ["base", "row", "tied", "one"], "{name}");
        assert_eq!(info("base").offset, info("tied").offset);
        assert_eq!(info("row").offset, info("base").offset + 2 * 6 * 4);
        let whole = std::fs::read(golden(name)).unwrap();
        let at = info("base").offset as usize;
        assert_eq!(file.bytes(info("base")).unwrap(), &whole[at..at + 96]);
    }
}

#[test]
fn directories_and_shards_open() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(golden(from), dir.path().join(to)).unwrap();
    copy("types_zip.pth", "pytorch_model.bin");
    copy("nested_legacy.pth", "training_args.bin");
    copy("nested_legacy.pth", "optimizer.pt");
    assert_eq!(Checkpoint::open(dir.path()).unwrap().tensors().len(), 12);

    std::fs::remove_file(dir.path().join("pytorch_model.bin")).unwrap();
    copy("views_zip.pth", "pytorch_model-00001-of-00002.bin");
    copy("module_legacy.pth", "pytorch_model-00002-of-00002.bin");
    let index = r#"{"weight_map": {"base": "pytorch_model-00001-of-00002.bin",
        "transposed": "pytorch_model-00001-of-00002.bin", "0.weight": "pytorch_model-00002-of-00002.bin"}}"#;
    std::fs::write(dir.path().join("pytorch_model.bin.index.json"), index).unwrap();
    let file = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(file.names().collect::<Vec<_>>(), ["base", "transposed", "0.weight"]);
    let (base, t) = (file.info("base").unwrap(), file.info("transposed").unwrap());
    assert_eq!(file.decode(base).unwrap()[1], file.decode(t).unwrap()[4]);
}
