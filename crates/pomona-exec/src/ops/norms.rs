//! Norms and softmax.

use burn::tensor::Shape;
use pomona_graph::{Activation, BatchStatistics, Slot};

use super::Call;
use crate::burn_types::{ActivationOps, B, D, FloatTensorOps};
use crate::error::Result;
use crate::evaluate::{ChannelMoments, Mode};
use crate::kernels::{self, After, Loops, Moments, Planes, Slice};
use crate::tensor::Tensor;

/// Weight and bias behind an input; where one is missing, what leaves the values as they are.
struct Affine {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Affine {
    fn new(slices: &[Slice], [weight, bias]: [bool; 2], n: usize) -> Self {
        let of = |at: usize, there: bool, neutral: f32| {
            slices.get(at).filter(|_| there).map_or_else(|| vec![neutral; n], |s| s.to_vec())
        };
        Self { weight: of(1, weight, 1.0), bias: of(1 + usize::from(weight), bias, 0.0) }
    }

    fn after(&self, then: Option<Loops>) -> After<'_> {
        After { weight: &self.weight, bias: &self.bias, then }
    }

    /// The gradients of the input, weight and bias, those that are there.
    fn gradients(has: [bool; 2], [dx, dw, db]: [Vec<f32>; 3]) -> Vec<Option<Vec<f32>>> {
        let mut out = vec![Some(dx)];
        if has[0] {
            out.push(Some(dw));
        }
        if has[1] {
            out.push(Some(db));
        }
        out
    }
}

fn inputs<'a>(
    x: &'a Tensor,
    weight: &'a Option<Tensor>,
    bias: &'a Option<Tensor>,
) -> (Vec<&'a Tensor>, [bool; 2]) {
    (
        [Some(x), weight.as_ref(), bias.as_ref()].into_iter().flatten().collect(),
        [weight.is_some(), bias.is_some()],
    )
}

/// LayerNorm over rows of `n`, RMSNorm where not `centred`. `offset` is added to the weight.
fn rows(
    x: &Tensor,
    weight: &Option<Tensor>,
    bias: &Option<Tensor>,
    n: usize,
    eps: f64,
    offset: f64,
    centred: bool,
) -> Result<Option<Tensor>> {
    let (inputs, has) = inputs(x, weight, bias);
    kernels::record(&inputs, x.shape(), |s| {
        let mut a = Affine::new(s, has, n);
        if has[0] && offset != 0.0 {
            a.weight.iter_mut().for_each(|w| *w += offset as f32);
        }
        let (y, moments) = kernels::norm(&s[0], &a.weight, &a.bias, eps as f32, centred);
        let (x, weight) = (s[0].clone(), a.weight);
        let back = move |above: &[f32], _: &[bool]| {
            Affine::gradients(has, kernels::norm_back(&x, above, &weight, &moments, centred))
        };
        (y, kernels::step(back))
    })
}

pub(super) fn rms_norm(c: &Call<'_>, eps: f64, offset: f64) -> Result<Tensor> {
    let x = c.input(0)?;
    let weight = c.weight(Slot::Weight)?;
    let width = x.shape().last().copied().unwrap_or(1);
    if let Some(y) = rows(x, &weight, &None, width, eps, offset, false)? {
        return Ok(y);
    }
    let d = x.as_float()?;
    let last = x.shape().len() - 1;
    let mean = B::float_mean_dim(B::float_mul(d.clone(), d.clone()), last);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())));
    let mut y = B::float_mul(d, scale);
    if let Some(w) = weight {
        let mut w = w.as_float()?;
        if offset != 0.0 {
            w = B::float_add_scalar(w, offset.into());
        }
        y = B::float_mul(y, along(w, x.shape().len(), last, 1));
    }
    Ok(Tensor::float(y, x.device()))
}

/// A vector laid along `axes` axes from `axis`, for broadcasting against `rank` axes.
fn along(v: D, rank: usize, axis: usize, axes: usize) -> D {
    use crate::burn_types::TensorMetadata;
    let own = v.shape().to_vec();
    let mut shape = vec![1; rank];
    shape[axis..axis + axes].copy_from_slice(&own);
    B::float_reshape(v, Shape::from(shape))
}

