//! Recipes into a sink: copies by range, everything else in row chunks.

use std::ops::Range;

use pomona_graph::Expr;
use pomona_store::{Checkpoint, TensorSink, TensorSpec};

use super::prepare::{Step, Tree, prepare};
use super::rows::{raw, runs};
use crate::error::{Result, tensor_error};

/// Bytes of a chunk of rows: large enough for every core, small beside the largest tensor.
const CHUNK: usize = 16 << 20;
/// Runs of gathered rows from this size on are copied by the system, shorter ones collected in memory.
const LONG_RUN: usize = 1 << 20;

/// What is told after each chunk: bytes of tensor data done, of all.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// A tensor to be written and the expression over the checkpoint that makes it.
#[derive(Clone, Debug)]
pub struct WriteItem {
    /// Name, encoding and shape in the output.
    pub spec: TensorSpec,
    /// How it is made.
    pub expr: Expr,
}

/// Writes the tensors in order; those that an interrupted run finished are skipped.
///
/// # Errors
/// Where an expression does not give the spec's shape and encoding, a source cannot be read, or the sink fails.
pub fn write_recipe(
    items: &[WriteItem],
    checkpoint: Option<&Checkpoint>,
    sink: &mut dyn TensorSink,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let size = |i: &WriteItem| i.spec.encoding.bytes_for(&i.spec.shape).unwrap_or(0);
    let total = items.iter().map(size).sum();
    let mut done = 0;
    for (i, item) in items.iter().enumerate() {
        let expected = done + size(item);
        if sink.begin(i)? {
            let tree = prepare(&item.expr, checkpoint)?;
            if (&tree.shape, tree.encoding) != (&item.spec.shape, item.spec.encoding) {
                let path = checkpoint.map(|c| c.path().to_owned()).unwrap_or_default();
                let message = format!(
                    "would be {} {:?}; {} {:?} was planned",
                    tree.encoding, tree.shape, item.spec.encoding, item.spec.shape
                );
                return Err(tensor_error(&path, &item.spec.name, message));
            }
            let mut told = |n: u64| {
                done += n;
                progress(done, total);
            };
            emit(&tree, 0..tree.rows(), sink, &mut told)?;
            sink.end()?;
        }
        done = expected;
        progress(done, total);
    }
    sink.finish()?;
    Ok(())
}

/// Rows of a step into the sink.
fn emit(
    tree: &Tree<'_>,
    rows: Range<usize>,
    sink: &mut dyn TensorSink,
    told: &mut dyn FnMut(u64),
) -> Result<()> {
    let all = rows == (0..tree.rows());
    match &tree.step {
        Step::Copy { file, info } if file.is_mapped(info) => {
            let (offset, len) = match (all, tree.row_bytes()) {
                (true, _) => (0, info.len),
                (false, Some(n)) => ((rows.start * n) as u64, (rows.len() * n) as u64),
                (false, None) => return chunks(tree, rows, sink, told),
            };
            sink.copy(&info.file, info.offset + offset, len)?;
            told(len);
            Ok(())
        }
        Step::Split { axis: 0, start, of } => emit(of, rows.start + start..rows.end + start, sink, told),
        Step::Concat { axis: 0, of } if all => of.iter().try_for_each(|p| emit(p, 0..p.rows(), sink, told)),
        Step::Reshape { of } if all => emit(of, 0..of.rows(), sink, told),
        Step::Convert { of } if of.encoding == tree.encoding => emit(of, rows, sink, told),
        Step::Gather { axis: 0, indices, of } => {
            let runs = runs(&indices[rows.clone()]);
            let bytes = of.row_bytes().unwrap_or(0);
            if bytes > 0 && runs.iter().all(|(_, n)| n * bytes >= LONG_RUN) {
                return runs.into_iter().try_for_each(|(from, n)| emit(of, from..from + n, sink, told));
            }
            chunks(tree, rows, sink, told)
        }
        _ => chunks(tree, rows, sink, told),
    }
}

fn chunks(
    tree: &Tree<'_>,
    rows: Range<usize>,
    sink: &mut dyn TensorSink,
    told: &mut dyn FnMut(u64),
) -> Result<()> {
    let step = match tree.row_bytes() {
        Some(n) if by_rows(tree) => (CHUNK / n.max(1)).max(1),
        _ => rows.len().max(1),
    };
    let mut at = rows.start;
    while at < rows.end {
        let end = rows.end.min(at + step);
        let bytes = raw(tree, at..end)?;
        sink.write(&bytes)?;
        told(bytes.len() as u64);
        at = end;
    }
    Ok(())
}

/// Whether a chunk of rows costs about its share of the whole.
fn by_rows(tree: &Tree<'_>) -> bool {
    match &tree.step {
        Step::Copy { .. } | Step::Initialise { .. } | Step::Literal { .. } => tree.row_bytes().is_some(),
        // Rows in another order may lie anywhere: cheap where any row is.
        Step::Gather { of, .. } | Step::Split { of, .. } | Step::Convert { of } => by_rows(of),
        Step::Concat { of, .. } => of.iter().all(by_rows),
        Step::Transpose { axes, of } => axes.first() == Some(&0) && by_rows(of),
        Step::Reshape { of } => of.rows() == tree.rows() && !of.shape.is_empty() && by_rows(of),
        Step::Tile { repeats, of } => repeats.first() == Some(&1) && by_rows(of),
        Step::WeightedSum { terms } => terms.iter().all(|(_, p)| p.first().is_some_and(by_rows)),
    }
}
