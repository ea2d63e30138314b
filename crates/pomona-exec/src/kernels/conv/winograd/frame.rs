//! Pixels of a span of tiles, turned so that the channels of a pixel lie side by side.

use super::tiles::Span;
use super::transform::OUT;
use crate::kernels::Room;
use crate::kernels::conv::framed::Layout;

/// Pixels of which tiles read so many rows and columns more than they have sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixels<'a> {
    /// `[sample, channel of all, size]`.
    pub x: &'a [f32],
    pub all: usize,
    /// The channels that count: the first, and how many.
    pub first: usize,
    pub channels: usize,
    pub size: [usize; 2],
    /// Zeros before the first row and column.
    pub before: [usize; 2],
    pub more: usize,
}

/// Buffers that are used again.
#[derive(Default)]
pub(super) struct Frame {
    turned: Vec<f32>,
    room: Room,
}

impl Frame {
    /// Lays out what a span's tiles read, `[row][column][channel]`, a register's floats behind it, and returns the columns.
    pub(super) fn lay(&mut self, p: &Pixels<'_>, span: &Span) -> (&[f32], usize) {
        /// What registers of a frame's last channels may read beyond them.
        const BEHIND: usize = 16;
        let ([height, width], channels) = (p.size, p.channels);
        let (rows, columns) = (span.rows.len() * OUT + p.more, span.columns.len() * OUT + p.more);
        let x = &p.x[(span.sample * p.all + p.first) * height * width..][..channels * height * width];
        let all = self.room.hold(rows * columns * channels + BEHIND);
        let (frame, behind) = all.split_at_mut(rows * columns * channels);
        behind.fill(0.0);
        let first = span.columns.start * OUT;
        let layout = Layout { size: p.size, before: p.before, first, width: columns, channels };
        layout.lay(x, span.rows.start * OUT, &mut self.turned, frame);
        (all, columns)
    }
}
