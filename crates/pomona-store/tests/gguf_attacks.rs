//! Damaged and hostile GGUF files: each is refused with a message that says what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod hostile;

use hostile::gguf::{Builder, new, string};
use pomona_store::{Checkpoint, Encoding};
use proptest::prelude::*;

fn open(bytes: &[u8]) -> Result<Checkpoint, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path).map_err(|e| e.to_string())
}

#[track_caller]
fn assert_refused(bytes: &[u8], attack: &str, part: &str) {
    let message = open(bytes).expect_err(attack);
    assert!(message.contains(part) && message.contains("model.gguf"), "{attack}: {message}");
}

fn refused(attacks: Vec<hostile::Attack>) {
    attacks.iter().for_each(|a| assert_refused(&a.bytes, &a.name, a.part));
}

#[test]
fn headers_that_lie_are_refused() {
    refused(hostile::gguf::headers());
}

#[test]
fn metadata_that_lies_is_refused() {
    refused(hostile::gguf::metadata());
}

#[test]
fn arrays_that_would_fill_memory_are_refused() {
    refused(hostile::gguf::bombs());
}

#[test]
fn tensors_that_lie_are_refused() {
    refused(hostile::gguf::tensors());
}

#[test]
fn every_truncation_is_refused() {
    let good = hostile::gguf::good();
    for len in 0..good.len() {
        assert_refused(&good[..len], &format!("{len} of {} bytes", good.len()), "");
    }
}

/// Found by fuzzing: the file opened, and its tensor could not be read.
#[test]
fn an_empty_tensor_behind_the_end_is_refused() {
    let bytes = new().tensor("a", &[0], 0, 0).data(0).bytes();
    let file = open(&bytes).unwrap();
    assert!(file.decode(file.info("a").unwrap()).unwrap().is_empty());
    // The header takes 57 bytes, and the data would begin at 64.
    assert_refused(
        &bytes[..bytes.len() - 1],
        "an empty tensor behind the end",
        "tensor `a`: begins behind byte",
    );
}

#[test]
fn version_2_and_alignment_are_read() {
    let file = new().meta("general.alignment", 4, &64_u32.to_le_bytes()).tensor("a", &[3, 2], 0, 0);
    let mut bytes = file.with_head(b"GGUF", 2, [1, 1]);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes.extend([1.5_f32; 6].iter().flat_map(|v| v.to_le_bytes()));
    let file = open(&bytes).unwrap();
    let a = file.info("a").unwrap();
    assert_eq!((a.shape.as_slice(), a.offset % 64), (&[2, 3][..], 0));
    assert_eq!(file.decode(a).unwrap(), [1.5; 6]);
    assert_eq!(file.decode_rows(a, 1..2).unwrap(), [1.5; 3]);
}

/// A type newer than this program: its tensor is listed, the others are usable.
#[test]
fn unknown_types_are_listed_with_the_bytes_up_to_the_next_tensor() {
    let file = new().tensor("a", &[8], 99, 0).tensor("b", &[2], 0, 96).tensor("c", &[8], 31, 128).data(200);
    let file = open(&file.bytes()).unwrap();
    let lens: Vec<_> = file.tensors().iter().map(|t| (t.encoding, t.len)).collect();
    assert_eq!(lens, [(Encoding::Ggml(99), 96), (Encoding::F32, 8), (Encoding::Ggml(31), 72)]);
    assert_eq!(file.decode(file.info("b").unwrap()).unwrap(), [0.0; 2]);
    let message = file.decode(file.info("a").unwrap()).unwrap_err().to_string();
    assert!(message.contains("stored as ggml_99"), "{message}");
}

#[test]
fn split_models_open_from_any_part_and_miss_none() {
    let dir = tempfile::tempdir().unwrap();
    let part = |no: u16, name: &str| {
        let counts = |b: Builder| {
            b.meta("split.no", 2, &no.to_le_bytes()).meta("split.count", 2, &2_u16.to_le_bytes()).meta(
                "split.tensors.count",
                5,
                &2_i32.to_le_bytes(),
            )
        };
        let base = if no == 0 { new().meta("general.name", 8, &string("m")) } else { new() };
        counts(base).tensor(name, &[8], 0, 0).data(32).bytes()
    };
    let paths = [1, 2].map(|i| dir.path().join(format!("m-0000{i}-of-00002.gguf")));
    std::fs::write(&paths[0], part(0, "a")).unwrap();
    let message = Checkpoint::open(&paths[0]).unwrap_err().to_string();
    assert!(message.contains("m-00002-of-00002.gguf is missing"), "{message}");
    std::fs::write(&paths[1], part(1, "b")).unwrap();
    for path in [paths[0].as_path(), &paths[1], dir.path()] {
        let file = Checkpoint::open(path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
        let keys: Vec<_> = file.gguf_metadata().iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["general.name"]);
        assert_eq!(file.files().count(), 2);
    }
    std::fs::write(&paths[1], part(1, "a")).unwrap();
    assert!(Checkpoint::open(&paths[0]).unwrap_err().to_string().contains("tensor `a`: stands twice"));
    let renamed = dir.path().join("renamed.gguf");
    std::fs::rename(&paths[0], &renamed).unwrap();
    assert!(Checkpoint::open(&renamed).unwrap_err().to_string().contains("-00001-of-00002.gguf"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Whatever changes in a valid file, it opens or is refused; what opens can be read whole.
    #[test]
    fn changed_files_never_break_the_reader(edits in prop::collection::vec((0_usize..400, any::<u8>()), 1..6), cut in 0_usize..400) {
        let mut bytes = hostile::gguf::good();
        prop_assert!(open(&bytes).is_ok());
        for (at, value) in edits {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(if cut < 40 { cut } else { 0 }));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(file) = Checkpoint::open(&path) {
            for t in file.tensors() {
                prop_assert_eq!(file.bytes(t).unwrap().len() as u64, t.len);
                let _ = file.decode(t);
            }
        }
    }
}
