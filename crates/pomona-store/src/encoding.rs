//! How the elements of a tensor are stored: every type of safetensors and of GGUF, with its block geometry.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! encodings {
    ($($variant:ident $name:literal st:$st:tt ggml:$ggml:tt block:$len:literal bits:$bits:literal;)*) => {
        /// Encoding of a tensor's elements. Blocks run along the last axis.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Encoding {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
            /// A ggml type whose block size is not known (`ggml_` and its number): listed, and refused where its size
            /// must be known.
            Ggml(u8),
        }

        impl Encoding {
            /// Every encoding of known size.
            pub const ALL: &'static [Encoding] = &[$(Encoding::$variant),*];

            /// Short lower-case name (`f32`, `bf16`, `q4_1`), as graphs and plans write it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Encoding::$variant => $name,)*
                    Encoding::Ggml(id) => unknown::name(id),
                }
            }

            /// Elements in a block; 1 where the size is not known.
            pub fn block_len(self) -> usize {
                match self { $(Encoding::$variant => $len,)* Encoding::Ggml(_) => 1 }
            }

            /// Bits of a block.
            fn block_bits(self) -> usize {
                match self { $(Encoding::$variant => $bits,)* Encoding::Ggml(_) => 0 }
            }

            /// Name of the type in a safetensors header, where that format has it.
            pub fn safetensors_name(self) -> Option<&'static str> {
                match self { $(Encoding::$variant => encodings!(@st $st),)* Encoding::Ggml(_) => None }
            }

            /// Number of the type in GGUF, where that format has it.
            pub fn ggml_type(self) -> Option<u32> {
                match self {
                    $(Encoding::$variant => encodings!(@ggml $ggml),)*
                    Encoding::Ggml(id) => Some(id.into()),
                }
            }
        }
    };
    (@st -) => { None };
    (@st $name:literal) => { Some($name) };
    (@ggml -) => { None };
    (@ggml $id:literal) => { Some($id) };
}

encodings! {
    F64 "f64" st:"F64" ggml:28 block:1 bits:64;
    F32 "f32" st:"F32" ggml:0 block:1 bits:32;
    F16 "f16" st:"F16" ggml:1 block:1 bits:16;
    Bf16 "bf16" st:"BF16" ggml:30 block:1 bits:16;
    F8E4m3 "f8_e4m3" st:"F8_E4M3" ggml:- block:1 bits:8;
    F8E5m2 "f8_e5m2" st:"F8_E5M2" ggml:- block:1 bits:8;
    F8E8m0 "f8_e8m0" st:"F8_E8M0" ggml:- block:1 bits:8;
    F8E4m3Fnuz "f8_e4m3fnuz" st:"F8_E4M3FNUZ" ggml:- block:1 bits:8;
    F8E5m2Fnuz "f8_e5m2fnuz" st:"F8_E5M2FNUZ" ggml:- block:1 bits:8;
    F6E2m3 "f6_e2m3" st:"F6_E2M3" ggml:- block:4 bits:24;
    F6E3m2 "f6_e3m2" st:"F6_E3M2" ggml:- block:4 bits:24;
    F4 "f4" st:"F4" ggml:- block:2 bits:8;
    C64 "c64" st:"C64" ggml:- block:1 bits:64;
    I64 "i64" st:"I64" ggml:27 block:1 bits:64;
    I32 "i32" st:"I32" ggml:26 block:1 bits:32;
    I16 "i16" st:"I16" ggml:25 block:1 bits:16;
    I8 "i8" st:"I8" ggml:24 block:1 bits:8;
    U64 "u64" st:"U64" ggml:- block:1 bits:64;
    U32 "u32" st:"U32" ggml:- block:1 bits:32;
    U16 "u16" st:"U16" ggml:- block:1 bits:16;
    U8 "u8" st:"U8" ggml:- block:1 bits:8;
    Bool "bool" st:"BOOL" ggml:- block:1 bits:8;
    Q4_0 "q4_0" st:- ggml:2 block:32 bits:144;
    Q4_1 "q4_1" st:- ggml:3 block:32 bits:160;
    Q5_0 "q5_0" st:- ggml:6 block:32 bits:176;
    Q5_1 "q5_1" st:- ggml:7 block:32 bits:192;
    Q8_0 "q8_0" st:- ggml:8 block:32 bits:272;
    Q8_1 "q8_1" st:- ggml:9 block:32 bits:288;
    Q2K "q2_k" st:- ggml:10 block:256 bits:672;
    Q3K "q3_k" st:- ggml:11 block:256 bits:880;
    Q4K "q4_k" st:- ggml:12 block:256 bits:1152;
    Q5K "q5_k" st:- ggml:13 block:256 bits:1408;
    Q6K "q6_k" st:- ggml:14 block:256 bits:1680;
    Q8K "q8_k" st:- ggml:15 block:256 bits:2336;
    Iq2Xxs "iq2_xxs" st:- ggml:16 block:256 bits:528;
    Iq2Xs "iq2_xs" st:- ggml:17 block:256 bits:592;
    Iq3Xxs "iq3_xxs" st:- ggml:18 block:256 bits:784;
    Iq1S "iq1_s" st:- ggml:19 block:256 bits:400;
    Iq4Nl "iq4_nl" st:- ggml:20 block:32 bits:144;
    Iq3S "iq3_s" st:- ggml:21 block:256 bits:880;
    Iq2S "iq2_s" st:- ggml:22 block:256 bits:656;
    Iq4Xs "iq4_xs" st:- ggml:23 block:256 bits:1088;
    Iq1M "iq1_m" st:- ggml:29 block:256 bits:448;
    Tq1_0 "tq1_0" st:- ggml:34 block:256 bits:432;
    Tq2_0 "tq2_0" st:- ggml:35 block:256 bits:528;
    Mxfp4 "mxfp4" st:- ggml:39 block:32 bits:136;
    Nvfp4 "nvfp4" st:- ggml:40 block:64 bits:288;
    Q1_0 "q1_0" st:- ggml:41 block:128 bits:144;
}

