//! Functions of single elements.

use burn::tensor::Shape;
use pomona_graph::{Activation, BinaryFn, Slot, ValueType};

use super::layout::{align, broadcast_to};
use super::{Call, Fetch};
use crate::burn_types::{ActivationOps, B, D, FloatTensorOps, TensorMetadata, host};
use crate::error::Result;
use crate::evaluate::Mode;
use crate::host as fused;
use crate::tensor::{Data, Kind, Tensor};

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
    let d = x.as_float()?;
    let fast = host(&d).as_ref().and_then(|f| f.as_slice::<f32>()).and_then(|v| fused::activate(function, v));
    match fast {
        Some(y) => Tensor::from_f32(y, x.shape(), x.device()),
        None => Ok(Tensor::float(apply(function, d), x.device())),
    }
}

fn apply(function: Activation, d: D) -> D {
    let mul = |a: D, b: f64| B::float_mul_scalar(a, b.into());
    let plus = |a: D, b: f64| B::float_add_scalar(a, b.into());
    let clip = |a: D, lo: f64, hi: f64| B::float_clamp(a, lo.into(), hi.into());
    let softplus = |d: D| {
        // max(x, 0) + log1p(exp(-|x|)) never overflows.
        let tail = B::float_log1p(B::float_exp(B::float_neg(B::float_abs(d.clone()))));
        B::float_add(B::relu(d), tail)
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

pub(super) fn prelu(c: &Call<'_>, fetch: &mut Fetch<'_>) -> Result<Tensor> {
    let x = c.input(0)?;
    let weight = c.need(Slot::Weight, fetch)?;
    let mut shape = vec![1; x.shape().len()];
    if weight.elements() > 1 {
        shape[1] = weight.elements();
    }
    let slope = B::float_reshape(weight.as_float()?, Shape::from(shape));
    let d = x.as_float()?;
    let below = B::float_mul(B::float_clamp_max(d.clone(), 0.0.into()), slope);
    Ok(Tensor::float(B::float_add(B::relu(d), below), x.device()))
}

pub(super) fn add(c: &Call<'_>) -> Result<Tensor> {
    let mut sum = c.input(0)?.clone();
    for t in &c.inputs[1..] {
        sum = match sum.kind() {
            Kind::Float => sum.add(t)?,
            _ => zip(c, &sum, t, BinaryFn::Add)?,
        };
    }
    Ok(sum)
}

pub(super) fn binary(c: &Call<'_>, function: BinaryFn) -> Result<Tensor> {
    let (a, b) = (c.input(0)?, c.input(1)?);
    if function == BinaryFn::Mul
        && a.shape() == b.shape()
        && a.kind() == Kind::Float
        && b.kind() == Kind::Float
        && let (Some(x), Some(y)) = (host(&a.as_float()?), host(&b.as_float()?))
        && let (Some(x), Some(y)) = (x.as_slice::<f32>(), y.as_slice::<f32>())
    {
        return Tensor::from_f32(fused::gated(x, y), a.shape(), a.device());
    }
    zip(c, a, b, function)
}

fn zip(c: &Call<'_>, a: &Tensor, b: &Tensor, function: BinaryFn) -> Result<Tensor> {
    let target = broadcast_to(a.shape(), b.shape());
    let target = target.ok_or_else(|| c.fault(format!("{a:?} and {b:?} do not broadcast")))?;
    let float = a.kind() == Kind::Float || b.kind() == Kind::Float;
    if float && !function.is_predicate() {
        let (x, y) = (as_floats(a)?, as_floats(b)?);
        let (x, y) = (align(&x, target.len())?, align(&y, target.len())?);
        return Ok(Tensor::float(arithmetic(function, x, y), a.device()));
    }
    // Comparisons and integers are small and end up as indices or masks: on the host.
    let index = |t: &Tensor| broadcast_index(t.shape(), &target);
    let (ia, ib) = (index(a), index(b));
    if function.is_predicate() {
        let (x, y) = (a.to_f32()?, b.to_f32()?);
        let hold = |p: f32, q: f32| match function {
            BinaryFn::Equal => p == q,
            BinaryFn::Less => p < q,
            BinaryFn::LessEqual => p <= q,
            BinaryFn::Greater => p > q,
            BinaryFn::GreaterEqual => p >= q,
            BinaryFn::And => p != 0.0 && q != 0.0,
            _ => p != 0.0 || q != 0.0,
        };
        return Tensor::from_bool(
            ia.iter().zip(&ib).map(|(i, j)| hold(x[*i], y[*j])).collect(),
            &target,
            a.device(),
        );
    }
    let (x, y) = (a.as_i64()?, b.as_i64()?);
    let mut out = Vec::with_capacity(ia.len());
    for (i, j) in ia.iter().zip(&ib) {
        let (p, q) = (x[*i], y[*j]);
        let value = match function {
            BinaryFn::Add => p.checked_add(q),
            BinaryFn::Sub => p.checked_sub(q),
            BinaryFn::Mul => p.checked_mul(q),
            BinaryFn::Div => p.checked_div(q),
            BinaryFn::Pow => u32::try_from(q).ok().and_then(|q| p.checked_pow(q)),
            BinaryFn::Min => Some(p.min(q)),
            BinaryFn::Max => Some(p.max(q)),
            _ => p.checked_rem_euclid(q),
        };
        out.push(value.ok_or_else(|| c.fault(format!("{p} and {q} have no integer result")))?);
    }
    Tensor::from_i64(out, &target, a.device())
}

fn arithmetic(function: BinaryFn, x: D, y: D) -> D {
    match function {
        BinaryFn::Add => B::float_add(x, y),
        BinaryFn::Sub => B::float_sub(x, y),
        BinaryFn::Mul => B::float_mul(x, y),
        BinaryFn::Div => B::float_div(x, y),
        BinaryFn::Pow => B::float_powf(x, y),
        BinaryFn::Max => {
            let (x, y) = stretched(x, y);
            larger(x, y)
        }
        BinaryFn::Min => {
            let (x, y) = stretched(x, y);
            let lower = B::float_lower(x.clone(), y.clone(), burn::tensor::BoolDType::Native);
            B::float_mask_where(y, lower, x)
        }
        _ => B::float_remainder(x, y),
    }
}

/// Two tensors of one rank in the shape that they broadcast to.
fn stretched(x: D, y: D) -> (D, D) {
    let (a, b) = (x.shape(), y.shape());
    if a == b {
        return (x, y);
    }
    let sizes: Vec<usize> = a.iter().zip(b.iter()).map(|(p, q)| if *p == 1 { *q } else { *p }).collect();
    (B::float_expand(x, Shape::from(sizes.clone())), B::float_expand(y, Shape::from(sizes)))
}

/// The larger of two tensors of one shape, element by element. Exact: a difference of numbers of very different size loses
/// the smaller one.
pub(super) fn larger(x: D, y: D) -> D {
    let greater = B::float_greater(x.clone(), y.clone(), burn::tensor::BoolDType::Native);
    B::float_mask_where(y, greater, x)
}

fn as_floats(t: &Tensor) -> Result<Tensor> {
    match t.kind() {
        Kind::Float => Ok(t.clone()),
        _ => Tensor::from_f32(t.to_f32()?, t.shape(), t.device()),
    }
}

/// For each element of the broadcast result, the element of a tensor that it reads.
fn broadcast_index(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let lead = target.len() - shape.len();
    let mut strides = vec![0; target.len()];
    let mut stride = 1;
    for i in (0..shape.len()).rev() {
        strides[lead + i] = if shape[i] == 1 { 0 } else { stride };
        stride *= shape[i];
    }
    let count: usize = target.iter().product();
    (0..count)
        .map(|mut flat| {
            let mut at = 0;
            for i in (0..target.len()).rev() {
                at += flat % target[i] * strides[i];
                flat /= target[i];
            }
            at
        })
        .collect()
}

pub(super) fn scalar(c: &Call<'_>, function: BinaryFn, value: f64, reversed: bool) -> Result<Tensor> {
    let x = c.input(0)?;
    let number = match x.kind() {
        Kind::Float => Tensor::from_f32(vec![value as f32], &[1], x.device())?,
        Kind::Int => Tensor::from_i64(vec![value as i64], &[1], x.device())?,
        Kind::Bool => Tensor::from_bool(vec![value != 0.0], &[1], x.device())?,
    };
    if x.kind() == Kind::Float && !function.is_predicate() && !reversed {
        let d = x.as_float()?;
        let direct = match function {
            BinaryFn::Add => Some(B::float_add_scalar(d, value.into())),
            BinaryFn::Sub => Some(B::float_sub_scalar(d, value.into())),
            BinaryFn::Mul => Some(B::float_mul_scalar(d, value.into())),
            BinaryFn::Div => Some(B::float_div_scalar(d, value.into())),
            BinaryFn::Pow => Some(B::float_powf_scalar(d, value.into())),
            BinaryFn::Max => Some(B::float_clamp_min(d, value.into())),
            BinaryFn::Min => Some(B::float_clamp_max(d, value.into())),
            _ => None,
        };
        if let Some(d) = direct {
            return Ok(Tensor::float(d, x.device()));
        }
    }
    let number = if c.taped { number.leaf(false)? } else { number };
    if reversed { zip(c, &number, x, function) } else { zip(c, x, &number, function) }
}

pub(super) fn choose(c: &Call<'_>) -> Result<Tensor> {
    let (mask, a, b) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let target = broadcast_to(a.shape(), b.shape()).and_then(|t| broadcast_to(mask.shape(), &t));
    let target = target.ok_or_else(|| c.fault(format!("{mask:?}, {a:?} and {b:?} do not broadcast")))?;
    let chosen = mask.as_bool()?;
    let im = broadcast_index(mask.shape(), &target);
    if a.kind() == Kind::Float {
        // Both sides keep their gradients: a product with a 0/1 mask, exact where both are finite.
        let gate: Vec<f32> = im.iter().map(|i| f32::from(u8::from(chosen[*i]))).collect();
        let ones = Tensor::from_f32(gate, &target, a.device())?;
        let gate = if c.taped { ones.leaf(false)? } else { ones }.as_float()?;
        let flags = B::float_greater_elem(gate, 0.5.into(), bool_type(a));
        let (x, y) = (spread(a, &target)?, spread(b, &target)?);
        return Ok(Tensor::float(B::float_mask_where(y, flags, x), a.device()));
    }
    let (ia, ib) = (broadcast_index(a.shape(), &target), broadcast_index(b.shape(), &target));
    match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => {
            let pick = |k: usize| if chosen[im[k]] { x[ia[k]] } else { y[ib[k]] };
            Tensor::from_i64((0..im.len()).map(pick).collect(), &target, a.device())
        }
        (Data::Bool(x), Data::Bool(y)) => {
            let pick = |k: usize| if chosen[im[k]] { x[ia[k]] } else { y[ib[k]] };
            Tensor::from_bool((0..im.len()).map(pick).collect(), &target, a.device())
        }
        _ => Err(c.fault(format!("{a:?} and {b:?} are of different kinds"))),
    }
}

fn bool_type(_t: &Tensor) -> burn::tensor::BoolDType {
    burn::tensor::BoolDType::Native
}

fn spread(t: &Tensor, target: &[usize]) -> Result<D> {
    let d = align(t, target.len())?;
    Ok(B::float_expand(d, Shape::from(target.to_vec())))
}

pub(super) fn clip(c: &Call<'_>, min: Option<f64>, max: Option<f64>) -> Result<Tensor> {
    let x = c.input(0)?;
    if let Data::Int(v) = &x.data {
        let (lo, hi) = (min.map_or(i64::MIN, |m| m as i64), max.map_or(i64::MAX, |m| m as i64));
        return Tensor::from_i64(v.iter().map(|i| *i.max(&lo).min(&hi)).collect(), x.shape(), x.device());
    }
    let mut d = x.as_float()?;
    if let Some(min) = min {
        d = B::float_clamp_min(d, min.into());
    }
    if let Some(max) = max {
        d = B::float_clamp_max(d, max.into());
    }
    Ok(Tensor::float(d, x.device()))
}

pub(super) fn cast(c: &Call<'_>, to: ValueType) -> Result<Tensor> {
    let x = c.input(0)?;
    match (&x.data, to) {
        (Data::Float(_), ValueType::Float)
        | (Data::Int(_), ValueType::Int)
        | (Data::Bool(_), ValueType::Bool) => Ok(x.clone()),
        (Data::Float(_), ValueType::Int) => {
            Tensor::from_i64(x.with_f32(|v| v.iter().map(|f| *f as i64).collect())?, x.shape(), x.device())
        }
        (Data::Bool(v), ValueType::Int) => {
            Tensor::from_i64(v.iter().map(|b| i64::from(*b)).collect(), x.shape(), x.device())
        }
        (_, ValueType::Bool) => {
            Tensor::from_bool(x.with_f32(|v| v.iter().map(|f| *f != 0.0).collect())?, x.shape(), x.device())
        }
        (_, ValueType::Float) => {
            let t = Tensor::from_f32(x.to_f32()?, x.shape(), x.device())?;
            if c.taped { t.leaf(false) } else { Ok(t) }
        }
    }
}

/// Drops with a stream that depends on the seed and the node alone, so that a resumed step drops the same elements.
pub(super) fn dropout(c: &Call<'_>, rate: f64) -> Result<Tensor> {
    let x = c.input(0)?;
    let Mode::Training { seed } = c.options.mode else { return Ok(x.clone()) };
    if rate <= 0.0 {
        return Ok(x.clone());
    }
    let mut state = c
        .node
        .path
        .bytes()
        .fold(seed ^ 0x9e37_79b9_7f4a_7c15, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let keep = (1.0 - rate).max(0.0);
    let scale = if keep > 0.0 { 1.0 / keep } else { 0.0 };
    let mask = (0..x.elements()).map(|_| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        if uniform < keep { scale as f32 } else { 0.0 }
    });
    let mask = Tensor::from_f32(mask.collect(), x.shape(), x.device())?;
    let mask = if c.taped { mask.leaf(false)? } else { mask };
    x.mul(&mask)
}

pub(super) fn sinusoid(
    c: &Call<'_>,
    width: usize,
    max_period: f64,
    cosine_first: bool,
    shift: f64,
) -> Result<Tensor> {
    let x = c.input(0)?;
    let half = width / 2;
    let frequency = |i: usize| (-(max_period.ln()) * i as f64 / (half as f64 - shift)).exp() as f32;
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let mut out = Vec::with_capacity(x.elements() * width);
    for t in x.to_f32()? {
        let angles = frequencies.iter().map(|f| t * f);
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
        let (first, second) = if cosine_first { (cos, sin) } else { (sin, cos) };
        out.extend(first);
        out.extend(second);
        out.resize(out.len() + width % 2, 0.0);
    }
    let mut shape = x.shape().to_vec();
    shape.push(width);
    let t = Tensor::from_f32(out, &shape, x.device())?;
    if c.taped { t.leaf(false) } else { Ok(t) }
}
