//! Stored elements to f32, bit-exact with the reference decoders, and f32 to plain floats.

mod blocks;
mod floats;

use rayon::prelude::*;

use crate::encoding::Encoding;

pub use floats::encode;

/// Elements that one task decodes: large enough to hide the scheduling, small enough to balance.
const CHUNK: usize = 1 << 16;

/// Whether [`decode`] knows the encoding.
pub fn can_decode(encoding: Encoding) -> bool {
    block_decoder(encoding).is_some()
}

type Decoder = fn(&[u8], &mut [f32]);

fn block_decoder(encoding: Encoding) -> Option<Decoder> {
    use Encoding as E;
    Some(match encoding {
        E::F64 => floats::f64,
        E::F32 => floats::f32,
        E::F16 => floats::f16,
        E::Bf16 => floats::bf16,
        E::F8E4m3 => floats::f8_e4m3,
        E::F8E5m2 => floats::f8_e5m2,
        E::I64 => floats::i64,
        E::I32 => floats::i32,
        E::I16 => floats::i16,
        E::I8 => floats::i8,
        E::U64 => floats::u64,
        E::U32 => floats::u32,
        E::U16 => floats::u16,
        E::U8 | E::Bool => floats::u8,
        E::Q4_0 => blocks::q4_0,
        E::Q4_1 => blocks::q4_1,
        E::Q5_0 => blocks::q5_0,
        E::Q5_1 => blocks::q5_1,
        E::Q8_0 => blocks::q8_0,
        E::Q4K => blocks::q4_k,
        E::Q5K => blocks::q5_k,
        E::Q6K => blocks::q6_k,
        _ => return None,
    })
}

/// Decodes whole blocks: `out` gets one number for each element of `bytes`. Integers become the nearest f32.
///
/// Lengths that do not match decode what both hold; encodings that [`can_decode`] refuses leave `out` as it is. Callers
/// check both, with the tensor's name at hand.
pub fn decode(encoding: Encoding, bytes: &[u8], out: &mut [f32]) {
    let Some(decoder) = block_decoder(encoding) else { return };
    let (len, size) = (encoding.block_len(), encoding.block_bytes());
    if out.len() <= CHUNK {
        return decoder(bytes, out);
    }
    let blocks = CHUNK / len;
    bytes.par_chunks(blocks * size).zip(out.par_chunks_mut(blocks * len)).for_each(|(b, o)| decoder(b, o));
}
