//! Validation: what holds for every graph that the rest of the program sees, whatever file it came from.

use std::collections::{BTreeMap, HashSet};

use crate::dim::show_shape;
use crate::error::{GraphError, Result};
use crate::graph::{Graph, Value, ValueId};
use crate::shape::{compatible, infer};
use crate::tensor::{Slot, TensorDef};

/// Most elements of a tensor: what 64-bit byte counts hold with room to spare.
const MAX_ELEMENTS: u64 = 1 << 56;

impl Graph {
    /// Checks ids, names, order, shapes, ports and annotations. Run before anything indexes by an id from a file.
    pub fn validate(&self) -> Result<()> {
        let fault = |message: String| GraphError::Graph { graph: self.name.clone(), message };
        let known = |v: ValueId| (v.0 as usize) < self.values.len();
        let mut names = HashSet::new();
        for t in &self.tensors {
            for name in std::iter::once(&t.name).chain(&t.aliases) {
                if name.is_empty() || !names.insert(name.as_str()) {
                    return Err(fault(format!("tensor `{name}` has no name or stands twice")));
                }
            }
            if t.elements() > MAX_ELEMENTS {
                return Err(fault(format!("tensor `{}` of shape {:?} is too large", t.name, t.shape)));
            }
        }
        for (i, value) in self.values.iter().enumerate() {
            let sizes: Option<Vec<i64>> = value.shape.iter().map(crate::Dim::as_int).collect();
            let negative = value.shape.iter().filter_map(crate::Dim::as_int).any(|d| d < 0);
            let large = sizes.is_some_and(|s| {
                let count = s.iter().try_fold(1_u64, |n, d| n.checked_mul(d.unsigned_abs()));
                count.is_none_or(|n| n > MAX_ELEMENTS)
            });
            if negative || large {
                return Err(fault(format!(
                    "value {i} has the impossible shape {}",
                    show_shape(&value.shape)
                )));
            }
        }
        let mut made = vec![false; self.values.len()];
        let mut ports = HashSet::new();
        let sources = self.inputs.iter().map(|p| (&p.name, p.value));
        for (name, value) in sources.chain(self.states.iter().map(|s| (&s.name, s.input))) {
            if !known(value) || std::mem::replace(&mut made[value.0 as usize], true) {
                return Err(fault(format!("input or state `{name}` has no value of its own")));
            }
            if name.is_empty() || !ports.insert(name) {
                return Err(fault(format!("input or state `{name}` has no name or stands twice")));
            }
        }
        let mut paths = HashSet::new();
        for node in &self.nodes {
            let node_fault = |message: String| GraphError::Node {
                node: node.path.clone(),
                op: node.op.name().to_owned(),
                message,
            };
            if node.path.is_empty() || !paths.insert(node.path.as_str()) {
                return Err(node_fault("has no path or shares it with another node".to_owned()));
            }
            if !finite(node) {
                return Err(node_fault(
                    "has an attribute that is no finite number; leave the bound out instead".to_owned(),
                ));
            }
            if let Some(v) = node.inputs.iter().find(|v| !known(**v) || !made[v.0 as usize]) {
                return Err(node_fault(format!("reads value {} before it is made", v.0)));
            }
            if let Some((slot, _)) = node.weights.iter().find(|(_, t)| t.0 as usize >= self.tensors.len()) {
                return Err(node_fault(format!("its {slot:?} is not in the table of tensors")));
            }
            let inputs: Vec<&Value> = node.inputs.iter().map(|v| self.value(*v)).collect();
            let weights: BTreeMap<Slot, &TensorDef> =
                node.weights.iter().map(|(s, t)| (*s, self.tensor(*t))).collect();
            let inferred = infer(&node.path, &node.op, &inputs, &weights)?;
            if inferred.len() != node.outputs.len() {
                return Err(node_fault(format!(
                    "has {} outputs; {} were expected",
                    node.outputs.len(),
                    inferred.len()
                )));
            }
            for (k, (v, expected)) in node.outputs.iter().zip(inferred).enumerate() {
                if !known(*v) || std::mem::replace(&mut made[v.0 as usize], true) {
                    return Err(node_fault(format!(
                        "output {k} is made by another node too, or does not exist"
                    )));
                }
                let declared = self.value(*v);
                let fits = declared.ty == expected.ty && same_shape(declared, &expected);
                if !fits {
                    return Err(node_fault(format!(
                        "output {k} is declared as {:?} {} and comes out as {:?} {}",
                        declared.ty,
                        show_shape(&declared.shape),
                        expected.ty,
                        show_shape(&expected.shape)
                    )));
                }
            }
        }
        let mut given = HashSet::new();
        for port in &self.outputs {
            if port.name.is_empty() || !given.insert(&port.name) {
                return Err(fault(format!("output `{}` has no name or stands twice", port.name)));
            }
            if !known(port.value) || !made[port.value.0 as usize] {
                return Err(fault(format!("output `{}` is a value that nothing makes", port.name)));
            }
        }
        for state in &self.states {
            if !known(state.output) || !made[state.output.0 as usize] {
                return Err(fault(format!("state `{}` is a value that nothing makes", state.name)));
            }
            let (old, new) = (self.value(state.input), self.value(state.output));
            if old.ty != new.ty || !grows(old, new) {
                return Err(fault(format!(
                    "state `{}` goes in as {} and comes out as {}",
                    state.name,
                    show_shape(&old.shape),
                    show_shape(&new.shape)
                )));
            }
        }
        match self.annotations.keys().find(|p| !paths.contains(p.as_str())) {
            Some(path) => Err(fault(format!("an annotation names `{path}`, which is no node"))),
            None => Ok(()),
        }
    }
}

