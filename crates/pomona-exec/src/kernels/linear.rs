//! Linear layers: products with a weight `[out, in]`, and a bias.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Matrix, Product, SMALL, Start};
use super::math::dot;
use super::simd::simd;
use super::{Shared, uninit};

/// Rows up to which the weight is read once from memory for all of them, as in decoding.
pub(super) const FEW_ROWS: usize = 4;

simd! {
    /// Products of one row with rows of the weight.
    fn dots<S>(x: &[f32], weight: &[f32], y: &mut [f32]) {
        for (y, w) in y.iter_mut().zip(weight.chunks_exact(x.len())) {
            *y = dot::<S>(x, w);
        }
    }
}

/// `x @ weight.T + bias` for a few rows of `x`: `multiply(x, outputs, y)` gives a row's products with some rows of the weight, each of
/// which is read from memory once for all rows.
pub(super) fn few_rows(
    x: &[f32],
    bias: Option<&[f32]>,
    (rows, width, out): (usize, usize, usize),
    y: &mut [f32],
    multiply: impl Fn(&[f32], Range<usize>, &mut [f32]) + Sync,
) {
    /// Outputs of a task.
    const OUTPUTS: usize = 64;
    let shared = Shared::new(y);
    assert!(shared.len() >= rows * out, "a result for every row and output");
    let task = |t: usize| {
        let own = t * OUTPUTS..((t + 1) * OUTPUTS).min(out);
        for (r, x) in x.chunks_exact(width).take(rows).enumerate() {
            // SAFETY: within the result, and these outputs of the row are this task's alone.
            let y = unsafe { shared.part(r * out + own.start, own.len()) };
            multiply(x, own.clone(), y);
            if let Some(bias) = bias {
                y.iter_mut().zip(&bias[own.clone()]).for_each(|(y, b)| *y += b);
            }
        }
    };
    let tasks = 0..out.div_ceil(OUTPUTS);
    if rows * out * width < SMALL {
        tasks.for_each(task);
    } else {
        tasks.into_par_iter().for_each(task);
    }
}

/// `x @ weight.T + bias` for `x` `[rows, width]`.
pub(crate) fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, rows: usize, width: usize) -> Vec<f32> {
    let out = weight.len().checked_div(width).unwrap_or(0);
    let start = bias.map_or(Start::Zero, Start::Column);
    let mut y = uninit(rows * out);
    if (1..=FEW_ROWS).contains(&rows) && width > 0 {
        few_rows(x, bias, (rows, width, out), &mut y, |x, own, y| {
            dots(x, &weight[own.start * width..own.end * width], y);
        });
        return y;
    }
    let (a, b) = (Matrix::rows(x, width), Matrix::rows(weight, width));
    Product { rows, columns: out, depth: width, a: &a, b: &b, row_stride: out, column: |j| j, start }
        .run(&mut y);
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
