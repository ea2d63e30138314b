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
        for port in &self.outputs {
            if !known(port.value) || !made[port.value.0 as usize] {
                return Err(fault(format!("output `{}` is a value that nothing makes", port.name)));
            }
        }
        for state in &self.states {
            if !known(state.output) || !made[state.output.0 as usize] {
                return Err(fault(format!("state `{}` is a value that nothing makes", state.name)));
            }
            let (old, new) = (self.value(state.input), self.value(state.output));
            if old.ty != new.ty || !same_shape(old, new) {
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
