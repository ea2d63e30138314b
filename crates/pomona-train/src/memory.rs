//! What a training will need, from shapes alone.

use std::collections::BTreeSet;

use pomona_graph::{Bindings, Graph, TensorId, ValueId, ValueType};

use crate::error::Result;

/// Bytes of a training, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Need {
    /// Weights of student and teacher, widened.
    pub weights: u64,
    /// Gradients and what the update rule keeps.
    pub optimiser: u64,
    /// Values that backward reads.
    pub activations: u64,
    /// Outputs beside their gradients.
    pub outputs: u64,
}

impl Need {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights
            .saturating_add(self.optimiser)
            .saturating_add(self.activations)
            .saturating_add(self.outputs)
    }
}

/// An estimate: values on the tape are counted once each, outputs with the copies that losses make. With checkpoints the tape
/// is that of the largest part between them.
///
/// # Errors
/// Where the sizes do not bind the graph.
pub fn need(
    graph: &Graph,
    (trained, elements): (&BTreeSet<TensorId>, u64),
    buffers: u64,
    (batch, length): (usize, usize),
    (wanted, teachers): (&[ValueId], &[&Graph]),
    checkpoints: &[ValueId],
) -> Result<Need> {
    let size = |graph: &Graph| {
        let sizes: Bindings = graph
            .symbols()
            .into_iter()
            .map(|s| {
                let n = match s.as_str() {
                    "batch" => batch as i64,
                    "past" => 0,
                    _ => graph.defaults.get(&s).copied().unwrap_or(length as i64),
                };
                (s, n)
            })
            .collect();
        graph.bind(&sizes)
    };
    let bound = size(graph)?;
    let bytes = |graph: &Graph, v: ValueId| -> u64 {
        let value = graph.value(v);
        let dims = value.shape.iter().map(|d| d.as_int().and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
        if value.ty == ValueType::Float { dims.fold(4, u64::saturating_mul) } else { 0 }
    };
    let mut taped: BTreeSet<ValueId> = BTreeSet::new();
    // With checkpoints those stay, and of what lies between them one part at a time.
    let ends: BTreeSet<ValueId> = checkpoints.iter().copied().collect();
    let (mut kept, mut part, mut largest) = (0_u64, 0_u64, 0_u64);
    for node in &bound.nodes {
        let adapted = bound.adapter(&node.path).is_some();
        let on = adapted
            || node.weights.values().any(|t| trained.contains(t))
            || node.inputs.iter().any(|v| taped.contains(v));
        if on {
            taped.extend(&node.outputs);
            let made: u64 = node.outputs.iter().map(|v| bytes(&bound, *v)).sum();
            // The low-rank part has an output of its own, and its sum.
            part += if adapted { 2 * made } else { made };
        }
        for end in node.outputs.iter().filter(|v| ends.contains(v)) {
            kept += bytes(&bound, *end);
            largest = largest.max(std::mem::take(&mut part));
        }
    }
    let activations = kept + largest.max(part);
    let outputs = wanted.iter().map(|v| 3 * bytes(&bound, *v)).sum::<u64>();
    let elements_of = |g: &Graph| g.tensors.iter().map(|t| t.elements()).fold(0, u64::saturating_add);
    let weights = elements_of(graph) + teachers.iter().map(|g| elements_of(g)).sum::<u64>();
    let teacher_outputs: u64 = match teachers.is_empty() {
        true => 0,
        false => outputs / 3,
    };
    Ok(Need {
        weights: weights.saturating_mul(4),
        optimiser: elements.saturating_mul(4).saturating_mul(1 + buffers),
        activations,
        outputs: outputs + teacher_outputs,
    })
}
