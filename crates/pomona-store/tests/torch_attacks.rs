//! Damaged and hostile PyTorch files: each is refused with a message that says what is wrong, and nothing is executed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod hostile;

use hostile::torch::{legacy, one, zip};
use pomona_store::Checkpoint;
use proptest::prelude::*;

fn open(bytes: &[u8]) -> pomona_store::Result<Checkpoint> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.pth");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path)
}

#[track_caller]
fn assert_refused(bytes: &[u8], attack: &str, part: &str) {
    let message = match open(bytes) {
        Ok(file) => panic!("{attack}: was opened with {:?}", file.tensors()),
        Err(e) => e.to_string(),
    };
    assert!(message.contains(part), "{attack}: {message}");
    assert!(message.contains("m.pth"), "{attack}: {message}");
}

#[test]
fn the_builders_make_readable_files() {
    let w = one("0", 6, 0, &[2, 3], &[3, 1]);
    for bytes in [zip(&w, 24), legacy(&w, &["0"], 6, 24)] {
        let file = open(&bytes).unwrap();
        assert_eq!(file.decode(file.info("w").unwrap()).unwrap(), [0.0; 6]);
    }
}

fn refused(attacks: Vec<hostile::Attack>) {
    attacks.iter().for_each(|a| assert_refused(&a.bytes, &a.name, a.part));
}

#[test]
fn names_that_could_run_are_refused_in_both_formats() {
    for (attack, object, part) in hostile::torch::forbidden() {
        assert_refused(&zip(&object, 0), attack, part);
        assert_refused(&zip(&object, 0), attack, "m/data.pkl: ");
        let message = open(&legacy(&object, &[], 0, 0)).unwrap_err().to_string();
        assert!(message.contains("its object: "), "{attack}: {message}");
    }
    assert!(!std::path::Path::new("owned").exists());
}

#[test]
fn broken_pickles_are_refused_with_their_place() {
    refused(hostile::torch::broken());
}

#[test]
fn hostile_tensors_are_refused() {
    refused(hostile::torch::tensors());
    // The strides of an axis of one element are never walked.
    assert!(open(&zip(&one("0", 6, 0, &[1, 6], &[1 << 62, 1]), 24)).is_ok());
}

#[test]
fn bombs_of_nested_and_shared_objects_are_refused() {
    refused(hostile::torch::bombs());
}

#[test]
fn zip_tricks_are_refused() {
    refused(hostile::torch::archives());
}

#[test]
fn broken_legacy_files_are_refused() {
    refused(hostile::torch::legacies());
}

/// Every kind of golden file, with which hostile changes begin.
fn samples() -> Vec<Vec<u8>> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch");
    ["views_zip.pth", "views_legacy.pth", "nested_zip.pth", "nested_legacy.pth", "untyped_zip.pt"]
        .iter()
        .map(|name| std::fs::read(dir.join(name)).unwrap())
        .collect()
}

/// What opens can be read whole.
fn read_all(bytes: &[u8]) {
    if let Ok(file) = open(bytes) {
        for t in file.tensors() {
            let _ = file.decode(t);
            let _ = file.bytes(t).unwrap();
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for sample in samples() {
        for len in (0..sample.len()).step_by(7) {
            assert!(open(&sample[..len]).is_err(), "{len} of {} bytes", sample.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    /// Whatever changes in a good file, it opens or is refused.
    #[test]
    fn changed_files_never_break_the_reader(
        which in 0_usize..5,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = samples().swap_remove(which);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_all(&bytes);
    }

    /// Random instructions in a good frame.
    #[test]
    fn random_pickles_never_break_the_machine(code in prop::collection::vec(any::<u8>(), 0..200)) {
        let object: Vec<u8> = [&[0x80, 2][..], &code].concat();
        read_all(&zip(&object, 24));
        read_all(&legacy(&object, &["0"], 6, 24));
        read_all(&[&b"PK\x03\x04"[..], &code].concat());
    }

    /// Instructions that the machine knows, in random order.
    #[test]
    fn known_instructions_in_any_order_never_break_the_machine(
        code in prop::collection::vec(prop::sample::select(&b".(012NKhqa}])tebsudlRQ\x85\x86\x87\x88\x90\x91\x94\x8f"[..]), 0..300),
    ) {
        read_all(&zip(&[&[0x80, 2][..], &code].concat(), 24));
    }
}
