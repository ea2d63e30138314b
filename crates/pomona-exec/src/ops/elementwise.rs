//! Functions of single elements.

use burn::tensor::{BoolDType, Shape};
use pomona_graph::{BinaryFn, ValueType};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Call;
use super::layout::{align, broadcast_to};
use crate::burn_types::{B, D, FloatTensorOps};
use crate::error::Result;
use crate::evaluate::Mode;
use crate::kernels;
use crate::tensor::{Data, Kind, Tensor};

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
    {
        let fused = kernels::record(&[a, b], a.shape(), |s| {
            let (x, z) = (s[0].clone(), s[1].clone());
            let back = move |above: &[f32], need: &[bool]| {
                vec![
                    need[0].then(|| kernels::multiply(above, &z)),
                    need[1].then(|| kernels::multiply(above, &x)),
                ]
            };
            (kernels::multiply(&s[0], &s[1]), kernels::step(back))
        })?;
        if let Some(y) = fused {
            return Ok(y);
        }
    }
    zip(c, a, b, function)
}

fn zip(c: &Call<'_>, a: &Tensor, b: &Tensor, function: BinaryFn) -> Result<Tensor> {
    let target = broadcast_to(a.shape(), b.shape());
    let target = target.ok_or_else(|| c.fault(format!("{a:?} and {b:?} do not broadcast")))?;
    let float = a.kind() == Kind::Float || b.kind() == Kind::Float;
    if float && !function.is_predicate() {
        let (x, y) = (as_floats(a)?, as_floats(b)?);
        let (x, y) = match function {
            // A comparison picks whole elements: both sides in full.
            BinaryFn::Max | BinaryFn::Min => (spread(&x, &target)?, spread(&y, &target)?),
            _ => (align(&x, target.len())?, align(&y, target.len())?),
        };
        return Ok(Tensor::float(arithmetic(function, x, y), a.device()));
    }
    // Comparisons and integers are small and end up as indices or masks: on the host.
    let index = |t: &Tensor| broadcast_index(t.shape(), &target);
    let (ia, ib) = (index(a), index(b));
    let pairs = ia.iter().zip(&ib);
    if function.is_predicate() {
        let found: Vec<bool> = match (&a.data, &b.data) {
            // Not as floats, which do not tell large integers apart.
            (Data::Int(x), Data::Int(y)) => pairs.map(|(i, j)| holds(function, x[*i], y[*j])).collect(),
            _ => {
                let (x, y) = (a.off_tape()?.to_f32()?, b.off_tape()?.to_f32()?);
                pairs.map(|(i, j)| holds(function, x[*i], y[*j])).collect()
            }
        };
        return Tensor::from_bool(found, &target, a.device());
    }
    let (x, y) = (a.as_i64()?, b.as_i64()?);
    let mut out = Vec::with_capacity(ia.len());
    for (i, j) in pairs {
        let (p, q) = (x[*i], y[*j]);
        let value = match function {
            BinaryFn::Add => p.checked_add(q),
            BinaryFn::Sub => p.checked_sub(q),
            BinaryFn::Mul => p.checked_mul(q),
            BinaryFn::Div => p.checked_div(q),
            BinaryFn::Pow => u32::try_from(q).ok().and_then(|q| p.checked_pow(q)),
            BinaryFn::Min => Some(p.min(q)),
            BinaryFn::Max => Some(p.max(q)),
            // The sign of the divisor.
            _ => p.checked_rem(q).map(|r| if r != 0 && (r < 0) != (q < 0) { r + q } else { r }),
        };
        out.push(value.ok_or_else(|| c.fault(format!("{p} and {q} have no integer result")))?);
    }
    Tensor::from_i64(out, &target, a.device())
}

fn holds<T: PartialOrd + Default>(function: BinaryFn, p: T, q: T) -> bool {
    let zero = T::default();
    match function {
        BinaryFn::Equal => p == q,
        BinaryFn::Less => p < q,
        BinaryFn::LessEqual => p <= q,
        BinaryFn::Greater => p > q,
        BinaryFn::GreaterEqual => p >= q,
        BinaryFn::And => p != zero && q != zero,
        _ => p != zero || q != zero,
    }
}

fn arithmetic(function: BinaryFn, x: D, y: D) -> D {
    match function {
        BinaryFn::Add => B::float_add(x, y),
        BinaryFn::Sub => B::float_sub(x, y),
        BinaryFn::Mul => B::float_mul(x, y),
        BinaryFn::Div => B::float_div(x, y),
        BinaryFn::Pow => B::float_powf(x, y),
        BinaryFn::Max => larger(x, y),
        BinaryFn::Min => larger_where(y.clone(), x.clone(), x, y),
        _ => B::float_remainder(x, y),
    }
}

/// The larger of two tensors of one shape, element by element; its gradient goes to the element that was taken.
pub(super) fn larger(x: D, y: D) -> D {
    larger_where(x.clone(), y.clone(), x, y)
}

/// `a` where `x > y`, `b` elsewhere.
fn larger_where(x: D, y: D, a: D, b: D) -> D {
    B::float_mask_where(b, B::float_greater(x, y, BoolDType::Native), a)
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
        let gate = ones.as_float()?;
        let flags = B::float_greater_elem(gate, 0.5.into(), BoolDType::Native);
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
        (_, ValueType::Float) => Tensor::from_f32(x.to_f32()?, x.shape(), x.device()),
    }
}

/// Drops with a stream that depends on the seed and the node alone, so that a resumed step drops the same elements.
pub(super) fn dropout(c: &Call<'_>, rate: f64) -> Result<Tensor> {
    let x = c.input(0)?;
    match dropped(c, x, rate)? {
        Some(y) => Ok(y),
        None => Ok(x.clone()),
    }
}

/// `x` with elements dropped at a rate in training, from the run's seed and the node's path; none where nothing is dropped.
pub(crate) fn dropped(c: &Call<'_>, x: &Tensor, rate: f64) -> Result<Option<Tensor>> {
    let Mode::Training { seed } = c.options.mode else { return Ok(None) };
    if rate <= 0.0 {
        return Ok(None);
    }
    let own = c.node.path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        // FNV-1a.
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ own);
    let keep = (1.0 - rate).max(0.0);
    let scale = if keep > 0.0 { (1.0 / keep) as f32 } else { 0.0 };
    // Kept where 32 random bits are below this.
    let limit = (keep * (1_u64 << 32) as f64) as u64;
    let mask = (0..x.elements()).map(|_| if u64::from(random.next_u32()) < limit { scale } else { 0.0 });
    let mask = Tensor::from_f32(mask.collect(), x.shape(), x.device())?;
    x.mul(&mask).map(Some)
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
    // In f32 and in this order, as the references compute it: at position 1000 the last bit of a frequency counts.
    let frequency = |i: usize| (-(max_period.ln()) as f32 * i as f32 / (half as f64 - shift) as f32).exp();
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
    Tensor::from_f32(out, &shape, x.device())
}
