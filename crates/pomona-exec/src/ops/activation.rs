//! Activations.

use burn::tensor::{BoolDType, Shape};
use pomona_graph::{Activation, Slot};

use super::Call;
use crate::burn_types::{ActivationOps, B, D, FloatTensorOps};
use crate::error::Result;
use crate::kernels;
use crate::tensor::{Data, Tensor};

pub(super) fn activation(c: &Call<'_>, function: Activation) -> Result<Tensor> {
    let x = c.input(0)?;
    match (&x.data, function) {
        (Data::Bool(v), Activation::Not) => {
            return Tensor::from_bool(v.iter().map(|b| !b).collect(), x.shape(), x.device());
        }
        (Data::Int(v), Activation::Abs) => {
            return Tensor::from_i64(v.iter().map(|i| i.wrapping_abs()).collect(), x.shape(), x.device());
        }
        (Data::Int(v), Activation::Neg) => {
            return Tensor::from_i64(v.iter().map(|i| i.wrapping_neg()).collect(), x.shape(), x.device());
        }
        _ => {}
    }
    if kernels::has(function) {
        let fused = kernels::record(&[x], x.shape(), |s| {
            let y = kernels::activate(function, &s[0]);
            let x = s[0].clone();
            (y, kernels::step(move |above, _| vec![Some(kernels::activate_back(function, &x, above))]))
        })?;
        if let Some(y) = fused {
            return Ok(y);
        }
    }
    apply_to(function, x)
}

/// The function of every float, by Burn's operators.
pub(super) fn apply_to(function: Activation, x: &Tensor) -> Result<Tensor> {
    Ok(Tensor::float(apply(function, x.as_float()?), x.device()))
}

fn apply(function: Activation, d: D) -> D {
    let mul = |a: D, b: f64| B::float_mul_scalar(a, b.into());
    let plus = |a: D, b: f64| B::float_add_scalar(a, b.into());
    let clip = |a: D, lo: f64, hi: f64| B::float_clamp(a, lo.into(), hi.into());
    let softplus = |d: D| {
        // Above 20, x + log1p(exp(-x)) is x. The clamp keeps the exponential, and its gradient, finite.
        let low = B::float_log1p(B::float_exp(B::float_clamp_max(d.clone(), 20.0.into())));
        let high = B::float_greater_elem(d.clone(), 20.0.into(), BoolDType::Native);
        B::float_mask_where(low, high, d)
    };
    let elu = |d: D, alpha: f64| {
        let below = mul(plus(B::float_exp(B::float_clamp_max(d.clone(), 0.0.into())), -1.0), alpha);
        B::float_add(B::relu(d), below)
    };
    match function {
        Activation::Relu => B::relu(d),
        Activation::Relu6 => clip(d, 0.0, 6.0),
        Activation::LeakyRelu(slope) => B::leaky_relu(d, slope.into()),
        Activation::Elu(alpha) => elu(d, alpha),
        Activation::Selu => mul(elu(d, 1.673_263_242_354_377_2), 1.050_700_987_355_480_5),
        Activation::Silu => B::float_mul(d.clone(), B::sigmoid(d)),
        Activation::Gelu => {
            let phi = plus(B::float_erf(mul(d.clone(), std::f64::consts::FRAC_1_SQRT_2)), 1.0);
            mul(B::float_mul(d, phi), 0.5)
        }
        Activation::GeluTanh => {
            let cube = B::float_mul(B::float_mul(d.clone(), d.clone()), d.clone());
            let inner =
                mul(B::float_add(d.clone(), mul(cube, 0.044_715)), (2.0 / std::f64::consts::PI).sqrt());
            mul(B::float_mul(d, plus(B::float_tanh(inner), 1.0)), 0.5)
        }
        Activation::QuickGelu => B::float_mul(d.clone(), B::sigmoid(mul(d, 1.702))),
        Activation::Sigmoid => B::sigmoid(d),
        Activation::HardSigmoid(slope, offset) => clip(plus(mul(d, slope), offset), 0.0, 1.0),
        Activation::HardSwish => B::float_mul(d.clone(), clip(plus(mul(d, 1.0 / 6.0), 0.5), 0.0, 1.0)),
        Activation::Tanh => B::float_tanh(d),
        Activation::Softplus => softplus(d),
        Activation::Mish => B::float_mul(d.clone(), B::float_tanh(softplus(d))),
        Activation::Exp => B::float_exp(d),
        Activation::Log => B::float_log(d),
        Activation::Sqrt => B::float_sqrt(d),
        Activation::Rsqrt => B::float_recip(B::float_sqrt(d)),
        Activation::Reciprocal => B::float_recip(d),
        Activation::Abs => B::float_abs(d),
        Activation::Neg => B::float_neg(d),
        Activation::Sin => B::float_sin(d),
        Activation::Cos => B::float_cos(d),
        Activation::Erf => B::float_erf(d),
        Activation::Floor => B::float_floor(d),
        Activation::Ceil => B::float_ceil(d),
        Activation::Round => B::float_round(d),
        Activation::Sign => B::float_sign(d),
        // Of a float: 1 where it is zero.
        Activation::Not => plus(B::float_neg(B::float_abs(B::float_sign(d))), 1.0),
    }
}

pub(super) fn prelu(c: &Call<'_>) -> Result<Tensor> {
    let x = c.input(0)?;
    let weight = c.need(Slot::Weight)?;
    let mut shape = vec![1; x.shape().len()];
    if weight.elements() > 1 {
        shape[1] = weight.elements();
    }
    let slope = B::float_reshape(weight.as_float()?, Shape::from(shape));
    let d = x.as_float()?;
    let below = B::float_mul(B::float_clamp_max(d.clone(), 0.0.into()), slope);
    Ok(Tensor::float(B::float_add(B::relu(d), below), x.device()))
}