fn same_shape(a: &Value, b: &Value) -> bool {
    a.shape.len() == b.shape.len() && a.shape.iter().zip(&b.shape).all(|(x, y)| compatible(x, y))
}

/// A state keeps its shape, or grows along one axis: a cache takes up what a step adds.
fn grows(old: &Value, new: &Value) -> bool {
    let larger =
        |(a, b): (&crate::Dim, &crate::Dim)| matches!((a.as_int(), b.as_int()), (Some(a), Some(b)) if b > a);
    let differing = old.shape.iter().zip(&new.shape).filter(|(a, b)| !compatible(a, b));
    old.shape.len() == new.shape.len() && differing.clone().count() <= 1 && differing.into_iter().all(larger)
}

/// Numbers in attributes: JSON has no infinities, and an attribute that is not a number is a damaged file.
fn finite(node: &crate::Node) -> bool {
    use crate::op::{Activation, Op, PadMode, RopeScaling};
    let numbers: Vec<f64> = match &node.op {
        Op::LayerNorm { eps, .. } | Op::GroupNorm { eps, .. } | Op::InstanceNorm { eps } => vec![*eps],
        Op::RmsNorm { eps, offset } => vec![*eps, *offset],
        Op::BatchNorm { eps, momentum, .. } => vec![*eps, *momentum],
        Op::Activation { function: Activation::LeakyRelu(a) | Activation::Elu(a) } => vec![*a],
        Op::Activation { function: Activation::HardSigmoid(a, b) } => vec![*a, *b],
        Op::Scalar { value, .. } => vec![*value],
        Op::Pad { mode: PadMode::Constant { value }, .. } => vec![*value],
        Op::Sinusoid { max_period, shift, .. } => vec![*max_period, *shift],
        Op::Dropout { rate } => vec![*rate],
        Op::Clip { min, max } => min.iter().chain(max).copied().collect(),
        Op::Attention(a) => [Some(a.scale), a.softcap].into_iter().flatten().collect(),
        Op::Rope(a) => match &a.scaling {
            RopeScaling::None => vec![a.theta],
            RopeScaling::Linear { factor } => vec![a.theta, *factor],
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, .. } => {
                vec![a.theta, *factor, *low_freq_factor, *high_freq_factor]
            }
            RopeScaling::Divisors { divisors } => divisors.clone(),
        },
        _ => Vec::new(),
    };
    numbers.into_iter().all(f64::is_finite)
}
