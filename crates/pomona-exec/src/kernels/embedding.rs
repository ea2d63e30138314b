//! Rows of a table, and what goes back into them.

use rayon::prelude::*;

use super::uninit;

/// The rows with these numbers, each below the table's count.
pub(crate) fn gather(table: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    let mut out = uninit(rows.len() * width);
    let size = super::rows_per_task(width);
    out.par_chunks_mut(size * width.max(1)).zip(rows.par_chunks(size)).for_each(|(out, rows)| {
        for (out, row) in out.chunks_exact_mut(width.max(1)).zip(rows) {
            out.copy_from_slice(&table[row * width..][..width]);
        }
    });
    out
}

/// The table's gradient: for each row the sum over its places, in their order.
pub(crate) fn scatter(above: &[f32], width: usize, rows: &[usize], count: usize) -> Vec<f32> {
    let mut out = vec![0.0; count * width];
    if width == 0 {
        return out;
    }
    // A task owns columns of all rows, so that no two add to one place.
    let columns = width.div_ceil(8).max(16);
    let shared = super::Shared::new(&mut out);
    (0..width.div_ceil(columns)).into_par_iter().for_each(|t| {
        let from = t * columns;
        let n = columns.min(width - from);
        for (row, above) in rows.iter().zip(above.chunks_exact(width)) {
            assert!(*row < count, "a row outside the table");
            // SAFETY: the row lies within the table, and these columns are this task's alone.
            let to = unsafe { shared.part(row * width + from, n) };
            to.iter_mut().zip(&above[from..from + n]).for_each(|(t, a)| *t += a);
        }
    });
    out
}
