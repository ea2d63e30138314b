//! What student and teacher compute alike: run once, by the teacher, up to the first part that differs.

use std::collections::{BTreeMap, BTreeSet};

use pomona_graph::{Graph, Op, TensorId, ValueId, ValueType};

use crate::error::Result;

/// Pairs (teacher's value, student's) where the student's part that is the teacher's ends: the same nodes with the same
/// untrained weights read the same inputs. `equal` says whether a tensor of the student has the teacher's numbers; it is
/// asked only for tensors of equal names and shapes.
///
/// # Errors
/// As `equal`.
pub fn shared_prefix(
    teacher: &Graph,
    student: &Graph,
    trained: &BTreeSet<TensorId>,
    equal: &dyn Fn(TensorId, TensorId) -> Result<bool>,
) -> Result<Vec<(ValueId, ValueId)>> {
    let mut same: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for port in &student.inputs {
        same.extend(teacher.input(&port.name).map(|t| (port.value, t)));
    }
    for state in &student.states {
        let other = teacher.states.iter().find(|s| s.name == state.name && s.start == state.start);
        same.extend(other.map(|t| (state.input, t.input)));
    }
    let mut made = BTreeSet::new();
    'nodes: for (id, node) in student.iter() {
        // What draws or measures in training differs from what the teacher does.
        if matches!(node.op, Op::Dropout { .. } | Op::BatchNorm { .. })
            || student.annotations.contains_key(&node.path)
            || teacher.annotations.contains_key(&node.path)
        {
            continue;
        }
        let Some(other) = teacher.find_node(&node.path).map(|n| teacher.node(n)) else { continue };
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|v| same.get(v).copied()).collect();
        let fits = node.op == other.op
            && inputs.iter().copied().eq(other.inputs.iter().map(|v| Some(*v)))
            && node.weights.keys().eq(other.weights.keys());
        if !fits {
            continue;
        }
        for (slot, own) in &node.weights {
            let Some(theirs) = other.weights.get(slot) else { continue 'nodes };
            let (a, b) = (student.tensor(*own), teacher.tensor(*theirs));
            if trained.contains(own) || a.name != b.name || a.shape != b.shape || !equal(*own, *theirs)? {
                continue 'nodes;
            }
        }
        made.insert(id);
        same.extend(node.outputs.iter().copied().zip(other.outputs.iter().copied()));
    }
    let consumers = student.consumers();
    let leaves = |v: &ValueId| {
        let read = consumers.get(v.0 as usize).is_some_and(|c| c.iter().any(|(n, _)| !made.contains(n)));
        read || student.outputs.iter().any(|p| p.value == *v)
    };
    let outputs = made.iter().flat_map(|n| &student.node(*n).outputs);
    let ends = outputs.filter(|v| student.value(**v).ty == ValueType::Float && leaves(v));
    Ok(ends.filter_map(|v| Some((*same.get(v)?, *v))).collect())
}
