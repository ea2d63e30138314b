//! What is written comes back, whatever the types, shapes and shard sizes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pomona_store::{
    Checkpoint, Encoding, GgufValue, GgufWriter, OutputDir, OutputOptions, SafetensorsWriter, TensorSink,
    TensorSpec,
};
use proptest::prelude::*;

fn data(spec: &TensorSpec, seed: usize) -> Vec<u8> {
    let len = spec.encoding.bytes_for(&spec.shape).unwrap() as usize;
    (0..len).map(|i| (i * 31 + seed * 7) as u8).collect()
}

/// The bytes in uneven pieces.
fn fill(sink: &mut dyn TensorSink, specs: &[TensorSpec]) {
    for (i, spec) in specs.iter().enumerate() {
        assert!(sink.begin(i).unwrap());
        for piece in data(spec, i).chunks(100 + i) {
            sink.write(piece).unwrap();
        }
        sink.end().unwrap();
    }
    sink.finish().unwrap();
}

fn copy(sink: &mut dyn TensorSink, from: &Checkpoint, specs: &[TensorSpec]) {
    for (i, spec) in specs.iter().enumerate() {
        assert!(sink.begin(i).unwrap());
        sink.copy_from(from.info(&spec.name).unwrap()).unwrap();
        sink.end().unwrap();
    }
    sink.finish().unwrap();
}

fn check(path: &Path, specs: &[TensorSpec]) -> Checkpoint {
    let file = Checkpoint::open(path).unwrap();
    assert_eq!(file.tensors().len(), specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let info = file.info(&spec.name).unwrap();
        assert_eq!(&TensorSpec::from(info), spec);
        assert!(file.bytes(info).unwrap() == data(spec, i), "{}", spec.name);
        assert!(info.offset.is_multiple_of(spec.encoding.alignment()), "{} lies unaligned", spec.name);
    }
    file
}

fn safetensors(
    path: &Path,
    specs: &[TensorSpec],
    shard: u64,
    with: impl FnOnce(&mut dyn TensorSink),
) -> PathBuf {
    let mut out = OutputDir::create(path, &OutputOptions::default()).unwrap();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut sink = SafetensorsWriter::new(&mut out, "model", specs.to_vec(), shard, &metadata).unwrap();
    with(&mut sink);
    let total = sink.total_bytes();
    let path = out.commit().unwrap();
    let found: u64 = std::fs::read_dir(&path)
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().extension().unwrap() == "safetensors")
        .map(|e| e.metadata().unwrap().len())
        .sum();
    assert_eq!(found, total);
    path
}

fn gguf(
    path: &Path,
    meta: &[(String, GgufValue)],
    specs: &[TensorSpec],
    with: impl FnOnce(&mut dyn TensorSink),
) -> PathBuf {
    let mut out = OutputDir::create(path, &OutputOptions::default()).unwrap();
    let mut sink = GgufWriter::new(&mut out, "model.gguf", meta, specs.to_vec()).unwrap();
    with(&mut sink);
    let total = sink.total_bytes();
    let path = out.commit().unwrap().join("model.gguf");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), total);
    path
}

/// Specs with legal shapes for their encodings.
fn specs(encodings: Vec<Encoding>) -> impl Strategy<Value = Vec<TensorSpec>> {
    let one = (prop::sample::select(encodings), prop::collection::vec(0_usize..5, 0..4)).prop_map(
        |(encoding, mut shape)| {
            if encoding.block_len() > 1 {
                let last = shape.pop().unwrap_or(1);
                shape.push(last * encoding.block_len());
            }
            (encoding, shape)
        },
    );
    prop::collection::vec(one, 0..12).prop_map(|all| {
        let named = all.into_iter().enumerate();
        named
            .map(|(i, (encoding, shape))| TensorSpec {
                name: format!("layer.{i}.wéight \"{i}\""),
                encoding,
                shape,
            })
            .collect()
    })
}

fn of_safetensors() -> Vec<Encoding> {
    Encoding::ALL.iter().copied().filter(|e| e.safetensors_name().is_some()).collect()
}

fn of_gguf() -> Vec<Encoding> {
    Encoding::ALL.iter().copied().filter(|e| e.ggml_type().is_some()).collect()
}

