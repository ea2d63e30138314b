//! SNP's score of values and feed-forward neurons (arXiv 2404.11630): `sum_l (1 - |cos(w_i, w_l)|)` over the rows of the layer
//! that makes them, all heads together. What is unlike the others stays. Of a stream it is taken of every layer that adds to it.

use pomona_exec::{Device, Tensor};
use pomona_graph::{ChannelMember, Graph, Side};
use pomona_task::Weights;
use rayon::prelude::*;

use super::{Measure, values_of};
use crate::error::Result;

/// Rows whose cosines with all others are in memory at a time.
const ROWS: usize = 1024;

/// A score for each of `channels` channels in each of the layers that make them. A channel of several rows has their sum.
pub fn redundancy<'g>(
    graph: &Graph,
    makers: impl Iterator<Item = &'g ChannelMember>,
    channels: usize,
    weights: &dyn Weights,
) -> Result<Vec<Measure>> {
    let mut out = Vec::new();
    for member in makers.filter(|m| m.side == Side::Makes) {
        let shape = &graph.tensor(member.tensor).shape;
        let data = values_of(weights, member)?;
        let mut rows: Vec<(u32, Vec<f32>)> =
            member.channel.iter().flatten().map(|c| (*c, Vec::new())).collect();
        let count = shape.get(member.axis).copied().unwrap_or(1).max(1);
        let inner: usize = shape.get(member.axis + 1..).unwrap_or_default().iter().product::<usize>().max(1);
        for slice in data.chunks(count * inner) {
            let mine = slice.chunks(inner).zip(&member.channel).filter(|(_, c)| c.is_some());
            rows.iter_mut().zip(mine).for_each(|((_, row), (run, _))| row.extend_from_slice(run));
        }
        let found = unlikeness(rows.iter().map(|(_, r)| r.as_slice()).collect())?;
        let mut values = vec![0.0; channels];
        rows.iter().zip(found).for_each(|((c, _), s)| values[*c as usize] += s);
        out.push(Measure { side: Side::Makes, values });
    }
    Ok(out)
}

/// `sum_{l != i} (1 - |cos(i, l)|)` of each row; 0 for a row of zeros, which has nothing that would be missed.
fn unlikeness(rows: Vec<&[f32]>) -> Result<Vec<f64>> {
    let (n, width) = (rows.len(), rows.first().map_or(0, |r| r.len()));
    let lengths: Vec<f64> =
        rows.par_iter().map(|r| r.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt()).collect();
    let unit = |(row, length): (&&[f32], &f64)| {
        let scale = if *length > 0.0 { 1.0 / length } else { 0.0 };
        row.iter().map(|w| (f64::from(*w) * scale) as f32).collect::<Vec<f32>>()
    };
    let units: Vec<f32> = rows.iter().zip(&lengths).flat_map(unit).collect();
    let device = Device::cpu();
    let all = Tensor::from_f32(units, &[n, width], &device)?;
    let turned = all.transpose(&[1, 0])?;
    let mut out = Vec::with_capacity(n);
    for start in (0..n).step_by(ROWS) {
        let some = all.slice(0, start..(start + ROWS).min(n))?;
        let cosines = some.matmul(&turned)?;
        let sums = cosines.with_f32(|c| {
            let sum = |(k, row): (usize, &[f32])| {
                let i = start + k;
                let others = row.iter().enumerate().filter(|(l, _)| *l != i);
                others.map(|(_, c)| 1.0 - f64::from(c.abs())).sum::<f64>()
            };
            c.par_chunks(n.max(1)).enumerate().map(sum).collect::<Vec<f64>>()
        })?;
        out.extend(sums);
    }
    out.iter_mut().zip(&lengths).filter(|(_, l)| **l == 0.0).for_each(|(s, _)| *s = 0.0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn rows_like_others_are_worth_less() {
        let diagonal = 0.5_f64.sqrt();
        let found =
            unlikeness(vec![&[2.0, 0.0], &[-1.0, 0.0], &[0.0, 3.0], &[1.0, 1.0], &[0.0, 0.0]]).unwrap();
        let expected = [
            3.0 - 1.0 - diagonal + 1.0,
            2.0 + 1.0 - diagonal,
            3.0 + 1.0 - diagonal,
            4.0 - 3.0 * diagonal,
            0.0,
        ];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
    }
}
