//! Damaged and hostile safetensors files: each is refused with a message that says what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod hostile;

use std::path::Path;

use pomona_store::Checkpoint;
use proptest::prelude::*;

fn refused(attacks: Vec<hostile::Attack>) {
    attacks.iter().for_each(|a| assert_refused(&a.bytes, &a.name, a.part));
}

#[track_caller]
fn assert_refused(bytes: &[u8], attack: &str, part: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let message = Checkpoint::open(&path).expect_err(attack).to_string();
    assert!(message.contains(part) && message.contains("model.safetensors"), "{attack}: {message}");
}

#[test]
fn headers_that_lie_are_refused() {
    refused(hostile::safetensors::headers());
}

#[test]
fn tensors_that_lie_are_refused() {
    refused(hostile::safetensors::tensors());
}

#[test]
fn every_truncation_is_refused() {
    let good = hostile::safetensors::good();
    for len in 0..good.len() {
        assert_refused(&good[..len], &format!("{len} of {} bytes", good.len()), "");
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[test]
fn indices_that_lie_are_refused() {
    let shard = hostile::safetensors::shard();
    for (attack, index, part) in hostile::safetensors::indices() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        write(&dir.path().join("secret.safetensors"), &shard);
        write(&model.join("s.safetensors"), &shard);
        write(&model.join("t.safetensors"), &shard);
        write(&model.join("folder/inside"), "");
        write(&model.join("model.safetensors.index.json"), index);
        let message = Checkpoint::open(&model).expect_err(attack).to_string();
        assert!(message.contains(part), "{attack}: {message}");
    }
}

#[test]
fn what_is_no_checkpoint_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("empty/readme.txt"), "");
    write(&dir.path().join("model.bin"), "PK");
    write(&dir.path().join("notes.doc"), "PK");
    for (name, part) in [
        ("empty", "it has: readme.txt"),
        ("model.bin", "give a file that torch.save made"),
        ("notes.doc", "give a .safetensors"),
        ("gone.gguf", "cannot be opened"),
    ] {
        let message = Checkpoint::open(dir.path().join(name)).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(name), "{message}");
    }
    let pipe = Path::new("/dev/null");
    assert!(Checkpoint::open(pipe).unwrap_err().to_string().contains("not a regular file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever changes in a valid file, it opens or is refused; what opens can be read whole.
    #[test]
    fn changed_files_never_break_the_reader(edits in prop::collection::vec((0_usize..400, any::<u8>()), 1..6), cut in 0_usize..400) {
        let mut bytes = hostile::safetensors::good();
        for (at, value) in edits {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        if cut < 40 {
            bytes.truncate(bytes.len() - cut);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(file) = Checkpoint::open(&path) {
            for t in file.tensors() {
                prop_assert_eq!(file.bytes(t).unwrap().len() as u64, t.len);
                let _ = file.decode(t);
            }
        }
    }
}
