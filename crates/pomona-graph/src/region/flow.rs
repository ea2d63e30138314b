//! Who makes and who reads each value: the graph's edges, indexed once for many questions.

use std::collections::{HashMap, HashSet};

use crate::graph::{Graph, NodeId, ValueId, ValueRef};
use crate::tensor::Role;

/// Nodes and states that the outputs need.
struct Live {
    nodes: Vec<bool>,
    states: Vec<bool>,
}

/// Edges of a graph in both directions.
pub(crate) struct Flow<'g> {
    pub graph: &'g Graph,
    pub producers: Vec<Option<(NodeId, usize)>>,
    pub consumers: Vec<Vec<(NodeId, usize)>>,
    /// Names of output ports, by value.
    ports: HashMap<ValueId, &'g str>,
    state_of_input: HashMap<ValueId, usize>,
    live: Live,
    /// How many nodes read each tensor.
    tensor_uses: Vec<usize>,
}

impl<'g> Flow<'g> {
    pub fn new(graph: &'g Graph) -> Self {
        let mut tensor_uses = vec![0; graph.tensors.len()];
        for t in graph.nodes.iter().flat_map(|n| n.weights.values()) {
            tensor_uses[t.0 as usize] += 1;
        }
        let mut flow = Self {
            graph,
            state_of_input: graph.states.iter().enumerate().map(|(i, s)| (s.input, i)).collect(),
            live: Live { nodes: Vec::new(), states: Vec::new() },
            producers: graph.producers(),
            consumers: graph.consumers(),
            ports: graph.outputs.iter().map(|p| (p.value, p.name.as_str())).collect(),
            tensor_uses,
        };
        flow.live = flow.live(|v| v, &HashSet::new());
        flow
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

    /// What nobody needs any more when `from` takes the place of `to` and joins lose operands: a mark a node, and indices
    /// of states. What nobody needed before is not among it.
    pub fn useless(
        &self,
        from: ValueId,
        to: ValueId,
        dropped: &HashSet<(NodeId, usize)>,
    ) -> (Vec<bool>, Vec<usize>) {
        let after = self.live(|v| if v == to { from } else { v }, dropped);
        let dead = self.live.nodes.iter().zip(&after.nodes).map(|(b, a)| *b && !a).collect();
        let gone = |s: &usize| self.live.states[*s] && !after.states[*s];
        (dead, (0..self.graph.states.len()).filter(gone).collect())
    }

    /// What the outputs need. A state is needed where what is needed reads it; then so is what makes its next value.
    fn live(&self, of: impl Fn(ValueId) -> ValueId, dropped: &HashSet<(NodeId, usize)>) -> Live {
        let mut nodes = vec![false; self.graph.nodes.len()];
        let mut states = vec![false; self.graph.states.len()];
        let mut seen = vec![false; self.graph.values.len()];
        let mut work: Vec<ValueId> = self.graph.outputs.iter().map(|p| of(p.value)).collect();
        while let Some(v) = work.pop() {
            if std::mem::replace(&mut seen[v.0 as usize], true) {
                continue;
            }
            if let Some(s) = self.state_of_input.get(&v) {
                states[*s] = true;
                work.push(of(self.graph.states[*s].output));
            }
            if let Some(n) = self.producer(v)
                && !std::mem::replace(&mut nodes[n.0 as usize], true)
            {
                let inputs = self.graph.node(n).inputs.iter().enumerate();
                work.extend(inputs.filter(|(k, _)| !dropped.contains(&(n, *k))).map(|(_, v)| of(*v)));
            }
        }
        Live { nodes, states }
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
