//! Who makes and who reads each value: the graph's edges, indexed once for many questions.

use std::collections::HashMap;

use crate::graph::{Graph, NodeId, ValueId, ValueRef};
use crate::tensor::Role;

/// Edges of a graph in both directions.
pub(crate) struct Flow<'g> {
    pub graph: &'g Graph,
    pub producers: Vec<Option<(NodeId, usize)>>,
    pub consumers: Vec<Vec<(NodeId, usize)>>,
    /// Names of output ports, by value.
    ports: HashMap<ValueId, &'g str>,
    state_of_input: HashMap<ValueId, usize>,
    states_of_output: HashMap<ValueId, Vec<usize>>,
    /// How many nodes read each tensor.
    tensor_uses: Vec<usize>,
}

impl<'g> Flow<'g> {
    pub fn new(graph: &'g Graph) -> Self {
        let mut tensor_uses = vec![0; graph.tensors.len()];
        for t in graph.nodes.iter().flat_map(|n| n.weights.values()) {
            tensor_uses[t.0 as usize] += 1;
        }
        let mut states_of_output: HashMap<ValueId, Vec<usize>> = HashMap::new();
        for (i, s) in graph.states.iter().enumerate() {
            states_of_output.entry(s.output).or_default().push(i);
        }
        Self {
            graph,
            state_of_input: graph.states.iter().enumerate().map(|(i, s)| (s.input, i)).collect(),
            states_of_output,
            producers: graph.producers(),
            consumers: graph.consumers(),
            ports: graph.outputs.iter().map(|p| (p.value, p.name.as_str())).collect(),
            tensor_uses,
        }
    }

    /// The output port that gives the value.
    pub fn port(&self, value: ValueId) -> Option<&'g str> {
        self.ports.get(&value).copied()
    }

    pub fn producer(&self, value: ValueId) -> Option<NodeId> {
        self.producers[value.0 as usize].map(|(n, _)| n)
    }

    pub fn readers(&self, value: ValueId) -> &[(NodeId, usize)] {
        &self.consumers[value.0 as usize]
    }

    /// [`Graph::value_ref`] without the search.
    pub fn name(&self, value: ValueId) -> ValueRef {
        match self.producers[value.0 as usize] {
            Some((n, 0)) => ValueRef(self.graph.node(n).path.clone()),
            Some((n, k)) => ValueRef(format!("{}:{k}", self.graph.node(n).path)),
            None => self.graph.value_ref(value),
        }
    }

    /// Position of a value in the order of the graph: inputs first, then by the node that makes it.
    pub fn order(&self, value: ValueId) -> (usize, usize) {
        self.producers[value.0 as usize].map_or((0, 0), |(n, k)| (n.0 as usize + 1, k))
    }

    pub fn same_type(&self, a: ValueId, b: ValueId) -> bool {
        let (a, b) = (self.graph.value(a), self.graph.value(b));
        a.ty == b.ty && a.shape == b.shape
    }

    /// Nodes on paths from `from` to `to`, in order; empty where there is none.
    pub fn paths(&self, from: ValueId, to: ValueId) -> Vec<NodeId> {
        let (first, last) = (self.order(from).0, self.order(to).0);
        if last <= first {
            return Vec::new();
        }
        let window = first..last;
        let mut reached = vec![false; window.len()];
        let at = |n: NodeId| (n.0 as usize).checked_sub(first).filter(|i| *i < window.len());
        let from_inside = |reached: &[bool], v: ValueId| {
            v == from || self.producer(v).and_then(at).is_some_and(|i| reached[i])
        };
        for i in 0..window.len() {
            let node = &self.graph.nodes[first + i];
            reached[i] = node.inputs.iter().any(|v| from_inside(&reached, *v));
        }
        let mut needed = vec![false; window.len()];
        if let Some(i) = self.producer(to).and_then(at) {
            needed[i] = true;
        }
        for i in (0..window.len()).rev().filter(|i| reached[*i]) {
            if needed[i] {
                for v in self.graph.nodes[first + i].inputs.iter().filter(|v| **v != from) {
                    if let Some(k) = self.producer(*v).and_then(at) {
                        needed[k] = true;
                    }
                }
            }
        }
        let on_path = |i: &usize| reached[*i] && needed[*i];
        (0..window.len()).filter(on_path).map(|i| NodeId((first + i) as u32)).collect()
    }

    /// The set and every node and state that nobody but the set needs, as a mark a node and indices of states. `kept` is
    /// needed in any case.
    pub fn closure(&self, seed: &[NodeId], kept: ValueId) -> (Vec<bool>, Vec<usize>) {
        let mut dead = vec![false; self.graph.nodes.len()];
        let mut states = Vec::new();
        seed.iter().for_each(|n| dead[n.0 as usize] = true);
        let mut work = seed.to_vec();
        while let Some(n) = work.pop() {
            for v in &self.graph.node(n).inputs {
                let all_dead = *v != kept && self.readers(*v).iter().all(|(r, _)| dead[r.0 as usize]);
                let mut lost = all_dead.then(|| self.producer(*v)).flatten();
                if let (true, Some(s)) = (all_dead, self.state_of_input.get(v))
                    && !states.contains(s)
                {
                    states.push(*s);
                    lost = self.producer(self.graph.states[*s].output);
                }
                if let Some(p) = lost.filter(|p| !dead[p.0 as usize])
                    && self
                        .graph
                        .node(p)
                        .outputs
                        .iter()
                        .all(|v| *v != kept && self.is_unused(*v, &dead, &states))
                {
                    dead[p.0 as usize] = true;
                    work.push(p);
                }
            }
        }
        states.sort_unstable();
        (dead, states)
    }

    fn is_unused(&self, value: ValueId, dead: &[bool], gone: &[usize]) -> bool {
        self.port(value).is_none()
            && self.readers(value).iter().all(|(n, _)| dead[n.0 as usize])
            && self.states_of_output.get(&value).is_none_or(|s| s.iter().all(|s| gone.contains(s)))
    }

    /// Elements of the parameters that only these nodes use.
    pub fn own_parameters(&self, inside: &[NodeId]) -> u64 {
        let mut uses: HashMap<u32, usize> = HashMap::new();
        for t in inside.iter().flat_map(|n| self.graph.node(*n).weights.values()) {
            *uses.entry(t.0).or_default() += 1;
        }
        let own = |(t, n): (&u32, &usize)| {
            let def = &self.graph.tensors[*t as usize];
            (self.tensor_uses[*t as usize] == *n && def.role == Role::Parameter).then(|| def.elements())
        };
        uses.iter().filter_map(own).fold(0, u64::saturating_add)
    }
}
