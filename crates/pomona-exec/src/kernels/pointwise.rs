//! Element-wise functions with their slopes.

use pomona_graph::Activation;
use rayon::prelude::*;

use super::math::{erf, exp, sigmoid, tanh};
use super::simd::simd;
use super::uninit;

/// Elements that a task takes.
const CHUNK: usize = 1 << 14;

/// A loop over `x`, one in place, and one over `x` and the gradient from above. `p` holds what an activation is given by.
type Forward = fn(&[f32], [f32; 2], &mut [f32]);
type Within = fn([f32; 2], &mut [f32]);
type Backward = fn(&[f32], [f32; 2], &[f32], &mut [f32]);

macro_rules! function {
    ($name:ident, |$x:ident, $p:ident| <$s:ident> $value:expr, $slope:expr) => {
        mod $name {
            use super::*;

            simd! {
                pub(super) fn forward<$s>(x: &[f32], $p: [f32; 2], y: &mut [f32]) {
                    let _ = $p;
                    for (y, x) in y.iter_mut().zip(x) {
                        let $x = *x;
                        *y = $value;
                    }
                }
            }
            simd! {
                pub(super) fn within<$s>($p: [f32; 2], y: &mut [f32]) {
                    let _ = $p;
                    for y in y {
                        let $x = *y;
                        *y = $value;
                    }
                }
            }
            simd! {
                pub(super) fn backward<$s>(x: &[f32], $p: [f32; 2], above: &[f32], y: &mut [f32]) {
                    let _ = $p;
                    for ((y, x), above) in y.iter_mut().zip(x).zip(above) {
                        let $x = *x;
                        *y = *above * $slope;
                    }
                }
            }
        }
    };
}

// Comparisons are written so that a NaN stays one.
function!(relu, |x, p| <S> if x < 0.0 { 0.0 } else { x }, if x > 0.0 { 1.0 } else { 0.0 });
function!(relu6, |x, p| <S> x.clamp(0.0, 6.0), if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 });
function!(leaky, |x, p| <S> if x < 0.0 { p[0] * x } else { x }, if x > 0.0 { 1.0 } else { p[0] });
function!(elu, |x, p| <S> if x < 0.0 { p[0] * (exp::<S>(x) - 1.0) } else { x }, if x > 0.0 { 1.0 } else { p[0] * exp::<S>(x) });
function!(silu, |x, p| <S> x * sigmoid::<S>(x), {
    let s = sigmoid::<S>(x);
    s * S::mul_add(x, 1.0 - s, 1.0)
});
function!(sigmoids, |x, p| <S> sigmoid::<S>(x), {
    let s = sigmoid::<S>(x);
    s * (1.0 - s)
});
function!(quick_gelu, |x, p| <S> x * sigmoid::<S>(1.702 * x), {
    let s = sigmoid::<S>(1.702 * x);
    s * S::mul_add(1.702 * x, 1.0 - s, 1.0)
});
function!(gelu, |x, p| <S> 0.5 * x * (1.0 + erf::<S>(std::f32::consts::FRAC_1_SQRT_2 * x)), {
    let density = 0.398_942_3 * exp::<S>(-0.5 * x * x);
    S::mul_add(x, density, 0.5 * (1.0 + erf::<S>(std::f32::consts::FRAC_1_SQRT_2 * x)))
});
// x * (1 + tanh u) / 2 = x * sigmoid(2 u)
function!(gelu_tanh, |x, p| <S> x * sigmoid::<S>(1.595_769_2 * x * S::mul_add(0.044_715 * x, x, 1.0)), {
    let s = sigmoid::<S>(1.595_769_2 * x * S::mul_add(0.044_715 * x, x, 1.0));
    let inner = 1.595_769_2 * S::mul_add(0.134_145 * x, x, 1.0);
    s * S::mul_add(x * inner, 1.0 - s, 1.0)
});
function!(tanhs, |x, p| <S> tanh::<S>(x), {
    let t = tanh::<S>(x);
    S::mul_add(-t, t, 1.0)
});
function!(hard_swish, |x, p| <S> x * (x / 6.0 + 0.5).clamp(0.0, 1.0), {
    let inside = S::mul_add(x, 1.0 / 3.0, 0.5);
    if x <= -3.0 { 0.0 } else if x >= 3.0 { 1.0 } else { inside }
});
function!(hard_sigmoid, |x, p| <S> S::mul_add(x, p[0], p[1]).clamp(0.0, 1.0), {
    let z = S::mul_add(x, p[0], p[1]);
    if z > 0.0 && z < 1.0 { p[0] } else { 0.0 }
});