fn normalised(d: D, axes: std::ops::Range<usize>, eps: f64) -> D {
    let mean = axes.clone().fold(d.clone(), B::float_mean_dim);
    let centred = B::float_sub(d, mean);
    let square = B::float_mul(centred.clone(), centred.clone());
    let var = axes.fold(square, B::float_mean_dim);
    B::float_mul(centred, B::float_recip(B::float_sqrt(B::float_add_scalar(var, eps.into()))))
}

pub(super) fn layer_norm(c: &Call<'_>, axes: usize, eps: f64) -> Result<Tensor> {
    let x = c.input(0)?;
    let (weight, bias) = (c.weight(Slot::Weight)?, c.weight(Slot::Bias)?);
    let rank = x.shape().len();
    let n = x.shape()[rank - axes..].iter().product();
    if let Some(y) = rows(x, &weight, &bias, n, eps, 0.0, true)? {
        return Ok(y);
    }
    let mut y = normalised(x.as_float()?, rank - axes..rank, eps);
    if let Some(w) = weight {
        y = B::float_mul(y, along(w.as_float()?, rank, rank - axes, axes));
    }
    if let Some(b) = bias {
        y = B::float_add(y, along(b.as_float()?, rank, rank - axes, axes));
    }
    Ok(Tensor::float(y, x.device()))
}

fn planes(x: &Tensor) -> Planes {
    let s = x.shape();
    Planes { batch: s[0], channels: s[1], space: s[2..].iter().product() }
}

/// Values that were normalised by Burn's operators, with the activation behind them.
fn activated(x: Tensor, then: Option<Activation>) -> Result<Tensor> {
    then.map_or(Ok(x.clone()), |f| super::activation::apply_to(f, &x))
}

/// GroupNorm, or InstanceNorm without `groups`, and an activation behind it.
pub(super) fn group_norm(
    c: &Call<'_>,
    groups: Option<usize>,
    eps: f64,
    then: Option<Activation>,
) -> Result<Tensor> {
    let x = c.input(0)?;
    let (weight, bias) = (c.weight(Slot::Weight)?, c.weight(Slot::Bias)?);
    let p = planes(x);
    let groups = groups.unwrap_or(p.channels).max(1);
    let (inputs, has) = inputs(x, &weight, &bias);
    let fused = kernels::record(&inputs, x.shape(), |s| {
        let a = Affine::new(s, has, p.channels);
        let loops = then.and_then(Loops::of);
        let (y, moments) = kernels::group_norm(&s[0], p, a.after(loops), groups, eps as f32);
        let x = s[0].clone();
        let back = move |above: &[f32], _: &[bool]| {
            let found = kernels::group_norm_back(&x, above, p, a.after(loops), groups, &moments);
            Affine::gradients(has, found)
        };
        (y, kernels::step(back))
    })?;
    if let Some(y) = fused {
        return Ok(y);
    }
    let rest = x.elements() / (p.batch * groups).max(1);
    let grouped = x.reshape(&[p.batch * groups, rest])?;
    let normal = Tensor::float(normalised(grouped.as_float()?, 1..2, eps), x.device()).reshape(x.shape())?;
    activated(affine(normal, weight, bias)?, then)
}

fn affine(x: Tensor, weight: Option<Tensor>, bias: Option<Tensor>) -> Result<Tensor> {
    let rank = x.shape().len();
    let mut y = x.as_float()?;
    if let Some(w) = weight {
        y = B::float_mul(y, along(w.as_float()?, rank, 1, 1));
    }
    if let Some(b) = bias {
        y = B::float_add(y, along(b.as_float()?, rank, 1, 1));
    }
    Ok(Tensor::float(y, x.device()))
}

/// Tells whoever keeps running statistics what this batch was like.
fn tell(c: &Call<'_>, p: Planes, moments: &[Moments], eps: f64) {
    let Some(to) = &c.options.moments else { return };
    let variance = |m: &Moments| ((1.0 / f64::from(m.scale).powi(2) - f64::from(eps as f32)).max(0.0)) as f32;
    to.tell(
        &c.node.path,
        ChannelMoments {
            mean: moments.iter().map(|m| m.mean).collect(),
            variance: moments.iter().map(variance).collect(),
            count: p.batch * p.space,
        },
    );
}