impl Encoding {
    /// Bytes of a block; 0 where the size is not known.
    pub fn block_bytes(self) -> usize {
        self.block_bits() / 8
    }

    /// Bytes to whose multiple a reader wants data to begin: the element's size, 1 for blocks.
    pub fn alignment(self) -> u64 {
        if self.block_len() == 1 { (self.block_bytes() as u64).max(1) } else { 1 }
    }

    /// Bytes of a tensor of this shape (row-major, slowest axis first).
    ///
    /// # Errors
    /// The reason, where the last axis does not hold whole blocks, the size overflows, or the type is not known.
    pub fn bytes_for(self, shape: &[usize]) -> Result<u64, String> {
        if let Encoding::Ggml(id) = self {
            return Err(match id {
                4 | 5 | 31..=33 | 36..=38 => {
                    format!("ggml type {id} was withdrawn from llama.cpp: quantise the original model again")
                }
                _ => format!(
                    "ggml type {id} has no block size known to this version: it can be listed, not copied"
                ),
            });
        }
        // An axis of 0 must not hide others that overflow: strides are computed from them.
        let overflow = || format!("the size of shape {shape:?} overflows");
        let extent =
            shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d.max(1) as u64)).ok_or_else(overflow)?;
        let elements = if shape.contains(&0) { 0 } else { extent };
        let last = shape.last().copied().unwrap_or(1) as u64;
        // Formats pack sub-byte floats over the whole tensor; ggml blocks never cross a row.
        let blocked = if self.ggml_type().is_some() { last } else { elements };
        let len = self.block_len() as u64;
        if blocked % len != 0 {
            return Err(format!("{self} stores blocks of {len} elements; {blocked} is not a multiple of it"));
        }
        let bytes = extent.div_ceil(len).checked_mul(self.block_bytes() as u64);
        if extent > isize::MAX as u64 || bytes.is_none_or(|n| n > isize::MAX as u64) {
            return Err(overflow());
        }
        Ok(elements / len * self.block_bytes() as u64)
    }

    /// Floating point of one number an element (`f64`, `f32`, `f16`, `bf16`).
    pub fn is_plain_float(self) -> bool {
        matches!(self, Encoding::F64 | Encoding::F32 | Encoding::F16 | Encoding::Bf16)
    }

    /// The encoding of a name.
    pub fn from_name(name: &str) -> Option<Encoding> {
        Self::ALL.iter().copied().find(|e| e.name() == name).or_else(|| unknown::from_name(name))
    }

    /// The encoding of a safetensors type name.
    pub fn from_safetensors(name: &str) -> Option<Encoding> {
        Self::ALL.iter().copied().find(|e| e.safetensors_name() == Some(name))
    }

    /// The encoding of a GGUF type number: [`Encoding::Ggml`] for one that is not known, none beyond 255.
    pub fn from_ggml(id: u32) -> Option<Encoding> {
        let known = Self::ALL.iter().copied().find(|e| e.ggml_type() == Some(id));
        known.or_else(|| u8::try_from(id).ok().map(Encoding::Ggml))
    }
}

