//! What annotations do to a run: values rounded through a narrower type or through integers, low-rank additions.
//!
//! Rounding has no useful gradient of its own: on a tape it passes gradients straight through.

use pomona_graph::{Annotation, Node, QuantTarget, Slot};

use crate::burn_types::{B, FloatTensorOps};
use crate::error::{ExecError, Result};
use crate::ops::elementwise::dropped;
use crate::ops::{self, Call};
use crate::tensor::{Kind, Tensor};

fn fault(node: &Node, message: String) -> ExecError {
    ExecError::Node { node: node.path.clone(), op: node.op.name(), message }
}

/// A weight as the node sees it.
pub(crate) fn round_weight(c: &Call<'_>, slot: Slot, mut t: Tensor, marks: &[Annotation]) -> Result<Tensor> {
    for mark in marks {
        t = match mark {
            Annotation::Precision { dtype } => narrow(c.node, &t, dtype)?,
            Annotation::Quantisation { target: QuantTarget::Weight, .. } if slot == Slot::Weight => {
                quantise(c.node, &t, mark)?
            }
            _ => t,
        };
    }
    Ok(t)
}

/// The inputs as the node sees them.
pub(crate) fn round_inputs(c: &mut Call<'_>, marks: &[Annotation]) -> Result<()> {
    let (node, inputs) = (c.node, &mut c.inputs);
    round_values(node, inputs, marks, |target, i| *target == QuantTarget::Input(i))
}

/// The outputs as the next node sees them.
pub(crate) fn round_outputs(node: &Node, outputs: &mut [Tensor], marks: &[Annotation]) -> Result<()> {
    round_values(node, outputs, marks, |target, i| *target == QuantTarget::Output(i))
}

fn round_values(
    node: &Node,
    values: &mut [Tensor],
    marks: &[Annotation],
    meant: impl Fn(&QuantTarget, usize) -> bool,
) -> Result<()> {
    for mark in marks {
        for (i, t) in values.iter_mut().enumerate().filter(|(_, t)| t.kind() == Kind::Float) {
            match mark {
                Annotation::Precision { dtype } => *t = narrow(node, t, dtype)?,
                Annotation::Quantisation { target, .. } if meant(target, i) => *t = quantise(node, t, mark)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn narrow(node: &Node, t: &Tensor, dtype: &str) -> Result<Tensor> {
    let round: fn(f32) -> f32 = match dtype {
        "f32" => return Ok(t.clone()),
        "f16" => |v| half::f16::from_f32(v).to_f32(),
        "bf16" => |v| half::bf16::from_f32(v).to_f32(),
        other => {
            let message = format!("is to run in `{other}`; f32, f16 and bf16 can be simulated");
            return Err(fault(node, message));
        }
    };
    straight_through(t, |v| v.iter().map(|x| round(*x)).collect())
}

/// The tensor with its elements replaced, and gradients as if they were not.
fn straight_through(t: &Tensor, f: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<Tensor> {
    let plain = t.off_tape()?;
    let rounded = Tensor::from_f32(plain.with_f32(f)?, t.shape(), t.device())?;
    if !t.is_taped() {
        return Ok(rounded);
    }
    let change = rounded.sub(&plain)?;
    Ok(Tensor::float(B::float_add(t.as_float()?, change.as_float()?), t.device()))
}

/// Which scale each element uses, and the range of the integers.
fn quantise(node: &Node, t: &Tensor, mark: &Annotation) -> Result<Tensor> {
    let Annotation::Quantisation { bits, signed, axis, block, scales, zero_points, .. } = mark else {
        return Ok(t.clone());
    };
    if !(1..=16).contains(bits) || (*signed && *bits < 2) {
        return Err(fault(node, format!("is quantised to {bits} bits; 2 to 16 were expected")));
    }
    let (low, high) = match signed {
        true => (-(1_i32 << (bits - 1)), (1_i32 << (bits - 1)) - 1),
        false => (0, (1_i32 << bits) - 1),
    };
    let last = t.shape().last().copied().unwrap_or(1).max(1);
    let per_row = match block {
        Some(0) => return Err(fault(node, "has quantisation blocks of no elements".to_owned())),
        Some(b) => last.div_ceil(*b),
        None => 1,
    };
    // A block layout has scales for every row; an axis layout one an index; else there is one.
    let (count, inner) = match (block, axis) {
        (Some(_), _) => (t.elements() / last * per_row, 1),
        (None, Some(a)) => match t.shape().get(*a) {
            Some(n) => (*n, t.shape()[a + 1..].iter().product::<usize>().max(1)),
            None => return Err(fault(node, format!("is quantised along axis {a} of {t:?}"))),
        },
        (None, None) => (1, 1),
    };
    if scales.len() != count || !(zero_points.is_empty() || zero_points.len() == count) {
        let message = format!(
            "has {} scales and {} zero points for {t:?}; {count} were expected",
            scales.len(),
            zero_points.len()
        );
        return Err(fault(node, message));
    }
    let index = |i: usize| match (block, axis) {
        (Some(b), _) => i / last * per_row + i % last / b,
        (None, Some(_)) => i / inner % count,
        (None, None) => 0,
    };
    straight_through(t, |values| {
        let one = |(i, v): (usize, &f32)| {
            let s = scales[index(i)];
            let z = zero_points.get(index(i)).copied().unwrap_or(0);
            if s == 0.0 {
                return 0.0;
            }
            // The float-to-integer cast saturates, so that the clamp sees every value.
            let q = ((v / s).round_ties_even() as i32).saturating_add(z).clamp(low, high);
            (q - z) as f32 * s
        };
        values.iter().enumerate().map(one).collect()
    })
}

/// `scale * B A x` of the node's adapter, to be added to its output; none without one. The tensors are named
/// `PATH.lora_A.weight` `[rank, in]` and `PATH.lora_B.weight` `[out, rank]`.
pub(crate) fn adapter(c: &Call<'_>, flat: &Tensor) -> Result<Option<Tensor>> {
    let Some((rank, alpha, dropout)) = c.graph.adapter(&c.node.path) else { return Ok(None) };
    let factor = |which: &str| {
        let name = format!("{}.{which}.weight", c.node.path);
        let id = c.graph.find_tensor(&name);
        let id =
            id.ok_or_else(|| c.fault(format!("has an adapter, but the graph has no tensor `{name}`")))?;
        (c.source.fetch)(id)
    };
    let (down, up) = (factor("lora_A")?, factor("lora_B")?);
    let fits =
        down.shape().len() == 2 && up.shape().len() == 2 && down.shape()[0] == rank && up.shape()[1] == rank;
    if !fits || rank == 0 {
        return Err(c.fault(format!("has adapter factors {down:?} and {up:?} of rank {rank}")));
    }
    let dropped = dropped(c, flat, dropout)?;
    let inner = product(dropped.as_ref().unwrap_or(flat), &down)?;
    product(&inner, &up)?.scale((alpha / rank as f64) as f32).map(Some)
}

/// `x @ weight.T`.
fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match ops::linear::product(x, weight, &None)? {
        Some(y) => Ok(y),
        None => x.matmul(&weight.transpose(&[1, 0])?),
    }
}
