//! Larger pictures.

use pomona_graph::{Dim, GraphBuilder, Op, ResizeCoordinates, ResizeMode, Result, ValueId};

/// Nearest neighbours to `size`.
pub(crate) fn nearest(b: &mut GraphBuilder, path: &str, x: ValueId, size: Vec<Dim>) -> Result<ValueId> {
    let op = Op::Resize { mode: ResizeMode::Nearest, coordinates: ResizeCoordinates::Asymmetric, size };
    b.node(path, op, &[x], &[])
}

/// Sides times a factor.
pub(crate) fn times(b: &GraphBuilder, x: ValueId, factor: usize) -> Vec<Dim> {
    b.shape(x).iter().skip(2).map(|d| d.clone() * factor).collect()
}
