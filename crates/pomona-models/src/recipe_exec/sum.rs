//! Weighted sums, their terms possibly matrix products, in f32.

use std::ops::Range;

use rayon::prelude::*;

use super::prepare::Tree;
use super::rows::floats;
use crate::error::Result;

/// Rows of `sum of weight * product`; `width` is the length of a row of the result.
pub(super) fn rows(terms: &[(f32, Vec<Tree<'_>>)], rows: Range<usize>, width: usize) -> Result<Vec<f32>> {
    let mut out: Vec<f32> = Vec::new();
    for (weight, factors) in terms {
        let Some((first, rest)) = factors.split_first() else { continue };
        let mut product = floats(first, rows.clone())?;
        let mut inner = first.row_len();
        for factor in rest {
            let right = floats(factor, 0..factor.rows())?;
            product = multiply(&product, &right, inner, factor.row_len());
            inner = factor.row_len();
        }
        if out.is_empty() {
            product.iter_mut().for_each(|v| *v *= weight);
            out = product;
        } else {
            out.iter_mut().zip(&product).for_each(|(o, v)| *o += weight * v);
        }
    }
    if out.is_empty() {
        out = vec![0.0; rows.len() * width];
    }
    Ok(out)
}

/// `[m, inner] @ [inner, columns]`, row-major.
fn multiply(left: &[f32], right: &[f32], inner: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; left.len().checked_div(inner).unwrap_or(0) * columns];
    if columns == 0 {
        return out;
    }
    out.par_chunks_mut(columns).zip(left.par_chunks(inner.max(1))).for_each(|(row, l)| {
        for (factor, r) in l.iter().zip(right.chunks(columns)) {
            row.iter_mut().zip(r).for_each(|(o, v)| *o += factor * v);
        }
    });
    out
}
