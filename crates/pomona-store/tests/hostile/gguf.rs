//! GGUF files that lie.

use super::{Attack, attacks};

#[derive(Default)]
pub struct Builder {
    metadata: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

pub fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

pub fn array(ty: u32, count: u64, items: &[u8]) -> Vec<u8> {
    [&ty.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
}

impl Builder {
    pub fn meta(mut self, key: &str, ty: u32, value: &[u8]) -> Self {
        self.metadata.push([&string(key)[..], &ty.to_le_bytes(), value].concat());
        self
    }

    /// `axes` in the file's order, fastest first.
    pub fn tensor(mut self, name: &str, axes: &[u64], ty: u32, offset: u64) -> Self {
        let axes_bytes: Vec<u8> = axes.iter().flat_map(|a| a.to_le_bytes()).collect();
        let count = (axes.len() as u32).to_le_bytes();
        let parts = [&string(name)[..], &count, &axes_bytes, &ty.to_le_bytes(), &offset.to_le_bytes()];
        self.tensors.push(parts.concat());
        self
    }

    pub fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.metadata.len() as u64];
        self.with_head(b"GGUF", 3, counts)
    }

    pub fn with_head(&self, magic: &[u8], version: u32, counts: [u64; 2]) -> Vec<u8> {
        let mut out =
            [magic, &version.to_le_bytes(), &counts[0].to_le_bytes(), &counts[1].to_le_bytes()].concat();
        out.extend(self.metadata.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(32) + self.data, 0);
        out
    }
}

pub fn new() -> Builder {
    Builder::default()
}

/// A file with arrays of strings and of arrays, and two tensors.
pub fn good() -> Vec<u8> {
    new()
        .meta("k", 9, &array(8, 2, &[string("x"), string("yz")].concat()))
        .meta("n", 9, &array(9, 1, &array(4, 2, &[0; 8])))
        .tensor("a", &[64, 2], 3, 0)
        .tensor("b", &[4], 0, 96)
        .data(112)
        .bytes()
}

/// Magic, version and counts.
pub fn headers() -> Vec<Attack> {
    let none = new();
    attacks([
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
    ])
}

/// Keys and values.
pub fn metadata() -> Vec<Attack> {
    let nested = (0..6).fold(array(4, 0, &[]), |inner, _| array(9, 1, &inner));
    let cases = [
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
        ("a key without a name", new().meta("", 7, &[1]), "a metadata key has no name"),
        ("alignment 0", new().meta("general.alignment", 4, &0_u32.to_le_bytes()), "power of two"),
        ("alignment 48", new().meta("general.alignment", 4, &48_u32.to_le_bytes()), "power of two"),
        (
            "alignment of 2 GiB",
            new().meta("general.alignment", 4, &(1_u32 << 31).to_le_bytes()),
            "power of two",
        ),
        ("alignment as text", new().meta("general.alignment", 8, &string("32")), "power of two"),
    ];
    attacks(cases.map(|(name, file, part)| (name, file.data(64).bytes(), part)))
}

/// The table of tensors against itself and the data.
pub fn tensors() -> Vec<Attack> {
    let cases = [
        ("no name", new().tensor("", &[4], 0, 0).data(32), "a tensor name has 0 bytes"),
        ("five axes", new().tensor("a", &[1; 5], 0, 0).data(32), "tensor `a`: has 5 axes"),
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
    ];
    let mut out = attacks(cases.map(|(name, file, part)| (name, file.bytes(), part)));
    let mut bytes = new().tensor("a", &[], 0, 0).data(32).bytes();
    let at = 24 + 8 + 1;
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    out.push(Attack { name: "2^32 axes".to_owned(), bytes, part: "has 4294967295 axes" });
    out
}

/// One byte of file must not become many bytes of memory without a bound.
pub fn bombs() -> Vec<Attack> {
    let bytes = |count: u64| new().meta("k", 9, &array(0, count, &vec![0; count as usize])).bytes();
    attacks([("4 million bytes as values", bytes(4 << 20), "bytes of header are worth")])
}
