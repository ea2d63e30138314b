//! Linear layers: products with a weight `[out, in]`, and a bias.

use rayon::prelude::*;

use super::gemm::{Matrix, Product, Start};
use super::math::dot;
use super::simd::simd;
use super::uninit;

/// Rows up to which the weight is read once from memory for all of them, as in decoding.
const FEW_ROWS: usize = 4;

simd! {
    /// For `out` rows of the weight: products with each row of `x`, `[rows][out]` into `y`.
    fn dots<S>(x: &[f32], weight: &[f32], width: usize, y: &mut [f32], stride: usize) {
        for (r, x) in x.chunks_exact(width).enumerate() {
            for (o, w) in weight.chunks_exact(width).enumerate() {
                y[r * stride + o] = dot::<S>(x, w);
            }
        }
    }
}

/// `x @ weight.T + bias` for `x` `[rows, width]`.
pub(crate) fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, rows: usize, width: usize) -> Vec<f32> {
    let out = weight.len().checked_div(width).unwrap_or(0);
    let start = bias.map_or(Start::Zero, Start::Column);
    let mut y = uninit(rows * out);
    if (1..=FEW_ROWS).contains(&rows) && width > 0 {
        // A task takes some outputs of all rows: their weights are read from memory once.
        let size = 64;
        let parts: Vec<Vec<f32>> = weight
            .par_chunks(size * width)
            .map(|w| {
                let n = w.len() / width;
                let mut part = vec![0.0; rows * n];
                dots(x, w, width, &mut part, n);
                part
            })
            .collect();
        for (o, part) in parts.iter().enumerate() {
            let n = part.len() / rows;
            for r in 0..rows {
                y[r * out + o * size..][..n].copy_from_slice(&part[r * n..][..n]);
            }
        }
        if let Some(bias) = bias {
            for y in y.chunks_exact_mut(out.max(1)) {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        return y;
    }
    let (a, b) = (Matrix::rows(x, width), Matrix::rows(weight, width));
    let (rows, columns, depth) = (rows, out, width);
    Product { rows, columns, depth, a: &a, b: &b, row_stride: out, column: |j| j, start }.run(&mut y);
    y
}

/// Sums of the columns of rows of `width`, in blocks of rows that do not depend on threads.
pub(super) fn column_sums(rows: &[f32], width: usize) -> Vec<f32> {
    if width == 0 {
        return Vec::new();
    }
    let block = (1 << 15) / width + 1;
    let parts: Vec<Vec<f32>> = rows
        .par_chunks(block * width)
        .map(|rows| {
            let mut s = vec![0.0; width];
            rows.chunks_exact(width).for_each(|r| s.iter_mut().zip(r).for_each(|(s, v)| *s += v));
            s
        })
        .collect();
    parts.iter().fold(vec![0.0; width], |mut s, p| {
        s.iter_mut().zip(p).for_each(|(s, v)| *s += v);
        s
    })
}

/// Gradients of the input, the weight `[out, width]` and the bias, those that are needed.
pub(crate) fn linear_back(
    x: &[f32],
    weight: &[f32],
    above: &[f32],
    (rows, width, out): (usize, usize, usize),
    need: &[bool],
) -> Vec<Option<Vec<f32>>> {
    let start = Start::Zero;
    let dx = need[0].then(|| {
        let mut dx = uninit(rows * width);
        let (a, b) = (Matrix::rows(above, out), Matrix::columns(weight, width));
        Product { rows, columns: width, depth: out, a: &a, b: &b, row_stride: width, column: |j| j, start }
            .run(&mut dx);
        dx
    });
    let dw = need[1].then(|| {
        let mut dw = uninit(out * width);
        let (a, b) = (Matrix::columns(above, out), Matrix::columns(x, width));
        Product {
            rows: out,
            columns: width,
            depth: rows,
            a: &a,
            b: &b,
            row_stride: width,
            column: |j| j,
            start,
        }
        .run(&mut dw);
        dw
    });
    let db = need.get(2).is_some_and(|n| *n).then(|| column_sums(above, out));
    vec![dx, dw, db]
}
