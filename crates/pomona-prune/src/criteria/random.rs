//! A seeded random order: the control of every table.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Ranks `0, 1, ...` shuffled: a score for each of `n` candidates.
pub fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut ranks: Vec<f64> = (0..n).map(|i| i as f64).collect();
    ranks.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    ranks
}
