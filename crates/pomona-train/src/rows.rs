//! Rows of a value that count: all, or those of predicted tokens.

use pomona_exec::Tensor;

use crate::data::{Batch, IGNORED, Target};

/// A value as rows along its last axis, or whole samples where nothing is masked.
pub(crate) struct Rows {
    /// Length of a row.
    pub width: usize,
    /// Whether each row counts; none where all do.
    pub live: Option<Vec<bool>>,
    /// Rows that count.
    pub count: usize,
}

/// The rows of a value of a batch. Only token batches leave rows out, and only in values that have a row a token.
pub(crate) fn rows(value: &Tensor, batch: &Batch) -> Rows {
    let width = value.shape().last().copied().unwrap_or(1).max(1);
    let all = value.elements() / width;
    match &batch.target {
        Target::Tokens(targets) if targets.len() == all && targets.contains(&IGNORED) => {
            let live: Vec<bool> = targets.iter().map(|t| *t != IGNORED).collect();
            let count = live.iter().filter(|l| **l).count();
            Rows { width, live: Some(live), count }
        }
        _ => Rows { width, live: None, count: all },
    }
}

impl Rows {
    /// Whether a row counts.
    pub fn is_live(&self, row: usize) -> bool {
        self.live.as_ref().is_none_or(|l| l.get(row).copied().unwrap_or(false))
    }
}
