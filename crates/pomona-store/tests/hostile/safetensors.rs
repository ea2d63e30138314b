//! safetensors files and indices that lie.

use super::{Attack, attacks};

/// A header, and `data` bytes behind it.
pub fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.resize(out.len() + data, 7);
    out
}

/// An entry of a header.
pub fn tensor(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// Two tensors and metadata.
pub fn good() -> Vec<u8> {
    let header = format!(
        "{{\"__metadata__\":{{\"format\":\"pt\"}},{},{}}}",
        tensor("a", "F32", "[2,3]", 0, 24),
        tensor("b", "F4", "[2,4]", 24, 28)
    );
    file(&header, 28)
}

/// Headers that are none.
pub fn headers() -> Vec<Attack> {
    let whole = file(&format!("{{{}}}", tensor("a", "F32", "[2]", 0, 8)), 8);
    attacks([
        ("nothing", vec![], "is empty"),
        ("a few bytes", vec![1, 2, 3], "too few"),
        ("header of 2^64 bytes", [255; 64].to_vec(), "at most 100000000"),
        (
            "header beyond the file",
            [&1000_u64.to_le_bytes()[..], b"{}"].concat(),
            "its header takes 1000 bytes and 2 follow",
        ),
        (
            "truncated data",
            whole[..whole.len() - 1].to_vec(),
            "tensor `a`: ends at byte 8 of the data and the file holds 7",
        ),
        ("trailing data", [&whole[..], &[0]].concat(), "1 bytes that belong to no tensor"),
        ("not JSON", file("{\"a\":", 0), "its header is not what safetensors defines"),
        (
            "not UTF-8",
            {
                let mut b = file("{\"aa\":1}", 0);
                b[10] = 0xff;
                b
            },
            "its header is not",
        ),
        ("an array", file("[]", 0), "an object of tensors"),
        ("deep nesting", file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0), "its header is not"),
        (
            "unknown field",
            file(r#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"code":"x"}}"#, 4),
            "unknown field `code`",
        ),
        (
            "missing field",
            file(r#"{"a":{"dtype":"F32","shape":[]}}"#, 4),
            "tensor `a`: missing field `data_offsets`",
        ),
        ("metadata that is no text", file(r#"{"__metadata__":{"a":1}}"#, 0), "its header is not"),
    ])
}

/// Headers whose tensors do not fit the file, their own shape or each other.
pub fn tensors() -> Vec<Attack> {
    let huge = u64::MAX;
    let cases = [
        ("unknown type", vec![tensor("a", "F128", "[1]", 0, 16)], 16, "tensor `a`: has type F128"),
        (
            "too short for its shape",
            vec![tensor("a", "F32", "[3]", 0, 8)],
            8,
            "shape [3] of f32 takes 12 bytes and its offsets span 8",
        ),
        ("half a byte", vec![tensor("a", "F4", "[3]", 0, 1)], 1, "blocks of 2 elements"),
        ("backwards", vec![tensor("a", "U8", "[4]", 4, 0)], 4, "ends at 0, before it begins at 4"),
        ("outside", vec![tensor("a", "U8", "[4]", 4, 8)], 4, "ends at byte 8 of the data"),
        (
            "far outside",
            vec![tensor("a", "U8", "[4]", huge - 4, huge)],
            4,
            "ends at byte 18446744073709551615",
        ),
        ("negative size", vec![tensor("a", "U8", "[-1]", 0, 4)], 4, "invalid value: integer `-1`"),
        ("overflowing size", vec![tensor("a", "F32", "[4294967296,4294967296]", 0, 0)], 0, "overflows"),
        ("zero hides overflow", vec![tensor("a", "F32", "[0,4294967296,4294967296]", 0, 0)], 0, "overflows"),
        ("many axes", vec![tensor("a", "U8", &format!("[{}1]", "1,".repeat(40)), 0, 1)], 1, "has 41 axes"),
        (
            "same name twice",
            vec![tensor("a", "U8", "[1]", 0, 1), tensor("a", "U8", "[1]", 0, 1)],
            1,
            "`a` stands twice",
        ),
        (
            "overlap",
            vec![tensor("a", "U8", "[2]", 0, 2), tensor("b", "U8", "[2]", 1, 3)],
            3,
            "tensor `b`: overlaps",
        ),
        (
            "same bytes twice",
            vec![tensor("a", "U8", "[2]", 0, 2), tensor("b", "U8", "[2]", 0, 2)],
            2,
            "overlaps",
        ),
        (
            "hole",
            vec![tensor("a", "U8", "[1]", 0, 1), tensor("b", "U8", "[1]", 2, 3)],
            3,
            "tensor `b`: stands behind a hole",
        ),
        ("hole in front", vec![tensor("a", "U8", "[1]", 1, 2)], 2, "stands behind a hole"),
        ("no name", vec![tensor("", "U8", "[1]", 0, 1)], 1, "no name"),
        // Sizes that add up to the file's length only after wrapping around 2^64.
        ("sizes that wrap around", wrapping(), 16, "the file holds 16"),
    ];
    let file = |(name, tensors, data, part): (&'static str, Vec<String>, usize, &'static str)| {
        (name, file(&format!("{{{}}}", tensors.join(",")), data), part)
    };
    attacks(cases.map(file))
}

fn wrapping() -> Vec<String> {
    let step = (1_u64 << 61) - 1;
    let mut tensors: Vec<String> = (0..8)
        .map(|i| tensor(&format!("t{i}"), "U8", &format!("[{step}]"), i * step, (i + 1) * step))
        .collect();
    tensors.push(tensor("z", "U8", "[8]", 8 * step, u64::MAX));
    tensors
}

/// Indices that lie about `s.safetensors` and `t.safetensors`, which both are [`shard`], beside a directory `folder`.
pub fn indices() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("missing shard", r#"{"weight_map":{"a":"gone.safetensors"}}"#, "tensor `a`: is said to be in"),
        ("outside", r#"{"weight_map":{"a":"../secret.safetensors"}}"#, "not inside the directory"),
        ("absolute", r#"{"weight_map":{"a":"/etc/passwd"}}"#, "not inside the directory"),
        ("no file name", r#"{"weight_map":{"a":""}}"#, "not inside the directory"),
        ("a directory", r#"{"weight_map":{"a":"folder"}}"#, "which is missing"),
        (
            "missing tensor",
            r#"{"weight_map":{"a":"s.safetensors","b":"s.safetensors"}}"#,
            "tensor `b`: is missing although",
        ),
        ("in two shards", r#"{"weight_map":{"a":"s.safetensors","a":"t.safetensors"}}"#, "`a` stands twice"),
        ("no tensors", r#"{"weight_map":{}}"#, "names no tensors"),
        ("no map", r#"{}"#, "missing field `weight_map`"),
        ("not JSON", "weights", "not a shard index"),
    ]
}

/// What stands in each shard.
pub fn shard() -> Vec<u8> {
    file(&format!("{{{}}}", tensor("a", "U8", "[1]", 0, 1)), 1)
}
