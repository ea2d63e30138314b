//! Block influence (ShortGPT): how much a part turns its stream, 1 - cosine of input and output, mean over positions.

use std::ops::Range;

use pomona_task::SampleLoss;

use crate::criteria::Journal;
use crate::criteria::perplexity::groups;
use crate::error::Result;
use crate::sweep::{Chain, SweepLosses, links};

/// Influence of each candidate in the model without the removed parts. The cosine is taken along the last axis.
pub fn block_influence(
    chain: &Chain<'_>,
    removed: &[bool],
    candidates: &[usize],
    group: usize,
    journal: &mut dyn Journal,
) -> Result<Vec<f64>> {
    let mut all: Vec<Vec<SampleLoss>> = vec![Vec::new(); candidates.len()];
    for samples in groups(0..chain.objective.samples(), group) {
        let found = match journal.known(&samples, candidates) {
            Some(known) => {
                journal.advance(removed.iter().filter(|r| !**r).count())?;
                known
            }
            None => {
                let without = of_samples(chain, removed, candidates, samples.clone(), journal)?;
                let found = SweepLosses { dense: Vec::new(), without };
                journal.keep(&samples, candidates, &found)?;
                found
            }
        };
        for (all, new) in all.iter_mut().zip(found.without) {
            all.extend(new);
        }
    }
    Ok(all.iter().map(SampleLoss::mean).collect())
}

/// Sum over positions, and their number, for each candidate.
fn of_samples(
    chain: &Chain<'_>,
    removed: &[bool],
    candidates: &[usize],
    samples: Range<usize>,
    journal: &mut dyn Journal,
) -> Result<Vec<Vec<SampleLoss>>> {
    let links = links(chain.units)?;
    let mut sums = vec![SampleLoss { sum: 0.0, count: 0 }; candidates.len()];
    let feeds = chain.objective.feeds(chain.graph, samples, chain.device)?;
    let mut stream = chain.run(&feeds, &[], links[0].from)?;
    chain.weights.release();
    for (j, link) in links.iter().enumerate() {
        if removed[j] {
            continue;
        }
        let out = chain.run(&feeds, &[(link.from, stream.clone())], link.to)?;
        chain.weights.release();
        if let Some(i) = candidates.iter().position(|c| *c == j) {
            let width = stream.shape().last().copied().unwrap_or(1).max(1);
            let (a, b) = (stream.to_f32()?, out.to_f32()?);
            for (x, y) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
                sums[i].sum += 1.0 - cosine(x, y);
                sums[i].count += 1;
            }
        }
        stream = out;
        journal.advance(1)?;
    }
    Ok(sums.into_iter().map(|s| vec![s]).collect())
}

fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        xy += a * b;
        xx += a * a;
        yy += b * b;
    }
    if xx == 0.0 || yy == 0.0 { 0.0 } else { xy / (xx * yy).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::cosine;

    #[test]
    fn cosine_of_known_angles() {
        assert!((cosine(&[1.0, 0.0], &[3.0, 0.0]) - 1.0).abs() < 1e-12);
        assert!(cosine(&[1.0, 0.0], &[0.0, 2.0]).abs() < 1e-12);
        assert!((cosine(&[1.0, 1.0], &[-1.0, -1.0]) + 1.0).abs() < 1e-12);
    }
}
