//! Perplexity without the part (Shortened LLaMA): I_n = exp(mean negative log-likelihood over all predictions of the
//! calibration set, part n left out).

use std::ops::Range;

use pomona_task::SampleLoss;

use crate::error::Result;
use crate::sweep::{Chain, SweepLosses};

/// What a scoring run reports and keeps between groups of samples.
pub trait Journal {
    /// Losses of a group of samples that an interrupted run already has.
    fn known(&self, samples: &Range<usize>, candidates: &[usize]) -> Option<SweepLosses>;
    /// Keeps the losses of a group.
    fn keep(&mut self, samples: &Range<usize>, candidates: &[usize], losses: &SweepLosses) -> Result<()>;
    /// Says how many part executions are done.
    fn advance(&mut self, steps: usize) -> Result<()>;
}

/// Perplexities: dense first, then without each candidate, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Perplexities {
    /// Of the model without the parts that are removed already.
    pub dense: f64,
    /// Without each candidate on top.
    pub without: Vec<f64>,
}

/// Scores every candidate on every sample, a group of samples at a time.
pub fn perplexity(
    chain: &Chain<'_>,
    removed: &[bool],
    candidates: &[usize],
    group: usize,
    journal: &mut dyn Journal,
) -> Result<Perplexities> {
    let mut total = SweepLosses { dense: Vec::new(), without: vec![Vec::new(); candidates.len()] };
    for samples in groups(0..chain.objective.samples(), group) {
        append(&mut total, sweep(chain, removed, candidates, samples, journal)?);
    }
    let exp = |l: &Vec<SampleLoss>| SampleLoss::mean(l).exp();
    Ok(Perplexities { dense: exp(&total.dense), without: total.without.iter().map(exp).collect() })
}

/// Successive halving: all candidates on a few samples, the better half on more, until all samples are used.
///
/// Candidates that drop out keep the estimate from the samples that they saw, ranked behind those that stayed. At least
/// `keep` candidates see every sample.
pub fn screened_perplexity(
    chain: &Chain<'_>,
    removed: &[bool],
    candidates: &[usize],
    keep: usize,
    journal: &mut dyn Journal,
) -> Result<Perplexities> {
    let samples = chain.objective.samples();
    let mut alive: Vec<usize> = candidates.to_vec();
    let mut losses: Vec<Vec<SampleLoss>> = vec![Vec::new(); candidates.len()];
    let mut dense = Vec::new();
    let at = |unit: usize| candidates.iter().position(|c| *c == unit).unwrap_or(0);
    let mut seen = 0;
    let rounds = screening_rounds(samples);
    for (k, &upto) in rounds.iter().enumerate() {
        let found = sweep(chain, removed, &alive, seen..upto, journal)?;
        dense.extend(found.dense);
        for (unit, new) in alive.iter().zip(found.without) {
            losses[at(*unit)].extend(new);
        }
        seen = upto;
        if k + 1 < rounds.len() {
            let mean = |unit: &usize| SampleLoss::mean(&losses[at(*unit)]);
            let mut ranked = alive.clone();
            ranked.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
            ranked.truncate(alive.len().div_ceil(2).max(keep).min(alive.len()));
            ranked.sort_unstable();
            alive = ranked;
        }
    }
    let worst_alive =
        alive.iter().map(|u| SampleLoss::mean(&losses[at(*u)])).fold(f64::NEG_INFINITY, f64::max);
    let score = |(i, l): (usize, &Vec<SampleLoss>)| {
        let mean = SampleLoss::mean(l);
        let mean = if alive.contains(&candidates[i]) { mean } else { mean.max(worst_alive) };
        mean.exp()
    };
    Ok(Perplexities {
        dense: SampleLoss::mean(&dense).exp(),
        without: losses.iter().enumerate().map(score).collect(),
    })
}

/// Numbers of samples after each round: a fifth, half, all (at least one more each).
pub(crate) fn screening_rounds(samples: usize) -> Vec<usize> {
    let mut out = vec![(samples / 5).max(1), samples / 2, samples];
    out.retain(|n| *n > 0);
    out.dedup();
    out.sort_unstable();
    out.dedup();
    out
}

fn sweep(
    chain: &Chain<'_>,
    removed: &[bool],
    candidates: &[usize],
    samples: Range<usize>,
    journal: &mut dyn Journal,
) -> Result<SweepLosses> {
    if let Some(known) = journal.known(&samples, candidates) {
        journal.advance(chain.leave_one_out_steps(removed, candidates))?;
        return Ok(known);
    }
    let losses =
        chain.leave_one_out(samples.clone(), removed, candidates, &mut |steps| journal.advance(steps))?;
    journal.keep(&samples, candidates, &losses)?;
    Ok(losses)
}

fn append(total: &mut SweepLosses, more: SweepLosses) {
    total.dense.extend(more.dense);
    for (all, new) in total.without.iter_mut().zip(more.without) {
        all.extend(new);
    }
}

/// A range cut into parts of at most `size`.
pub(crate) fn groups(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let size = size.max(1);
    (range.start..range.end).step_by(size).map(move |s| s..(s + size).min(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screening_ends_with_all_samples() {
        for n in 1..40 {
            let rounds = screening_rounds(n);
            assert_eq!(rounds.last(), Some(&n));
            assert!(rounds.windows(2).all(|w| w[0] < w[1]), "{n}: {rounds:?}");
        }
        assert_eq!(screening_rounds(10), [2, 5, 10]);
    }

    #[test]
    fn groups_cover_the_range() {
        let all: Vec<_> = groups(0..7, 3).collect();
        assert_eq!(all, [0..3, 3..6, 6..7]);
    }
}
