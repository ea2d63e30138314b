//! Quantised blocks of GGUF. Each decoder takes whole blocks; scales are f16, products are rounded once in f32.

use half::f16;

fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// Two 4-bit numbers a byte: low halves are elements 0-15, high halves 16-31.
fn nibbles(packed: &[u8], out: &mut [f32], mut f: impl FnMut(usize, u8) -> f32) {
    let half = packed.len();
    for (i, &b) in packed.iter().enumerate() {
        out[i] = f(i, b & 15);
        out[i + half] = f(i + half, b >> 4);
    }
}

pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<18>().0.iter().zip(out.chunks_exact_mut(32)) {
        let d = half_at(b, 0);
        nibbles(&b[2..], o, |_, q| d * (f32::from(q) - 8.0));
    }
}

pub(super) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<20>().0.iter().zip(out.chunks_exact_mut(32)) {
        let (d, m) = (half_at(b, 0), half_at(b, 2));
        nibbles(&b[4..], o, |_, q| d * f32::from(q) + m);
    }
}

/// The fifth bits of 32 elements, in a little-endian word.
fn fifth(b: &[u8], at: usize) -> impl Fn(usize, u8) -> f32 {
    let word = u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    move |i, q| f32::from(q | (((word >> i) & 1) as u8) << 4)
}

pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<22>().0.iter().zip(out.chunks_exact_mut(32)) {
        let (d, five) = (half_at(b, 0), fifth(b, 2));
        nibbles(&b[6..], o, |i, q| d * (five(i, q) - 16.0));
    }
}

pub(super) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<24>().0.iter().zip(out.chunks_exact_mut(32)) {
        let (d, m, five) = (half_at(b, 0), half_at(b, 2), fifth(b, 4));
        nibbles(&b[8..], o, |i, q| d * five(i, q) + m);
    }
}

pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<34>().0.iter().zip(out.chunks_exact_mut(32)) {
        let d = half_at(b, 0);
        for (q, o) in b[2..].iter().zip(o) {
            *o = d * f32::from(*q as i8);
        }
    }
}

/// Six-bit scale and minimum of the eight sub-blocks of Q4_K and Q5_K, packed into twelve bytes.
fn scale_min(s: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = if i < 4 {
        (s[i] & 63, s[i + 4] & 63)
    } else {
        (s[i + 4] & 15 | (s[i - 4] >> 6) << 4, s[i + 4] >> 4 | (s[i] >> 6) << 4)
    };
    (scale.into(), min.into())
}

pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<144>().0.iter().zip(out.chunks_exact_mut(256)) {
        let (d, dmin) = (half_at(b, 0), half_at(b, 2));
        for (i, o) in o.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_min(&b[4..16], i);
            let (scale, min) = (d * scale, dmin * min);
            for (o, &q) in o.iter_mut().zip(&b[16 + i / 2 * 32..]) {
                *o = scale * f32::from(if i % 2 == 0 { q & 15 } else { q >> 4 }) - min;
            }
        }
    }
}

pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<176>().0.iter().zip(out.chunks_exact_mut(256)) {
        let (d, dmin) = (half_at(b, 0), half_at(b, 2));
        for (i, o) in o.chunks_exact_mut(32).enumerate() {
            let (scale, min) = scale_min(&b[4..16], i);
            let (scale, min) = (d * scale, dmin * min);
            for (k, o) in o.iter_mut().enumerate() {
                let q = b[48 + i / 2 * 32 + k];
                let high = (b[16 + k] >> i & 1) << 4;
                *o = scale * f32::from((if i % 2 == 0 { q & 15 } else { q >> 4 }) | high) - min;
            }
        }
    }
}

pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytes.as_chunks::<210>().0.iter().zip(out.chunks_exact_mut(256)) {
        let (low, rest) = b.split_at(128);
        let (high, rest) = rest.split_at(64);
        let d = half_at(rest, 16);
        for (e, o) in o.iter_mut().enumerate() {
            // Each half of 128 elements packs four runs of 32: two bits of a high byte and a nibble of a low one.
            let (half, run, k) = (e / 128, e % 128 / 32, e % 32);
            let l = low[half * 64 + run % 2 * 32 + k] >> (run / 2 * 4) & 15;
            let h = high[half * 32 + k] >> (run * 2) & 3;
            let scale = f32::from(rest[e / 16] as i8);
            *o = d * scale * (f32::from(l | h << 4) - 32.0);
        }
    }
}
