//! Block influence (ShortGPT): how much a part turns its stream, 1 - cosine of input and output, mean over positions.

use crate::criteria::perplexity::groups;
use crate::error::Result;
use crate::sweep::{Chain, links};

/// Influence of each candidate in the model without the removed parts. The cosine is taken along the last axis.
pub fn block_influence(
    chain: &Chain<'_>,
    removed: &[bool],
    candidates: &[usize],
    group: usize,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let links = links(chain.units)?;
    let mut sums = vec![(0.0, 0_usize); candidates.len()];
    for samples in groups(0..chain.objective.samples(), group) {
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
                    sums[i].0 += 1.0 - cosine(x, y);
                    sums[i].1 += 1;
                }
            }
            stream = out;
            advance(1)?;
        }
    }
    Ok(sums.into_iter().map(|(s, n)| s / n.max(1) as f64).collect())
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
