//! Several variants' activations in one execution: they need the same weights at the same time, and an execution of few rows pays
//! more for reading weights than for its products.

use std::ops::Range;
use std::slice;

use pomona_exec::{Feeds, Tensor, elements};
use pomona_graph::{Graph, ValueId};
use pomona_task::{SampleLoss, rows_at_once};

use crate::error::Result;
use crate::sweep::{Chain, Link};

/// Elements of the main stream from which on an execution gains nothing from more: some thousand tokens of a small model, and what
/// a block makes of them stays below a hundred megabytes.
pub const STREAM: usize = 1 << 20;
/// Executions of the chain's end between two points at which the run can be taken up again.
const HEADS: usize = 4;

/// A stream's number, and some of its rows.
type Piece = (usize, Range<usize>);

impl Chain<'_> {
    /// Takes every stream over a link, as many at a time as one execution has use for.
    pub(crate) fn advance(&self, feeds: &Feeds, link: Link, streams: &mut [Tensor]) -> Result<()> {
        let Some(first) = streams.first() else { return Ok(()) };
        let samples = rows(first);
        let many = (STREAM / first.elements().max(1)).max(1);
        // As equal as can be.
        let many = streams.len().div_ceil(streams.len().div_ceil(many));
        for some in streams.chunks_mut(many) {
            let feeds = gathered(self.graph, feeds, &vec![0..samples; some.len()])?;
            let out = self.run(&feeds, &[(link.from, Tensor::concat(some, 0)?)], link.to)?;
            for (k, stream) in some.iter_mut().enumerate() {
                *stream = out.slice(0, k * samples..(k + 1) * samples)?;
            }
        }
        Ok(())
    }

    /// Losses from some streams at the end of the chain, by stream: as many rows at a time as their outputs leave room for.
    pub(crate) fn head_losses(
        &self,
        feeds: &Feeds,
        samples: &Range<usize>,
        last: ValueId,
        streams: &[Tensor],
        many: usize,
    ) -> Result<Vec<Vec<SampleLoss>>> {
        let output = self.output()?;
        let mut losses = vec![Vec::with_capacity(samples.len()); streams.len()];
        for pieces in pieces(streams.len(), samples.len(), many) {
            let cut = |(k, rows): &Piece| Ok(streams[*k].slice(0, rows.clone())?);
            let stream = Tensor::concat(&pieces.iter().map(cut).collect::<Result<Vec<_>>>()?, 0)?;
            let ranges: Vec<_> = pieces.iter().map(|(_, rows)| rows.clone()).collect();
            let out = self.run(&gathered(self.graph, feeds, &ranges)?, &[(last, stream)], output)?;
            let mut at = 0;
            for (k, rows) in pieces {
                let own = out.slice(0, at..at + rows.len())?;
                at += rows.len();
                let own_samples = samples.start + rows.start..samples.start + rows.end;
                losses[k].extend(self.objective.losses(own_samples, &own)?);
            }
        }
        Ok(losses)
    }

    /// How many rows of a stream are taken to the end of the chain at once, and how many streams between two points at which the run
    /// can be taken up again. A stream that is larger than its output counts for it; of an output whose size the feeds do not tell
    /// there is one row at a time.
    pub(crate) fn heads_at_once(&self, feeds: &Feeds, stream: &Tensor) -> Result<(usize, usize)> {
        let rows = rows(stream).max(1);
        let output = elements(self.graph, feeds, self.output()?)?.unwrap_or(usize::MAX);
        let many = rows_at_once(output.max(stream.elements()) / rows);
        Ok((many, many.saturating_mul(HEADS).div_ceil(rows)))
    }
}

fn rows(stream: &Tensor) -> usize {
    stream.shape().first().copied().unwrap_or(0)
}

/// All rows of some streams, cut into runs of `many`.
fn pieces(streams: usize, rows: usize, many: usize) -> Vec<Vec<Piece>> {
    let total = streams * rows;
    let run = |start: usize| {
        let end = (start + many.max(1)).min(total);
        let own = |k: usize| (k, start.max(k * rows) - k * rows..end.min((k + 1) * rows) - k * rows);
        (start / rows..end.div_ceil(rows)).map(own).collect()
    };
    (0..total).step_by(many.max(1)).map(run).collect()
}

/// The feeds of one sample: batch-sized inputs cut to its row, others as they are.
pub(crate) fn sample_feeds(graph: &Graph, feeds: &Feeds, row: usize) -> Result<Feeds> {
    gathered(graph, feeds, slice::from_ref(&(row..row + 1)))
}

/// The feeds of some ranges of samples, one behind the other.
pub(crate) fn gathered(graph: &Graph, feeds: &Feeds, ranges: &[Range<usize>]) -> Result<Feeds> {
    let batched = |v: ValueId| graph.value(v).shape.first().is_some_and(|d| d.symbols() == ["batch"]);
    let mut out = feeds.clone();
    for (value, tensor) in &mut out {
        if batched(*value) {
            let parts: Vec<Tensor> =
                ranges.iter().map(|r| tensor.slice(0, r.clone())).collect::<pomona_exec::Result<_>>()?;
            *tensor = Tensor::concat(&parts, 0)?;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_rows_in_order() {
        for (streams, rows, many) in [(3, 4, 5), (1, 7, 2), (5, 1, 3), (2, 3, 100), (0, 4, 2)] {
            let found = pieces(streams, rows, many);
            let all: Vec<(usize, usize)> =
                found.iter().flatten().flat_map(|(k, r)| r.clone().map(|row| (*k, row))).collect();
            let wanted: Vec<(usize, usize)> =
                (0..streams).flat_map(|k| (0..rows).map(move |row| (k, row))).collect();
            assert_eq!(all, wanted, "{streams} {rows} {many}");
            assert!(found.iter().all(|run| run.iter().map(|(_, r)| r.len()).sum::<usize>() <= many));
        }
    }
}
