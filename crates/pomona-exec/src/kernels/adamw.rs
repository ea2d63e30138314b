//! AdamW over flat buffers, in place.

use rayon::prelude::*;

use super::simd::simd;
use crate::error::{ExecError, Result};
use crate::tensor::Tensor;
use crate::threads::stay_awake;

/// Elements that a task takes.
const CHUNK: usize = 1 << 14;

/// Settings of AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), as PyTorch defines them.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Step size.
    pub rate: f32,
    /// Decay of the running mean and of the running mean of squares.
    pub betas: [f32; 2],
    /// Added to the root of the mean of squares.
    pub eps: f32,
    /// Share of a parameter that a step takes away, times the rate.
    pub decay: f32,
}

impl Default for AdamW {
    /// PyTorch's, at a rate of 1e-3.
    fn default() -> Self {
        Self { rate: 1e-3, betas: [0.9, 0.999], eps: 1e-8, decay: 1e-2 }
    }
}

/// Running means of a parameter's gradient and of its squares.
#[derive(Clone, Debug)]
pub struct Moving {
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: u32,
}

impl Moving {
    /// Of a parameter with this many elements, before the first step.
    pub fn new(elements: usize) -> Self {
        Self { mean: vec![0.0; elements], square: vec![0.0; elements], steps: 0 }
    }

    /// As [`Moving::parts`] gave it; none where the two have different lengths.
    pub fn from_parts(mean: Vec<f32>, square: Vec<f32>, steps: u32) -> Option<Self> {
        (mean.len() == square.len()).then_some(Self { mean, square, steps })
    }

    /// The running mean, the running mean of squares, and the number of steps so far.
    pub fn parts(&self) -> (&[f32], &[f32], u32) {
        (&self.mean, &self.square, self.steps)
    }
}

simd! {
    /// `rule`: rate over the mean's correction, one over the root of the square's, eps, what the decay leaves, the betas.
    fn update<S>(p: &mut [f32], g: &[f32], mean: &mut [f32], square: &mut [f32], rule: [f32; 6]) {
        let [rate, root, eps, keep, b1, b2] = rule;
        for (((p, g), m), s) in p.iter_mut().zip(g).zip(mean.iter_mut()).zip(square.iter_mut()) {
            *m = S::mul_add(*m, b1, (1.0 - b1) * g);
            *s = S::mul_add(*s, b2, (1.0 - b2) * g * g);
            *p = *p * keep - rate * *m / S::mul_add(s.sqrt(), root, eps);
        }
    }
}

impl AdamW {
    /// One step of `parameter` along its gradient. The parameter's memory is used again unless another tensor shares it.
    pub fn step(&self, parameter: &mut Tensor, gradient: &Tensor, moving: &mut Moving) -> Result<()> {
        let n = parameter.elements();
        if gradient.shape() != parameter.shape() || moving.mean.len() != n {
            return Err(ExecError::Tensor(format!(
                "{parameter:?} cannot take a step along {gradient:?} with running means of {} elements",
                moving.mean.len()
            )));
        }
        moving.steps += 1;
        stay_awake(n);
        let [b1, b2] = self.betas.map(f64::from);
        let steps = f64::from(moving.steps);
        let rate = f64::from(self.rate) / (1.0 - b1.powf(steps));
        let root = 1.0 / (1.0 - b2.powf(steps)).sqrt();
        let keep = 1.0 - self.rate * self.decay;
        let rule = [rate as f32, root as f32, self.eps, keep, self.betas[0], self.betas[1]];
        let (mean, square) = (&mut moving.mean, &mut moving.square);
        gradient.with_f32(|g| {
            parameter.update(|p| {
                (
                    p.par_chunks_mut(CHUNK),
                    g.par_chunks(CHUNK),
                    mean.par_chunks_mut(CHUNK),
                    square.par_chunks_mut(CHUNK),
                )
                    .into_par_iter()
                    .for_each(|(p, g, m, s)| update(p, g, m, s, rule));
            })
        })?
    }
}
