//! Decoding, encoding and GGUF against the reference implementations (`goldens/make_goldens.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use pomona_store::{
    Checkpoint, Encoding, GgufValue, GgufWriter, OutputDir, OutputOptions, TensorSink, TensorSpec, decode,
    encode,
};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// Equal bits, or both not a number.
#[track_caller]
fn assert_bits(found: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!(
            f.to_bits() == w.to_bits() || f.is_nan() && w.is_nan(),
            "{what}: element {i} is {f:e}, not {w:e}"
        );
    }
}

#[test]
fn every_decoder_is_exact() {
    let file = Checkpoint::open(golden("decode.safetensors")).unwrap();
    let names: Vec<&str> = file.names().filter_map(|n| n.strip_suffix(".bytes")).collect();
    assert_eq!(names.len(), 22);
    for name in names {
        let encoding: Encoding = name.parse().unwrap();
        let bytes = file.bytes(file.info(&format!("{name}.bytes")).unwrap()).unwrap();
        let wanted = file.decode(file.info(&format!("{name}.values")).unwrap()).unwrap();
        assert!(wanted.len() >= 2);
        let mut found = vec![f32::NAN; wanted.len()];
        assert_eq!(bytes.len() / encoding.block_bytes() * encoding.block_len(), found.len(), "{name}");
        decode(encoding, bytes, &mut found);
        assert_bits(&found, &wanted, name);
    }
}

/// Large tensors are decoded by many tasks: the same numbers as block by block.
#[test]
fn large_tensors_decode_as_small_ones() {
    let file = Checkpoint::open(golden("decode.safetensors")).unwrap();
    for encoding in [Encoding::Q4_1, Encoding::Q6K, Encoding::Bf16] {
        let part = file.bytes(file.info(&format!("{encoding}.bytes")).unwrap()).unwrap();
        let wanted = file.decode(file.info(&format!("{encoding}.values")).unwrap()).unwrap();
        let times = 400_000 / wanted.len();
        let mut found = vec![0.0; wanted.len() * times];
        decode(encoding, &part.repeat(times), &mut found);
        assert_bits(&found, &wanted.repeat(times), encoding.name());
    }
}

#[test]
fn encoding_rounds_to_nearest_even() {
    let file = Checkpoint::open(golden("encode.safetensors")).unwrap();
    let values = file.decode(file.info("values").unwrap()).unwrap();
    for (encoding, nan) in [(Encoding::F16, 0x7c00_u16), (Encoding::Bf16, 0x7f80)] {
        let wanted = file.bytes(file.info(encoding.name()).unwrap()).unwrap();
        let mut found = Vec::new();
        assert!(encode(&values, encoding, &mut found));
        assert_eq!(found.len(), wanted.len());
        for ((v, f), w) in values.iter().zip(found.chunks(2)).zip(wanted.chunks(2)) {
            let [f, w] = [f, w].map(|b| u16::from_le_bytes([b[0], b[1]]));
            assert!(
                f == w || v.is_nan() && f & nan == nan && f & !nan & 0x7fff != 0,
                "{v:e} to {encoding}: {f:x}, not {w:x}"
            );
        }
    }
    let mut found = Vec::new();
    assert!(encode(&values, Encoding::F32, &mut found));
    assert_eq!(found, file.bytes(file.info("values").unwrap()).unwrap());
    assert!(!encode(&values, Encoding::Q8_0, &mut found));
}

#[test]
fn reference_gguf_is_read() {
    let file = Checkpoint::open(golden("reference.gguf")).unwrap();
    let array = |ty, items: Vec<GgufValue>| GgufValue::Array(ty, items);
    let ints = |v: &[i32]| array(5, v.iter().map(|i| GgufValue::I32(*i)).collect());
    let wanted = [
        ("general.architecture", GgufValue::String("test".into())),
        ("general.alignment", GgufValue::U32(64)),
        ("a.u8", GgufValue::U8(200)),
        ("a.i8", GgufValue::I8(-100)),
        ("a.u16", GgufValue::U16(60000)),
        ("a.i16", GgufValue::I16(-30000)),
        ("a.u32", GgufValue::U32(4_000_000_000)),
        ("a.i32", GgufValue::I32(-2_000_000_000)),
        ("a.f32", GgufValue::F32(0.1)),
        ("a.bool", GgufValue::Bool(true)),
        ("a.string", GgufValue::String("Pomona 🍎".into())),
        ("a.u64", GgufValue::U64(1 << 63)),
        ("a.i64", GgufValue::I64(-(1 << 62))),
        ("a.f64", GgufValue::F64(0.1)),
        ("a.strings", GgufValue::strings(["a", "", "ü"])),
        ("a.ints", ints(&[1, -2, 3])),
        ("a.floats", array(6, vec![GgufValue::F32(0.5), GgufValue::F32(1.5)])),
        ("a.nested", array(9, vec![ints(&[1, 2]), ints(&[3])])),
    ];
    for (key, value) in &wanted {
        assert_eq!(file.gguf(key), Some(value), "{key}");
    }
    assert_eq!(file.gguf_metadata().len(), wanted.len());
    let shapes: Vec<_> =
        file.tensors().iter().map(|t| (t.name.as_str(), t.encoding.name(), t.shape.clone())).collect();
    assert_eq!(
        shapes,
        [
            ("scalar_like", "f32", vec![1]),
            ("matrix", "f32", vec![2, 3]),
            ("half", "f16", vec![5]),
            ("cube", "i32", vec![2, 3, 4]),
            ("w.q4_1", "q4_1", vec![3, 64]),
            ("w.q8_0", "q8_0", vec![3, 64]),
        ]
    );
    assert_eq!(file.decode(file.info("matrix").unwrap()).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let q8 = file.decode(file.info("w.q8_0").unwrap()).unwrap();
    let linear = |i: usize| -1.0 + 2.0 * i as f32 / 191.0;
    assert!(q8.iter().enumerate().all(|(i, v)| (v - linear(i)).abs() < 0.005));
}

/// What we write from its parts is the reference writer's file, byte for byte.
#[test]
fn reference_gguf_is_rewritten_byte_for_byte() {
    let source = Checkpoint::open(golden("reference.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut out = OutputDir::create(dir.path().join("out"), &OutputOptions::default()).unwrap();
    let specs: Vec<TensorSpec> = source.tensors().iter().map(TensorSpec::from).collect();
    let mut sink = GgufWriter::new(&mut out, "model.gguf", source.gguf_metadata(), specs).unwrap();
    for (i, t) in source.tensors().iter().enumerate() {
        assert!(sink.begin(i).unwrap());
        if i % 2 == 0 {
            sink.copy_from(t).unwrap();
        } else {
            sink.write(source.bytes(t).unwrap()).unwrap();
        }
        sink.end().unwrap();
    }
    sink.finish().unwrap();
    let path = out.commit().unwrap();
    let [found, wanted] =
        [path.join("model.gguf"), golden("reference.gguf")].map(|p| std::fs::read(p).unwrap());
    assert!(found == wanted, "{} bytes, the reference has {}", found.len(), wanted.len());
}
