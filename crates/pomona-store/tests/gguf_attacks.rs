//! Damaged and hostile GGUF files: each is refused with a message that says what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use pomona_store::{Checkpoint, Encoding};
use proptest::prelude::*;

#[derive(Default)]
struct Builder {
    metadata: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

fn array(ty: u32, count: u64, items: &[u8]) -> Vec<u8> {
    [&ty.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
}

impl Builder {
    fn meta(mut self, key: &str, ty: u32, value: &[u8]) -> Self {
        self.metadata.push([&string(key)[..], &ty.to_le_bytes(), value].concat());
        self
    }

    /// `axes` in the file's order, fastest first.
    fn tensor(mut self, name: &str, axes: &[u64], ty: u32, offset: u64) -> Self {
        let axes_bytes: Vec<u8> = axes.iter().flat_map(|a| a.to_le_bytes()).collect();
        let count = (axes.len() as u32).to_le_bytes();
        let parts = [&string(name)[..], &count, &axes_bytes, &ty.to_le_bytes(), &offset.to_le_bytes()];
        self.tensors.push(parts.concat());
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.metadata.len() as u64];
        self.with_head(b"GGUF", 3, counts)
    }

    fn with_head(&self, magic: &[u8], version: u32, counts: [u64; 2]) -> Vec<u8> {
        let mut out =
            [magic, &version.to_le_bytes(), &counts[0].to_le_bytes(), &counts[1].to_le_bytes()].concat();
        out.extend(self.metadata.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(32) + self.data, 0);
        out
    }
}

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

fn new() -> Builder {
    Builder::default()
}

#[test]
fn headers_that_lie_are_refused() {
    let none = new();
    for (attack, bytes, part) in [
        ("other magic", none.with_head(b"GGML", 3, [0, 0]), "does not begin with `GGUF`"),
        ("only magic", b"GGUF".to_vec(), "version at byte 4 needs 4 bytes and 0 follow"),
        ("big-endian", none.with_head(b"GGUF", 3_u32.swap_bytes(), [0, 0]), "big-endian"),
        ("version 1", none.with_head(b"GGUF", 1, [0, 0]), "version 1"),
        ("version 99", none.with_head(b"GGUF", 99, [0, 0]), "version 99"),
        (
            "2^63 tensors",
            none.with_head(b"GGUF", 3, [1 << 63, 0]),
            "number of tensors is 9223372036854775808",
        ),
        ("2^40 keys", none.with_head(b"GGUF", 3, [0, 1 << 40]), "number of metadata entries"),
        (
            "more tensors than there are",
            new().data(4096).with_head(b"GGUF", 3, [100, 0]),
            "a tensor name has 0 bytes",
        ),
    ] {
        assert_refused(&bytes, attack, part);
    }
}

#[test]
fn metadata_that_lies_is_refused() {
    let nested = (0..6).fold(array(4, 0, &[]), |inner, _| array(9, 1, &inner));
    for (attack, file, part) in [
        ("unknown type", new().meta("k", 13, &[0; 8]), "metadata `k` has type 13"),
        ("array of unknown type", new().meta("k", 9, &array(77, 1, &[0; 8])), "is an array of type 77"),
        ("endless string", new().meta("k", 8, &u64::MAX.to_le_bytes()), "needs 18446744073709551615 bytes"),
        (
            "endless array",
            new().meta("k", 9, &array(0, 1 << 60, &[])),
            "length of metadata `k` is 1152921504606846976",
        ),
        ("arrays in arrays in arrays", new().meta("k", 9, &nested), "nests arrays deeper than 4"),
        (
            "not UTF-8",
            new().meta("k", 8, &[&2_u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
            "is not UTF-8",
        ),
        ("truth of 2", new().meta("k", 7, &[2]), "truth value 2"),
        ("same key twice", new().meta("k", 7, &[1]).meta("k", 7, &[1]), "`k` stands twice"),
        ("alignment 0", new().meta("general.alignment", 4, &0_u32.to_le_bytes()), "power of two"),
        ("alignment 48", new().meta("general.alignment", 4, &48_u32.to_le_bytes()), "power of two"),
        (
            "alignment of 2 GiB",
            new().meta("general.alignment", 4, &(1_u32 << 31).to_le_bytes()),
            "power of two",
        ),
        ("alignment as text", new().meta("general.alignment", 8, &string("32")), "power of two"),
    ] {
        assert_refused(&file.data(64).bytes(), attack, part);
    }
}

/// One byte of file must not become 32 bytes of memory without a bound.
#[test]
fn arrays_that_would_fill_memory_are_refused() {
    let count = 17_u64 << 20;
    let file = new().meta("k", 9, &array(0, count, &vec![0; count as usize]));
    assert_refused(&file.bytes(), "17 million values", "16777216 are read");
}

#[test]
fn tensors_that_lie_are_refused() {
    for (attack, file, part) in [
        ("no name", new().tensor("", &[4], 0, 0).data(32), "a tensor name has 0 bytes"),
        ("five axes", new().tensor("a", &[1; 5], 0, 0).data(32), "tensor `a`: has 5 axes"),
        ("2^32 axes", new().tensor("a", &[], 0, 0).data(32), ""),
        ("type 4 billion", new().tensor("a", &[4], u32::MAX, 0).data(32), "has ggml type 4294967295"),
        ("part of a block", new().tensor("a", &[33], 2, 0).data(64), "blocks of 32 elements"),
        ("overflowing shape", new().tensor("a", &[1 << 40, 1 << 40], 0, 0).data(32), "overflows"),
        ("zero hides overflow", new().tensor("a", &[1 << 40, 1 << 40, 0], 0, 0).data(32), "overflows"),
        ("axis of 2^64", new().tensor("a", &[u64::MAX], 24, 0).data(32), "does not fit memory"),
        ("not aligned", new().tensor("a", &[4], 0, 8).data(64), "not a multiple of the alignment 32"),
        (
            "truncated",
            new().tensor("a", &[64], 0, 0).data(255),
            "takes 256 bytes at byte 0 of the data and the file holds 255",
        ),
        ("far outside", new().tensor("a", &[4], 0, 1 << 63).data(64), "stands behind a hole"),
        (
            "overlap",
            new().tensor("a", &[16], 0, 0).tensor("b", &[16], 0, 32).data(128),
            "tensor `b`: overlaps",
        ),
        ("same bytes twice", new().tensor("a", &[8], 0, 0).tensor("b", &[8], 0, 0).data(64), "overlaps"),
        (
            "hole",
            new().tensor("a", &[8], 0, 0).tensor("b", &[8], 0, 64).data(128),
            "tensor `b`: stands behind a hole",
        ),
        ("hole in front", new().tensor("a", &[8], 0, 32).data(64), "stands behind a hole"),
        (
            "same name twice",
            new().tensor("a", &[8], 0, 0).tensor("a", &[8], 0, 32).data(64),
            "tensor `a`: stands twice",
        ),
        (
            "unknown type outside",
            new().tensor("a", &[8], 99, 0).tensor("b", &[8], 99, 1 << 62).data(64),
            "the file is truncated",
        ),
    ] {
        if attack != "2^32 axes" {
            assert_refused(&file.bytes(), attack, part);
            continue;
        }
        let mut bytes = file.bytes();
        let at = 24 + 8 + 1;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_refused(&bytes, attack, "has 4294967295 axes");
    }
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
        let file = new()
            .meta("k", 9, &array(8, 2, &[string("x"), string("yz")].concat()))
            .meta("n", 9, &array(9, 1, &array(4, 2, &[0; 8])))
            .tensor("a", &[64, 2], 3, 0)
            .tensor("b", &[4], 0, 96)
            .data(112);
        let mut bytes = file.bytes();
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
