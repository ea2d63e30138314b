//! Tiles of planes, and runs of them.

use std::ops::Range;

use super::transform::OUT;

/// Tiles of four rows and columns that cover the outputs of all samples, in their order.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    pub batch: usize,
    /// Rows and columns of the sums.
    pub out: [usize; 2],
}

/// Tiles of one sample that make a rectangle.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub sample: usize,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

impl Span {
    pub(super) fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

impl Tiles {
    /// Tiles below and beside each other.
    pub(super) fn grid(&self) -> [usize; 2] {
        self.out.map(|n| n.div_ceil(OUT))
    }

    pub(super) fn len(&self) -> usize {
        let [rows, columns] = self.grid();
        self.batch * rows * columns
    }

    /// Some tiles in pieces of so many at most: whole rows, or parts of rows that are longer.
    pub(super) fn pieces(&self, tiles: Range<usize>, most: usize) -> Vec<Range<usize>> {
        let [_, columns] = self.grid();
        let cut = |whole: Range<usize>, size: usize| {
            whole.clone().step_by(size).map(move |t| t..(t + size).min(whole.end))
        };
        if columns <= most {
            return cut(tiles, most / columns * columns).collect();
        }
        let size = columns.div_ceil(columns.div_ceil(most));
        let rows = tiles.clone().step_by(columns);
        rows.flat_map(|t| cut(t..(t + columns).min(tiles.end), size)).collect()
    }

    /// The rectangles of a run of tiles.
    pub(super) fn spans(&self, tiles: Range<usize>) -> Vec<Span> {
        let [rows, columns] = self.grid();
        let (mut at, mut spans) = (tiles.start, Vec::new());
        while at < tiles.end {
            let (row, x) = (at / columns, at % columns);
            let (sample, y, left) = (row / rows, row % rows, tiles.end - at);
            let span = if x == 0 && left >= columns {
                let rows = y..y + (left / columns).min(rows - y);
                Span { sample, rows, columns: 0..columns }
            } else {
                Span { sample, rows: y..y + 1, columns: x..x + left.min(columns - x) }
            };
            at += span.len();
            spans.push(span);
        }
        spans
    }
}