/// An activation's loops, and what they are given.
#[derive(Clone, Copy)]
pub(crate) struct Loops {
    forward: Forward,
    within: Within,
    backward: Backward,
    p: [f32; 2],
}

impl Loops {
    /// None where there are no loops for the function.
    pub(crate) fn of(function: Activation) -> Option<Self> {
        macro_rules! loops {
            ($name:ident, $p:expr) => {
                Loops { forward: $name::forward, within: $name::within, backward: $name::backward, p: $p }
            };
        }
        Some(match function {
            Activation::Relu => loops!(relu, [0.0; 2]),
            Activation::Relu6 => loops!(relu6, [0.0; 2]),
            Activation::LeakyRelu(slope) => loops!(leaky, [slope as f32, 0.0]),
            Activation::Elu(alpha) => loops!(elu, [alpha as f32, 0.0]),
            Activation::Silu => loops!(silu, [0.0; 2]),
            Activation::Sigmoid => loops!(sigmoids, [0.0; 2]),
            Activation::QuickGelu => loops!(quick_gelu, [0.0; 2]),
            Activation::Gelu => loops!(gelu, [0.0; 2]),
            Activation::GeluTanh => loops!(gelu_tanh, [0.0; 2]),
            Activation::Tanh => loops!(tanhs, [0.0; 2]),
            Activation::HardSwish => loops!(hard_swish, [0.0; 2]),
            Activation::HardSigmoid(a, b) => loops!(hard_sigmoid, [a as f32, b as f32]),
            _ => return None,
        })
    }

    /// Replaces every element by the function of it.
    pub(super) fn within(&self, y: &mut [f32]) {
        (self.within)(self.p, y);
    }

    /// The gradient of `x` from that of the function's values.
    pub(super) fn back(&self, x: &[f32], above: &[f32], dx: &mut [f32]) {
        (self.backward)(x, self.p, above, dx);
    }
}

/// Whether there is a loop for it.
pub(crate) fn has(function: Activation) -> bool {
    Loops::of(function).is_some()
}

/// The function of every element. What there is no loop for is left as it is.
pub(crate) fn activate(function: Activation, x: &[f32]) -> Vec<f32> {
    let Some(f) = Loops::of(function) else { return x.to_vec() };
    let mut y = uninit(x.len());
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| (f.forward)(x, f.p, y));
    y
}

/// The gradient of `x` from that of the function's values.
pub(crate) fn activate_back(function: Activation, x: &[f32], above: &[f32]) -> Vec<f32> {
    let Some(f) = Loops::of(function) else { return above.to_vec() };
    let mut dx = uninit(x.len());
    let chunks = dx.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(above.par_chunks(CHUNK));
    chunks.for_each(|((dx, x), above)| f.back(x, above, dx));
    dx
}

simd! {
    fn products<S>(x: &[f32], z: &[f32], y: &mut [f32]) {
        for ((y, x), z) in y.iter_mut().zip(x).zip(z) {
            *y = x * z;
        }
    }
}

/// Products of elements of equal lengths.
pub(crate) fn multiply(x: &[f32], z: &[f32]) -> Vec<f32> {
    let mut y = uninit(x.len());
    let chunks = y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(z.par_chunks(CHUNK));
    chunks.for_each(|((y, x), z)| products(x, z, y));
    y
}
