//! What the data say: cross-entropy, squared and absolute differences.

use pomona_exec::{Tensor, cross_entropy};

use super::{Kind, Term};
use crate::data::{Batch, IGNORED, Target};
use crate::error::{Result, TrainError};

pub(super) fn unfit(message: impl Into<String>) -> TrainError {
    TrainError::Unfit(message.into())
}

/// Mean loss of the batch, and the gradient of `scale` times it.
pub(super) fn measure(term: &Term, output: &Tensor, batch: &Batch, scale: f64) -> Result<(f64, Vec<f32>)> {
    match (&term.kind, &batch.target) {
        (Kind::CrossEntropy, Target::Tokens(targets)) => tokens(output, targets, batch.units, scale),
        (Kind::Mse | Kind::L1, Target::Values(wanted)) => {
            let absolute = term.kind == Kind::L1;
            difference(output, wanted, absolute, scale)
        }
        (kind, _) => Err(unfit(format!(
            "the loss {} does not fit the data ({}): cross-entropy goes with tokens and classes, mse and l1 with numbers",
            kind.name(),
            batch.from
        ))),
    }
}

fn tokens(logits: &Tensor, targets: &[u32], units: usize, scale: f64) -> Result<(f64, Vec<f32>)> {
    let classes = logits.shape().last().copied().unwrap_or(1).max(1);
    if logits.elements() / classes != targets.len() {
        return Err(unfit(format!("{logits:?} has not one row for each of {} targets", targets.len())));
    }
    if let Some(bad) = targets.iter().find(|t| **t != IGNORED && **t as usize >= classes) {
        return Err(unfit(format!(
            "token {bad} is outside the model's vocabulary of {classes}: tokenizer and model do not belong together"
        )));
    }
    let units = units.max(1) as f64;
    let mut values = logits.to_f32()?;
    let losses = cross_entropy(&mut values, classes, targets, (scale / units) as f32);
    let mut sum = 0.0;
    for (i, (loss, target)) in losses.iter().zip(targets).enumerate() {
        if *target == IGNORED {
            values[i * classes..(i + 1) * classes].fill(0.0);
        } else {
            sum += f64::from(*loss);
        }
    }
    Ok((sum / units, values))
}

/// Mean of squares or absolute values of `output - wanted` over all elements.
pub(super) fn difference(
    output: &Tensor,
    wanted: &Tensor,
    absolute: bool,
    scale: f64,
) -> Result<(f64, Vec<f32>)> {
    if output.elements() != wanted.elements() {
        return Err(unfit(format!("the output is {output:?}, and {wanted:?} was to come out")));
    }
    let n = output.elements().max(1) as f64;
    let mut values = output.to_f32()?;
    let mut sum = 0.0;
    wanted.with_f32(|w| {
        for (v, w) in values.iter_mut().zip(w) {
            let d = *v - w;
            (sum, *v) = match absolute {
                true => (sum + f64::from(d.abs()), if d == 0.0 { 0.0 } else { d.signum() }),
                false => (sum + f64::from(d) * f64::from(d), 2.0 * d),
            };
            *v *= (scale / n) as f32;
        }
    })?;
    Ok((sum / n, values))
}