/// BatchNorm, and an activation behind it.
pub(super) fn batch_norm(
    c: &Call<'_>,
    eps: f64,
    statistics: BatchStatistics,
    then: Option<Activation>,
) -> Result<Tensor> {
    let x = c.input(0)?;
    let (weight, bias) = (c.weight(Slot::Weight)?, c.weight(Slot::Bias)?);
    let rank = x.shape().len();
    let own = statistics == BatchStatistics::Batch || matches!(c.options.mode, Mode::Training { .. });
    let p = planes(x);
    let running = if own { None } else { Some((c.need(Slot::RunningMean)?, c.need(Slot::RunningVar)?)) };
    // Running statistics are given, not learnt: a gradient for them goes through Burn's operators.
    if running.as_ref().is_none_or(|(m, v)| !m.is_taped() && !v.is_taped()) {
        let given = running.as_ref().map(|(mean, var)| -> Result<Vec<Moments>> {
            let (mean, var) = (mean.to_f32()?, var.to_f32()?);
            let of =
                |(mean, var): (&f32, &f32)| Moments { mean: *mean, scale: 1.0 / (var + eps as f32).sqrt() };
            Ok(mean.iter().zip(&var).map(of).collect())
        });
        let given = given.transpose()?;
        let (inputs, has) = inputs(x, &weight, &bias);
        let fused = kernels::record(&inputs, x.shape(), |s| {
            let a = Affine::new(s, has, p.channels);
            let loops = then.and_then(Loops::of);
            let moments = given.unwrap_or_else(|| kernels::batch_moments(&s[0], p, eps as f32));
            if own {
                tell(c, p, &moments, eps);
            }
            let y = kernels::batch_norm(&s[0], p, a.after(loops), &moments);
            let x = s[0].clone();
            let back = move |above: &[f32], _: &[bool]| {
                let found = kernels::batch_norm_back(&x, above, p, a.after(loops), &moments, own);
                Affine::gradients(has, found)
            };
            (y, kernels::step(back))
        })?;
        if let Some(y) = fused {
            return Ok(y);
        }
    }
    let normal = if own {
        if c.options.moments.is_some() {
            tell(c, p, &kernels::batch_moments(&x.to_f32()?, p, eps as f32), eps);
        }
        // Channels first, everything else behind them, so that one reduction covers batch and space.
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(0, 1);
        let turned = x.transpose(&axes)?;
        let shape = turned.shape().to_vec();
        let flat = turned.reshape(&[shape[0], turned.elements() / shape[0].max(1)])?;
        Tensor::float(normalised(flat.as_float()?, 1..2, eps), x.device())
            .reshape(&shape)?
            .transpose(&axes)?
    } else {
        let mean = c.need(Slot::RunningMean)?.as_float()?;
        let var = c.need(Slot::RunningVar)?.as_float()?;
        let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(var, eps.into())));
        let centred = B::float_sub(x.as_float()?, along(mean, rank, 1, 1));
        Tensor::float(B::float_mul(centred, along(scale, rank, 1, 1)), x.device())
    };
    activated(affine(normal, weight, bias)?, then)
}

pub(super) fn softmax(c: &Call<'_>, axis: usize, log: bool) -> Result<Tensor> {
    let x = c.input(0)?;
    let n = x.shape()[axis];
    if axis + 1 == x.shape().len() {
        let fused = kernels::record_sharing(&[x], x.shape(), |s| {
            let y = kernels::softmax(&s[0], n, log);
            let back = move |y: Slice| {
                kernels::step(move |above, _| vec![Some(kernels::softmax_back(&y, n, log, above))])
            };
            (y, back)
        })?;
        if let Some(y) = fused {
            return Ok(y);
        }
    }
    let d = x.as_float()?;
    let y = if log { B::log_softmax(d, axis) } else { B::softmax(d, axis) };
    Ok(Tensor::float(y, x.device()))
}
