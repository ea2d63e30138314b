//! Which weights an operator takes: a missing one, or one that nothing would read, is a mistake of whoever made the graph.

use super::Context;
use crate::op::{BatchStatistics, Direction, Op};
use crate::tensor::Slot;

const FORWARD: [Slot; 4] = [Slot::WeightIh, Slot::WeightHh, Slot::BiasIh, Slot::BiasHh];
const REVERSE: [Slot; 4] =
    [Slot::WeightIhReverse, Slot::WeightHhReverse, Slot::BiasIhReverse, Slot::BiasHhReverse];

/// Slots that must be filled, and slots that may be.
fn slots(op: &Op) -> (Vec<Slot>, Vec<Slot>) {
    use Slot::{Bias, RunningMean, RunningVar, Weight};
    match op {
        Op::Linear {} | Op::Conv(_) | Op::ConvTranspose { .. } => (vec![Weight], vec![Bias]),
        Op::Embedding {} | Op::PRelu {} | Op::Constant {} => (vec![Weight], vec![]),
        Op::LayerNorm { .. } | Op::GroupNorm { .. } | Op::InstanceNorm { .. } => (vec![], vec![Weight, Bias]),
        Op::RmsNorm { .. } => (vec![], vec![Weight]),
        Op::BatchNorm { statistics: BatchStatistics::Running, .. } => {
            (vec![RunningMean, RunningVar], vec![Weight, Bias])
        }
        Op::BatchNorm { .. } => (vec![], vec![Weight, Bias, RunningMean, RunningVar]),
        Op::Recurrent { direction, .. } => {
            let mut required = FORWARD[..2].to_vec();
            let mut optional = FORWARD[2..].to_vec();
            if *direction == Direction::Both {
                required.extend(&REVERSE[..2]);
                optional.extend(&REVERSE[2..]);
            }
            (required, optional)
        }
        _ => (vec![], vec![]),
    }
}

/// Every needed weight is there, and none that the operator does not read.
pub(super) fn check(c: &Context<'_>) -> Result<(), String> {
    let (required, optional) = slots(c.op);
    for slot in &required {
        c.weight(*slot)?;
    }
    match c.weights.iter().find(|(slot, _)| !required.contains(slot) && !optional.contains(slot)) {
        Some((slot, t)) => Err(format!("does not read a {slot:?}, and tensor `{}` stands there", t.name)),
        None => Ok(()),
    }
}
