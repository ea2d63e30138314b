//! Seeded numbers, a function of seed, name and position alone: any chunk can be made without the others.

use std::ops::Range;
use std::sync::LazyLock;

use half::{bf16, f16};
use pomona_graph::Distribution;
use pomona_store::Encoding;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Elements that share a random stream.
const CHUNK: usize = 1 << 16;
/// Random numbers are 16 bits: an index into a table of the distribution's quantiles.
const LEVELS: usize = 1 << 16;

/// The generator's key for a tensor.
pub(super) fn key(seed: u64, name: &str) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(&seed.to_le_bytes());
    hash.update(name.as_bytes());
    *hash.finalize().as_bytes()
}

/// Elements `range` of a tensor, encoded.
pub(super) fn elements(
    distribution: Distribution,
    key: &[u8; 32],
    encoding: Encoding,
    range: Range<usize>,
) -> Vec<u8> {
    match encoding {
        Encoding::F16 => fill(distribution, key, range, |v| f16::from_f32(v).to_le_bytes()),
        Encoding::Bf16 => fill(distribution, key, range, |v| bf16::from_f32(v).to_le_bytes()),
        _ => fill(distribution, key, range, f32::to_le_bytes),
    }
}

fn fill<const N: usize>(
    distribution: Distribution,
    key: &[u8; 32],
    range: Range<usize>,
    encode: fn(f32) -> [u8; N],
) -> Vec<u8> {
    let table: Vec<[u8; N]> = match distribution {
        Distribution::Fill(v) => return encode(v as f32).repeat(range.len()),
        Distribution::Normal(deviation) => {
            NORMAL.iter().map(|q| encode((f64::from(*q) * deviation) as f32)).collect()
        }
        Distribution::Uniform(bound) => {
            let level = |i: usize| (i as f64 + 0.5) / LEVELS as f64 * 2.0 - 1.0;
            (0..LEVELS).map(|i| encode((level(i) * bound) as f32)).collect()
        }
    };
    let mut out = vec![0; range.len() * N];
    // Chunks are cut at multiples of CHUNK of the whole tensor, whatever the range.
    let head = (range.start.next_multiple_of(CHUNK).min(range.end) - range.start) * N;
    let (first, rest) = out.split_at_mut(head);
    if !first.is_empty() {
        chunk(key, range.start, &table, first);
    }
    let begin = range.start + head / N;
    rest.par_chunks_mut(CHUNK * N).enumerate().for_each(|(k, part)| {
        chunk(key, begin + k * CHUNK, &table, part);
    });
    out
}

/// Elements from `start` on, within one chunk.
fn chunk<const N: usize>(key: &[u8; 32], start: usize, table: &[[u8; N]], out: &mut [u8]) {
    let mut random = ChaCha8Rng::from_seed(*key);
    random.set_stream((start / CHUNK) as u64);
    let skip = start % CHUNK;
    let mut bits = vec![0; (skip + out.len() / N) * 2];
    random.fill_bytes(&mut bits);
    for (o, b) in out.as_chunks_mut::<N>().0.iter_mut().zip(&bits.as_chunks::<2>().0[skip..]) {
        *o = table[usize::from(u16::from_le_bytes(*b))];
    }
}

/// Quantiles of the standard normal distribution at `(i + 1/2) / LEVELS`.
static NORMAL: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let half: Vec<f32> = (0..LEVELS / 2).map(|i| quantile((i as f64 + 0.5) / LEVELS as f64) as f32).collect();
    half.iter().copied().chain(half.iter().rev().map(|v| -v)).collect()
});

/// Quantile of the standard normal for `p` below one half, by Newton's method on its distribution function.
fn quantile(p: f64) -> f64 {
    // Abramowitz and Stegun 26.2.23 starts within 5e-4.
    let t = (-2.0 * p.ln()).sqrt();
    let mut x = -(t
        - (2.515517 + 0.802853 * t + 0.010328 * t * t)
            / (1.0 + 1.432788 * t + 0.189269 * t * t + 0.001308 * t * t * t));
    for _ in 0..4 {
        let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        x -= (below(x) - p) / density;
    }
    x
}

/// Distribution function of the standard normal for `x <= 0`: a series near the centre, a continued fraction in the tail.
fn below(x: f64) -> f64 {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x > -3.0 {
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while f64::abs(term) > 1e-18 * f64::abs(sum) && k < 200.0 {
            k += 2.0;
            term *= x * x / k;
            sum += term;
        }
        0.5 + density * sum
    } else {
        let mut fraction = -x;
        for k in (1..=60).rev() {
            fraction = -x + f64::from(k) / fraction;
        }
        density / fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, z) in [
            (0.025, -1.959963984540054),
            (0.001, -3.090232306167813),
            (0.25, -0.6744897501960817),
            (1e-5, -4.264890793922825),
        ] {
            assert!((quantile(p) - z).abs() < 1e-9, "{p}: {}", quantile(p));
        }
    }

    #[test]
    fn any_range_is_a_part_of_the_whole() {
        let key = key(7, "w");
        let n = CHUNK * 2 + 100;
        let whole = elements(Distribution::Normal(0.02), &key, Encoding::Bf16, 0..n);
        for range in [0..10, 5..CHUNK, CHUNK - 3..CHUNK + 3, CHUNK..n, n - 1..n] {
            let part = elements(Distribution::Normal(0.02), &key, Encoding::Bf16, range.clone());
            assert_eq!(part, whole[range.start * 2..range.end * 2], "{range:?}");
        }
    }

    #[test]
    fn moments_are_the_distributions() {
        let values = |d| {
            let bytes = elements(d, &key(1, "x"), Encoding::F32, 0..1 << 18);
            bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect::<Vec<_>>()
        };
        let moments = |v: &[f64]| {
            let mean = v.iter().sum::<f64>() / v.len() as f64;
            (mean, (v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64).sqrt())
        };
        let (mean, deviation) = moments(&values(Distribution::Normal(2.0)));
        assert!(mean.abs() < 0.02 && (deviation - 2.0).abs() < 0.02, "{mean} {deviation}");
        let (mean, deviation) = moments(&values(Distribution::Uniform(3.0)));
        assert!(mean.abs() < 0.02 && (deviation - 3.0_f64.sqrt()).abs() < 0.02, "{mean} {deviation}");
        assert!(values(Distribution::Fill(0.5)).iter().all(|v| *v == 0.5));
    }
}