/// Names of ggml types that have none here: `ggml_0` to `ggml_255`.
mod unknown {
    use super::Encoding;

    const PREFIX: &[u8; 5] = b"ggml_";

    const fn names() -> [([u8; 8], usize); 256] {
        let mut all = [([0; 8], 0); 256];
        let mut id = 0;
        while id < 256 {
            let mut text = [0_u8; 8];
            let mut at = 0;
            while at < PREFIX.len() {
                text[at] = PREFIX[at];
                at += 1;
            }
            let mut unit = 100;
            while unit > 0 {
                if id >= unit || unit == 1 {
                    text[at] = b'0' + (id / unit % 10) as u8;
                    at += 1;
                }
                unit /= 10;
            }
            all[id] = (text, at);
            id += 1;
        }
        all
    }

    static NAMES: [([u8; 8], usize); 256] = names();

    pub(super) fn name(id: u8) -> &'static str {
        let (text, len) = &NAMES[usize::from(id)];
        // ASCII by construction.
        std::str::from_utf8(&text[..*len]).unwrap_or("ggml")
    }

    pub(super) fn from_name(text: &str) -> Option<Encoding> {
        let id: u8 = text.strip_prefix("ggml_")?.parse().ok()?;
        let unknown = Encoding::from_ggml(id.into()).filter(|e| matches!(e, Encoding::Ggml(_)))?;
        (name(id) == text).then_some(unknown)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::from_name(s).ok_or_else(|| format!("unknown encoding `{s}`"))
    }
}

impl Serialize for Encoding {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sizes_are_those_of_the_formats() {
        for (name, shape, bytes) in [
            ("f32", vec![3, 5], 60),
            ("bf16", vec![], 2),
            ("q4_1", vec![2, 64], 80),
            ("q8_0", vec![3, 32], 102),
            ("q6_k", vec![2, 512], 840),
            ("f4", vec![3, 2], 3),
            ("f6_e2m3", vec![8], 6),
            ("f4", vec![0], 0),
            ("q4_k", vec![0, 256], 0),
        ] {
            assert_eq!(Encoding::from_name(name).unwrap().bytes_for(&shape), Ok(bytes), "{name}");
        }
        assert!(Encoding::Q4_1.bytes_for(&[32, 33]).unwrap_err().contains("blocks of 32"));
        for shape in
            [vec![usize::MAX, 8], vec![0, 1 << 40, 1 << 40], vec![1 << 40, 1 << 40, 0], vec![1 << 61]]
        {
            assert!(Encoding::F32.bytes_for(&shape).unwrap_err().contains("overflows"), "{shape:?}");
        }
        assert!(Encoding::F4.bytes_for(&[3]).unwrap_err().contains("blocks of 2"));
    }

    #[test]
    fn unknown_ggml_types_keep_their_number_and_have_no_size() {
        for (id, name) in [(4, "ggml_4"), (36, "ggml_36"), (200, "ggml_200")] {
            let e = Encoding::from_ggml(id).unwrap();
            assert_eq!((e.name(), e.ggml_type(), Encoding::from_name(name)), (name, Some(id), Some(e)));
            assert!(e.bytes_for(&[32]).unwrap_err().contains(&format!("ggml type {id}")));
        }
        // A known type has one name only, and numbers that no version of ggml comes near are damage.
        assert_eq!(Encoding::from_name("ggml_2"), None);
        assert_eq!(Encoding::from_name("ggml_036"), None);
        assert_eq!(Encoding::from_ggml(256), None);
    }

    #[test]
    fn names_and_numbers_are_unique() {
        for &e in Encoding::ALL {
            assert_eq!(Encoding::from_name(e.name()), Some(e));
            assert!(e.ggml_type().is_none_or(|id| Encoding::from_ggml(id) == Some(e)));
            assert!(e.safetensors_name().is_none_or(|n| Encoding::from_safetensors(n) == Some(e)));
        }
    }
}
