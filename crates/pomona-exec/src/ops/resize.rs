//! Resampling: along each spatial axis a small matrix of interpolation weights.

use burn::tensor::Shape;
use pomona_graph::{ResizeCoordinates, ResizeMode};

use super::Call;
use crate::burn_types::{B, FloatTensorOps};
use crate::error::Result;
use crate::kernels;
use crate::tensor::Tensor;

pub(super) fn resize(
    c: &Call<'_>,
    mode: ResizeMode,
    coordinates: ResizeCoordinates,
    size: &[usize],
) -> Result<Tensor> {
    let mut x = c.input(0)?.clone();
    for (k, &to) in size.iter().enumerate() {
        let axis = k + 2;
        let from = x.shape()[axis];
        if from == to {
            continue;
        }
        if from == 0 || to == 0 {
            return Err(c.fault(format!("resamples {from} elements to {to}")));
        }
        let rows: Vec<Vec<(usize, f32)>> = (0..to).map(|i| taps(mode, coordinates, i, from, to)).collect();
        let mut shape = x.shape().to_vec();
        let inner = shape[axis + 1..].iter().product();
        shape[axis] = to;
        let fused = kernels::record(&[&x], &shape, |s| {
            let back = kernels::turned(&rows, from);
            let y = kernels::resample(&s[0], from, inner, &rows);
            (y, kernels::step(move |above, _| vec![Some(kernels::resample(above, to, inner, &back))]))
        })?;
        if let Some(y) = fused {
            x = y;
            continue;
        }
        if rows.iter().all(|r| r.len() == 1) {
            let index: Vec<i64> = rows.iter().map(|r| r[0].0 as i64).collect();
            let index = Tensor::from_i64(index, &[to], x.device())?;
            let d = B::float_select(x.as_float()?, axis, super::layout::device_ints(&index)?);
            x = Tensor::float(d, x.device());
            continue;
        }
        let mut matrix = vec![0.0; from * to];
        for (i, row) in rows.iter().enumerate() {
            for (j, w) in row {
                matrix[j * to + i] += w;
            }
        }
        // The axis goes last, meets the matrix `[from, to]`, and comes back.
        let rank = x.shape().len();
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(axis, rank - 1);
        let turned = x.transpose(&order)?;
        let mut shape = turned.shape().to_vec();
        let flat = turned.reshape(&[turned.elements() / from, from])?;
        let matrix = Tensor::from_f32(matrix, &[from, to], x.device())?;
        let product = B::float_matmul(flat.as_float()?, matrix.as_float()?);
        shape[rank - 1] = to;
        x = Tensor::float(B::float_reshape(product, Shape::from(shape)), x.device()).transpose(&order)?;
    }
    Ok(x)
}

/// Input elements and weights of output element `i`.
fn taps(
    mode: ResizeMode,
    coordinates: ResizeCoordinates,
    i: usize,
    from: usize,
    to: usize,
) -> Vec<(usize, f32)> {
    let (n, m, out) = (from as f64, to as f64, i as f64);
    let at = match coordinates {
        ResizeCoordinates::Asymmetric => out * n / m,
        ResizeCoordinates::HalfPixel => (out + 0.5) * n / m - 0.5,
        ResizeCoordinates::AlignCorners if to == 1 => 0.0,
        ResizeCoordinates::AlignCorners => out * (n - 1.0) / (m - 1.0),
    };
    let clamp = |j: f64| j.clamp(0.0, n - 1.0) as usize;
    match mode {
        ResizeMode::Nearest => {
            let j = match coordinates {
                ResizeCoordinates::Asymmetric => (i * from / to) as f64,
                // Ties go down, as ONNX's default does.
                _ => (at - 0.5).ceil(),
            };
            vec![(clamp(j), 1.0)]
        }
        ResizeMode::Linear => {
            let at = at.clamp(0.0, n - 1.0);
            let low = at.floor();
            let t = (at - low) as f32;
            vec![(clamp(low), 1.0 - t), (clamp(low + 1.0), t)]
        }
        ResizeMode::Cubic => {
            let low = at.floor();
            let t = at - low;
            let a = -0.75;
            let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
            let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
            let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            weights.iter().enumerate().map(|(k, w)| (clamp(low - 1.0 + k as f64), *w as f32)).collect()
        }
    }
}
