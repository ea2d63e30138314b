//! Norms and softmax.

use burn::tensor::Shape;
use pomona_graph::{BatchStatistics, Slot};

use super::Call;
use crate::burn_types::{ActivationOps, B, D, FloatTensorOps, host};
use crate::error::Result;
use crate::evaluate::Mode;
use crate::host as fused;
use crate::tensor::Tensor;

fn slice_of(t: &Option<Tensor>) -> Result<Vec<f32>> {
    t.as_ref().map_or(Ok(Vec::new()), Tensor::to_f32)
}

pub(super) fn rms_norm(c: &Call<'_>, eps: f64, offset: f64) -> Result<Tensor> {
    let x = c.input(0)?;
    let weight = c.weight(Slot::Weight)?;
    let width = x.shape().last().copied().unwrap_or(1);
    let d = x.as_float()?;
    let plain = weight.as_ref().is_none_or(|w| w.as_float().is_ok_and(|w| host(&w).is_some()));
    if let (true, Some(flex)) = (plain, host(&d))
        && let Some(values) = flex.as_slice::<f32>()
    {
        let (w, offset) = match &weight {
            Some(w) => (w.to_f32()?, offset as f32),
            None => (vec![1.0; width], 0.0),
        };
        return Tensor::from_f32(fused::rms_norm(values, &w, eps as f32, offset), x.shape(), x.device());
    }
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
    let d = x.as_float()?;
    let rank = x.shape().len();
    let plain =
        |t: &Option<Tensor>| t.as_ref().is_none_or(|w| w.as_float().is_ok_and(|w| host(&w).is_some()));
    if let (true, true, Some(flex)) = (plain(&weight), plain(&bias), host(&d))
        && let Some(values) = flex.as_slice::<f32>()
    {
        let n = x.shape()[rank - axes..].iter().product();
        let y = fused::layer_norm(values, &slice_of(&weight)?, &slice_of(&bias)?, n, eps as f32);
        return Tensor::from_f32(y, x.shape(), x.device());
    }
    let mut y = normalised(d, rank - axes..rank, eps);
    if let Some(w) = weight {
        y = B::float_mul(y, along(w.as_float()?, rank, rank - axes, axes));
    }
    if let Some(b) = bias {
        y = B::float_add(y, along(b.as_float()?, rank, rank - axes, axes));
    }
    Ok(Tensor::float(y, x.device()))
}

/// GroupNorm, or InstanceNorm without `groups`.
pub(super) fn group_norm(c: &Call<'_>, groups: Option<usize>, eps: f64) -> Result<Tensor> {
    let x = c.input(0)?;
    let (weight, bias) = (c.weight(Slot::Weight)?, c.weight(Slot::Bias)?);
    let (batch, channels) = (x.shape()[0], x.shape()[1]);
    let groups = groups.unwrap_or(channels).max(1);
    let rest = x.elements() / (batch * groups).max(1);
    let grouped = x.reshape(&[batch * groups, rest])?;
    let plain = host(&grouped.as_float()?);
    let normal = match plain.as_ref().and_then(|f| f.as_slice::<f32>()) {
        Some(v) => Tensor::from_f32(fused::layer_norm(v, &[], &[], rest, eps as f32), x.shape(), x.device())?,
        None => Tensor::float(normalised(grouped.as_float()?, 1..2, eps), x.device()).reshape(x.shape())?,
    };
    affine(normal, weight, bias)
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

pub(super) fn batch_norm(c: &Call<'_>, eps: f64, statistics: BatchStatistics) -> Result<Tensor> {
    let x = c.input(0)?;
    let (weight, bias) = (c.weight(Slot::Weight)?, c.weight(Slot::Bias)?);
    let rank = x.shape().len();
    let own = statistics == BatchStatistics::Batch || matches!(c.options.mode, Mode::Training { .. });
    let normal = if own {
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
    affine(normal, weight, bias)
}

pub(super) fn softmax(c: &Call<'_>, axis: usize, log: bool) -> Result<Tensor> {
    let x = c.input(0)?;
    let d = x.as_float()?;
    if !log
        && axis + 1 == x.shape().len()
        && let Some(values) = host(&d).as_ref().and_then(|f| f.as_slice::<f32>())
    {
        return Tensor::from_f32(fused::softmax_rows(values, x.shape()[axis]), x.shape(), x.device());
    }
    let y = if log { B::log_softmax(d, axis) } else { B::softmax(d, axis) };
    Ok(Tensor::float(y, x.device()))
}
