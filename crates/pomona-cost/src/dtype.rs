//! Bytes of stored elements, by the store's short names.

/// A storage encoding: `bytes` hold `elements` consecutive elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Elements of a block; 1 for plain types.
    pub elements: u64,
    /// Bytes of a block.
    pub bytes: u64,
}

/// Plain types, then GGUF's block types with the sizes of its specification.
const TABLE: &[(&str, u64, u64)] = &[
    ("bool", 1, 1),
    ("u8", 1, 1),
    ("i8", 1, 1),
    ("f8_e4m3", 1, 1),
    ("f8_e5m2", 1, 1),
    ("f8_e8m0", 1, 1),
    ("f8_e4m3fnuz", 1, 1),
    ("f8_e5m2fnuz", 1, 1),
    ("u16", 1, 2),
    ("i16", 1, 2),
    ("f16", 1, 2),
    ("bf16", 1, 2),
    ("u32", 1, 4),
    ("i32", 1, 4),
    ("f32", 1, 4),
    ("u64", 1, 8),
    ("i64", 1, 8),
    ("f64", 1, 8),
    ("c64", 1, 8),
    ("f4", 2, 1),
    ("f6_e2m3", 4, 3),
    ("f6_e3m2", 4, 3),
    ("q4_0", 32, 18),
    ("q4_1", 32, 20),
    ("q5_0", 32, 22),
    ("q5_1", 32, 24),
    ("q8_0", 32, 34),
    ("q8_1", 32, 36),
    ("q2_k", 256, 84),
    ("q3_k", 256, 110),
    ("q4_k", 256, 144),
    ("q5_k", 256, 176),
    ("q6_k", 256, 210),
    ("q8_k", 256, 292),
    ("iq1_s", 256, 50),
    ("iq1_m", 256, 56),
    ("iq2_xxs", 256, 66),
    ("iq2_xs", 256, 74),
    ("iq2_s", 256, 82),
    ("iq3_xxs", 256, 98),
    ("iq3_s", 256, 110),
    ("iq4_nl", 32, 18),
    ("iq4_xs", 256, 136),
    ("tq1_0", 256, 54),
    ("tq2_0", 256, 66),
    ("mxfp4", 32, 17),
    ("nvfp4", 64, 36),
    ("q1_0", 128, 18),
];

/// The encoding of a short name (`bf16`, `q4_k`), in any letter case; none for one that is not known.
pub fn encoding(dtype: &str) -> Option<Encoding> {
    let found = TABLE.iter().find(|(name, ..)| name.eq_ignore_ascii_case(dtype))?;
    Some(Encoding { elements: found.1, bytes: found.2 })
}

/// Bytes of `elements` elements; partial blocks count whole. None for an unknown type or beyond 64 bits.
pub fn stored_bytes(elements: u64, dtype: &str) -> Option<u64> {
    let e = encoding(dtype)?;
    elements.div_ceil(e.elements).checked_mul(e.bytes)
}

/// Whether the type is a plain floating-point one, in which arithmetic can be done.
pub fn is_float(dtype: &str) -> bool {
    ["f16", "bf16", "f32", "f64"].iter().any(|d| d.eq_ignore_ascii_case(dtype))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn blocks_count_whole() {
        let cases = [
            ("f32", 10, 40),
            ("BF16", 10, 20),
            ("q4_0", 32, 18),
            ("q4_0", 33, 36),
            ("q4_1", 4096, 2560),
            ("Q4_K", 4096, 2304),
            ("q6_k", 4096, 3360),
            ("q8_0", 4096, 4352),
            ("f4", 3, 2),
        ];
        for (dtype, elements, bytes) in cases {
            assert_eq!(stored_bytes(elements, dtype), Some(bytes), "{elements} of {dtype}");
        }
    }

    #[test]
    fn every_encoding_of_the_store_has_the_same_blocks() {
        for e in pomona_store::Encoding::ALL {
            let want = Encoding { elements: e.block_len() as u64, bytes: e.block_bytes() as u64 };
            assert_eq!(encoding(e.name()), Some(want), "{e}");
            assert_eq!(is_float(e.name()), e.is_plain_float(), "{e}");
        }
    }

    #[test]
    fn unknown_types_and_overflow_give_nothing() {
        assert_eq!(stored_bytes(1, "q9_9"), None);
        assert_eq!(stored_bytes(u64::MAX, "f32"), None);
    }
}