fn value() -> impl Strategy<Value = GgufValue> {
    let strings = prop::collection::vec(".{0,12}", 0..5);
    prop_oneof![
        any::<u8>().prop_map(GgufValue::U8),
        any::<i16>().prop_map(GgufValue::I16),
        any::<u32>().prop_map(GgufValue::U32),
        any::<i64>().prop_map(GgufValue::I64),
        any::<bool>().prop_map(GgufValue::Bool),
        (-1e30_f64..1e30).prop_map(GgufValue::F64),
        ".{0,40}".prop_map(GgufValue::String),
        strings.prop_map(GgufValue::strings),
        prop::collection::vec(any::<i32>(), 0..5)
            .prop_map(|v| GgufValue::Array(5, v.into_iter().map(GgufValue::I32).collect())),
        prop::collection::vec(prop::collection::vec(any::<bool>(), 0..3), 0..3).prop_map(|rows| {
            let row = |r: Vec<bool>| GgufValue::Array(7, r.into_iter().map(GgufValue::Bool).collect());
            GgufValue::Array(9, rows.into_iter().map(row).collect())
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn safetensors_come_back(specs in specs(of_safetensors()), shard in 1_u64..4000) {
        let dir = tempfile::tempdir().unwrap();
        let first = safetensors(&dir.path().join("a"), &specs, shard, |s| fill(s, &specs));
        let file = check(&first, &specs);
        // Copied by range from shards of one size into those of another.
        let second = safetensors(&dir.path().join("b"), &specs, u64::MAX, |s| copy(s, &file, &specs));
        let again = check(&second, &specs);
        prop_assert_eq!(again.metadata().get("format").map(String::as_str), Some("pt"));
        // And the ecosystem's own reader takes every file.
        for entry in std::fs::read_dir(&first).unwrap().chain(std::fs::read_dir(&second).unwrap()) {
            let path = entry.unwrap().path();
            if path.extension().unwrap() == "safetensors" {
                let bytes = std::fs::read(&path).unwrap();
                let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
                for (name, view) in theirs.iter() {
                    prop_assert_eq!(view.data(), file.bytes(file.info(name).unwrap()).unwrap());
                }
            }
        }
    }

    #[test]
    fn gguf_comes_back(
        specs in specs(of_gguf()),
        values in prop::collection::vec(value(), 0..8),
        alignment in prop::sample::select(vec![None, Some(8_u32), Some(64), Some(4096)]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut meta: Vec<_> = values.into_iter().enumerate().map(|(i, v)| (format!("key.{i}"), v)).collect();
        meta.extend(alignment.map(|a| ("general.alignment".to_owned(), GgufValue::U32(a))));
        let first = gguf(&dir.path().join("a"), &meta, &specs, |s| fill(s, &specs));
        let file = check(&first, &specs);
        prop_assert_eq!(file.gguf_metadata(), &meta[..]);
        let second = gguf(&dir.path().join("b"), &meta, &specs, |s| copy(s, &file, &specs));
        prop_assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap());
    }
}

#[test]
fn mixed_widths_stay_aligned_and_uniform_ones_keep_their_order() {
    let spec = |name: &str, encoding, n| TensorSpec { name: name.into(), encoding, shape: vec![n] };
    let dir = tempfile::tempdir().unwrap();
    let mixed = [
        spec("a", Encoding::U8, 3),
        spec("b", Encoding::F32, 2),
        spec("c", Encoding::Bf16, 1),
        spec("d", Encoding::F64, 1),
    ];
    let file = check(&safetensors(&dir.path().join("m"), &mixed, u64::MAX, |s| fill(s, &mixed)), &mixed);
    assert_eq!(file.names().collect::<Vec<_>>(), ["d", "b", "c", "a"]);
    let uniform = [spec("z", Encoding::Bf16, 3), spec("a", Encoding::Bf16, 2), spec("m", Encoding::Bf16, 1)];
    let file =
        check(&safetensors(&dir.path().join("u"), &uniform, u64::MAX, |s| fill(s, &uniform)), &uniform);
    assert_eq!(file.names().collect::<Vec<_>>(), ["z", "a", "m"]);
}

#[test]
fn shards_are_named_as_stock_loaders_want_them() {
    let specs: Vec<_> = (0..5)
        .map(|i| TensorSpec { name: format!("t{i}"), encoding: Encoding::F16, shape: vec![50] })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = safetensors(&dir.path().join("out"), &specs, 250, |s| fill(s, &specs));
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path.join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 500);
    assert_eq!(index["weight_map"]["t2"], "model-00002-of-00003.safetensors");
    assert_eq!(check(&path, &specs).files().count(), 3);
}

#[test]
fn specs_that_a_format_cannot_hold_are_refused_before_a_byte_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let spec = |name: &str, encoding, shape: &[usize]| TensorSpec {
        name: name.into(),
        encoding,
        shape: shape.to_vec(),
    };
    let mut out = OutputDir::create(dir.path().join("out"), &OutputOptions::default()).unwrap();
    for (specs, part) in [
        (vec![spec("a", Encoding::Q4_0, &[32])], "which safetensors does not have"),
        (vec![spec("a", Encoding::F32, &[1]), spec("a", Encoding::F32, &[1])], "would stand twice"),
        (vec![spec("__metadata__", Encoding::F32, &[1])], "not a name"),
        (vec![spec("a", Encoding::F32, &[usize::MAX, 2])], "overflows"),
        (
            vec![spec("a", Encoding::U8, &[1 << 62]), spec("b", Encoding::U8, &[1 << 62])],
            "larger than a file",
        ),
    ] {
        let refused = SafetensorsWriter::new(&mut out, "model", specs, u64::MAX, &BTreeMap::new()).err();
        assert!(refused.as_ref().is_some_and(|e| e.to_string().contains(part)), "{part}: {refused:?}");
    }
    let array = GgufValue::Array(5, vec![GgufValue::I32(1), GgufValue::Bool(true)]);
    for (meta, specs, part) in [
        (vec![], vec![spec("a", Encoding::C64, &[1])], "which GGUF does not have"),
        (vec![], vec![spec("a", Encoding::Ggml(99), &[1])], "ggml type 99 has no block size"),
        (vec![], vec![spec("a", Encoding::Ggml(31), &[32])], "withdrawn"),
        (vec![], vec![spec("a", Encoding::F32, &[1; 5])], "has 5 axes"),
        (vec![], vec![spec("a", Encoding::F32, &[1]), spec("a", Encoding::F32, &[1])], "stands twice"),
        (vec![("k".to_owned(), array)], vec![], "mixed types"),
        (
            vec![("k".to_owned(), GgufValue::U8(1)), ("k".to_owned(), GgufValue::U8(1))],
            vec![],
            "stands twice",
        ),
        (vec![("general.alignment".to_owned(), GgufValue::U32(48))], vec![], "power of two"),
    ] {
        let refused = GgufWriter::new(&mut out, "m.gguf", &meta, specs).err();
        assert!(refused.as_ref().is_some_and(|e| e.to_string().contains(part)), "{part}: {refused:?}");
    }
}
