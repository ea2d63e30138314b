//! Executes weight recipes over a checkpoint: one output tensor at a time, large ones in row chunks.

mod bytes;
mod initialise;
mod prepare;
mod rows;
mod sum;
#[cfg(test)]
mod tests;
mod write;

use std::ops::Range;

use pomona_graph::{Expr, SourceTensor};
use pomona_store::{Checkpoint, Encoding};

use crate::error::Result;
use prepare::prepare;
pub use write::{Progress, WriteItem, write_recipe};

/// All elements of an expression as f32, row-major.
///
/// # Errors
/// Where a source is missing, an operation does not fit its operands, or an encoding cannot be decoded.
pub fn materialise(expr: &Expr, checkpoint: Option<&Checkpoint>) -> Result<Vec<f32>> {
    let tree = prepare(expr, checkpoint)?;
    let rows = 0..tree.rows();
    rows::floats(&tree, rows)
}

/// Slices `rows` of the first axis of an expression as f32 (0..1 of a scalar).
///
/// # Errors
/// As [`materialise`], and where the rows lie outside.
pub fn materialise_rows(
    expr: &Expr,
    checkpoint: Option<&Checkpoint>,
    rows: Range<usize>,
) -> Result<Vec<f32>> {
    let tree = prepare(expr, checkpoint)?;
    if rows.start > rows.end || rows.end > tree.rows() {
        let message = format!("has {} rows; {rows:?} were asked for", tree.rows());
        return Err(tree.fault(message));
    }
    rows::floats(&tree, rows)
}

/// The stored bytes behind an expression that is a tensor of 16-bit floats or of Q8_0 as it lies in its file, widened or not; none
/// where elements move or are computed.
///
/// # Errors
/// As [`materialise`].
pub fn narrow<'a>(
    expr: &'a Expr,
    checkpoint: Option<&'a Checkpoint>,
) -> Result<Option<(&'a [u8], Encoding)>> {
    let mut tree = prepare(expr, checkpoint)?;
    loop {
        tree = match tree.step {
            prepare::Step::Convert { of } if tree.encoding == Encoding::F32 => *of,
            prepare::Step::Reshape { of } => *of,
            prepare::Step::Copy { file, info }
                if matches!(tree.encoding, Encoding::Bf16 | Encoding::F16 | Encoding::Q8_0) =>
            {
                return Ok(Some((file.bytes(info)?, tree.encoding)));
            }
            _ => return Ok(None),
        };
    }
}

/// Shape and encoding of an expression's result.
///
/// # Errors
/// As [`materialise`].
pub fn result_of(expr: &Expr, checkpoint: Option<&Checkpoint>) -> Result<(Vec<usize>, Encoding)> {
    let tree = prepare(expr, checkpoint)?;
    Ok((tree.shape.clone(), tree.encoding))
}

/// The checkpoint's tensors as [`pomona_graph::Recipe::simplified`] asks for them.
pub fn sources(checkpoint: Option<&Checkpoint>) -> impl Fn(&str) -> Option<SourceTensor> + '_ {
    move |name| crate::model::source_of(checkpoint, name)
}
