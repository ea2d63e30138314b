//! Norms, element-wise functions, reductions and data movement: no multiply-accumulates in either convention.

use pomona_graph::{BatchStatistics, Op, ReduceFn, Slot};

use super::attention::SOFTMAX_OPS;
use super::{Count, OpCost, Shapes, elements, other, times};

/// Mean, centring, square, sum, scaling.
const STANDARDISE_OPS: u64 = 5;
/// Square, sum, scaling.
const RMS_OPS: u64 = 3;

pub(super) fn count(op: &Op, s: &Shapes) -> Count<OpCost> {
    let out = elements(s.output()?)?;
    let affine = u64::from(s.has(Slot::Weight)) + u64::from(s.has(Slot::Bias));
    let per_element = match op {
        Op::LayerNorm { .. } | Op::GroupNorm { .. } | Op::InstanceNorm { .. } => STANDARDISE_OPS + affine,
        Op::RmsNorm { offset, .. } => RMS_OPS + affine + u64::from(*offset != 0.0 && affine > 0),
        // Running statistics fold into one factor and one addend.
        Op::BatchNorm { statistics: BatchStatistics::Running, .. } => 2,
        Op::BatchNorm { statistics: BatchStatistics::Batch, .. } => STANDARDISE_OPS + affine,
        Op::Activation { .. } | Op::PRelu {} | Op::Binary { .. } | Op::Scalar { .. } | Op::Where {} => 1,
        Op::Clip { min, max } => u64::from(min.is_some()) + u64::from(max.is_some()),
        Op::Add {} => (s.inputs.len() as u64).saturating_sub(1),
        Op::Softmax { .. } => SOFTMAX_OPS,
        Op::Sinusoid { .. } => 2,
        Op::CumSum { .. } => 1,
        Op::Rope(r) => return rope(s, r.heads as u64, r.rotary as u64),
        Op::ArgMax { .. } => return Ok(other(elements(s.input(0)?)?)),
        Op::Reduce { function, .. } => {
            let each = if *function == ReduceFn::L2 { 2 } else { 1 };
            return Ok(other(times(&[elements(s.input(0)?)?, each])?));
        }
        Op::Embedding {}
        | Op::Concat { .. }
        | Op::Split { .. }
        | Op::Slice { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Expand { .. }
        | Op::Gather { .. }
        | Op::Pad { .. }
        | Op::PixelShuffle { .. }
        | Op::Dropout { .. }
        | Op::Constant {}
        | Op::Range { .. }
        | Op::Cast { .. } => 0,
        other => return Err(format!("there is no count for {}", other.name())),
    };
    Ok(other(times(&[out, per_element])?))
}

/// Two products and a sum a turned channel.
fn rope(s: &Shapes, heads: u64, rotary: u64) -> Count<OpCost> {
    let x = s.input(0)?;
    let (Some(_), rows) = (x.last(), &x[..x.len().saturating_sub(1)]) else {
        return Err("its input has no axes".to_owned());
    };
    Ok(other(times(&[elements(rows)?, heads, rotary, 3])?))
}
