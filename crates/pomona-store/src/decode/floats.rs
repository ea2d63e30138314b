//! Plain numbers.

use half::{bf16, f16};

use crate::encoding::Encoding;

macro_rules! number {
    ($name:ident, $size:literal, |$b:ident| $value:expr) => {
        pub(super) fn $name(bytes: &[u8], out: &mut [f32]) {
            for (chunk, o) in bytes.as_chunks::<$size>().0.iter().zip(out) {
                let $b = *chunk;
                *o = $value;
            }
        }
    };
}

number!(f64, 8, |b| f64::from_le_bytes(b) as f32);
number!(f32, 4, |b| f32::from_le_bytes(b));
number!(f16, 2, |b| f16::from_le_bytes(b).to_f32());
number!(bf16, 2, |b| bf16::from_le_bytes(b).to_f32());
number!(i64, 8, |b| i64::from_le_bytes(b) as f32);
number!(i32, 4, |b| i32::from_le_bytes(b) as f32);
number!(i16, 2, |b| i16::from_le_bytes(b).into());
number!(i8, 1, |b| i8::from_le_bytes(b).into());
number!(u64, 8, |b| u64::from_le_bytes(b) as f32);
number!(u32, 4, |b| u32::from_le_bytes(b) as f32);
number!(u16, 2, |b| u16::from_le_bytes(b).into());
number!(u8, 1, |b| b[0].into());
number!(f8_e4m3, 1, |b| e4m3(b[0]));
number!(f8_e5m2, 1, |b| f16::from_le_bytes([0, b[0]]).to_f32());

/// Four exponent bits with bias 7, three mantissa bits; no infinities, NaN where all are set.
fn e4m3(b: u8) -> f32 {
    let sign = if b & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(b >> 3 & 15), f32::from(b & 7));
    match (exponent, b & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * mantissa * 2.0_f32.powi(-9),
        _ => sign * (8.0 + mantissa) * 2.0_f32.powi(exponent - 10),
    }
}

/// Encodes as `f32`, `f16` or `bf16`, rounding to nearest even, appended to `out`; false for any other encoding.
pub fn encode(values: &[f32], encoding: Encoding, out: &mut Vec<u8>) -> bool {
    match encoding {
        Encoding::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        Encoding::F16 => out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
        Encoding::Bf16 => out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
        _ => return false,
    }
    true
}
