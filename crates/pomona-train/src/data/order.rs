//! The order of samples: a permutation an epoch, from the seed and the epoch's number alone, so that any step of a run
//! knows its samples without the steps before it.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Which samples a step reads.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    samples: usize,
    epoch: Option<(u64, Vec<u32>)>,
}

impl Order {
    /// Over this many samples.
    pub fn new(seed: u64, samples: usize) -> Self {
        Self { seed, samples: samples.max(1), epoch: None }
    }

    /// The `nth` sample of the run, from 0. Every epoch has each sample once.
    pub fn pick(&mut self, nth: u64) -> usize {
        let (epoch, at) = (nth / self.samples as u64, nth % self.samples as u64);
        let known = self.epoch.take().filter(|(e, _)| *e == epoch);
        let (_, order) = self.epoch.insert(known.unwrap_or_else(|| {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(epoch + 1);
            let mut order: Vec<u32> = (0..self.samples as u32).collect();
            order.shuffle(&mut rng);
            (epoch, order)
        }));
        order.get(at as usize).map_or(0, |i| *i as usize)
    }

    /// The samples of a micro-batch of `batch` samples that is the `nth` of the run.
    pub fn batch(&mut self, nth: u64, batch: usize) -> Vec<usize> {
        (0..batch as u64).map(|i| self.pick(nth * batch as u64 + i)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_permutations_and_any_place_can_be_asked_first() {
        let mut order = Order::new(7, 10);
        let all: Vec<usize> = (0..30).map(|n| order.pick(n)).collect();
        for epoch in all.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(all[..10], all[10..20]);
        let late: Vec<usize> = (23..30).map(|n| Order::new(7, 10).pick(n)).collect();
        assert_eq!(late, all[23..]);
        assert_ne!(Order::new(8, 10).batch(0, 10), all[..10]);
    }
}
