//! Element-wise functions.

use pomona_graph::Activation;
use rayon::prelude::*;

use super::exp::exp;
use super::wide;

const CHUNK: usize = 1 << 14;

wide! {
    fn silu(x: &[f32], y: &mut [f32]) {
        for i in 0..y.len() {
            y[i] = x[i] / (1.0 + exp(-x[i]));
        }
    }
}

wide! {
    fn sigmoid(x: &[f32], y: &mut [f32]) {
        for i in 0..y.len() {
            y[i] = 1.0 / (1.0 + exp(-x[i]));
        }
    }
}

wide! {
    fn quick_gelu(x: &[f32], y: &mut [f32]) {
        for i in 0..y.len() {
            y[i] = x[i] / (1.0 + exp(-1.702 * x[i]));
        }
    }
}

wide! {
    fn gelu_tanh(x: &[f32], y: &mut [f32]) {
        for i in 0..y.len() {
            // x * (1 + tanh u) / 2 = x / (1 + exp(-2 u))
            let u = 0.797_884_6 * (x[i] + 0.044_715 * x[i] * x[i] * x[i]);
            y[i] = x[i] / (1.0 + exp(-2.0 * u));
        }
    }
}

wide! {
    fn relu(x: &[f32], y: &mut [f32]) {
        for i in 0..y.len() {
            // Written so that a NaN stays a NaN.
            y[i] = if x[i] < 0.0 { 0.0 } else { x[i] };
        }
    }
}

wide! {
    fn product(x: &[f32], z: &[f32], y: &mut [f32]) {
        for i in 0..y.len() {
            y[i] = x[i] * z[i];
        }
    }
}

/// The function of every element; none where there is no fused loop for it.
pub(crate) fn activate(function: Activation, x: &[f32]) -> Option<Vec<f32>> {
    let f: fn(&[f32], &mut [f32]) = match function {
        Activation::Silu => silu,
        Activation::Sigmoid => sigmoid,
        Activation::QuickGelu => quick_gelu,
        Activation::GeluTanh => gelu_tanh,
        Activation::Relu => relu,
        _ => return None,
    };
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| f(x, y));
    Some(y)
}

/// Element-wise product of equal lengths.
pub(crate) fn gated(x: &[f32], z: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK).zip(z.par_chunks(CHUNK)))
        .for_each(|(y, (x, z))| product(x, z, y));
    y
}
