//! The graph under edit: what is known of it between one edit and the next.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::graph::{Graph, ValueId, ValueRef};
use crate::recipe::Expr;
use crate::tensor::TensorId;

/// A graph being edited, with the expression of each of its tensors over those of the graph that came in.
pub(crate) struct Work {
    pub graph: Graph,
    /// Beside `graph.tensors`.
    pub exprs: Vec<Expr>,
    /// Values that another one took over.
    pub renamed: HashMap<ValueRef, ValueRef>,
    /// Paths of nodes that are gone, with the edit that removed them.
    pub gone: HashMap<String, usize>,
    /// Number of the edit at work.
    pub edit: usize,
}

impl Work {
    pub fn new(graph: &Graph) -> Self {
        Self {
            graph: graph.clone(),
            exprs: graph.tensors.iter().map(|t| Expr::copy(&t.name)).collect(),
            renamed: HashMap::new(),
            gone: HashMap::new(),
            edit: 0,
        }
    }

    /// The value of a name, through what earlier edits did to it.
    pub fn source(&self, name: &ValueRef) -> Result<ValueId, String> {
        let mut name = name;
        while let Some(next) = self.renamed.get(name) {
            name = next;
        }
        self.graph.resolve(name).ok_or_else(|| self.missing(name))
    }

    /// The value of a name that no earlier edit replaced.
    pub fn value(&self, name: &ValueRef) -> Result<ValueId, String> {
        match self.renamed.get(name) {
            Some(by) => Err(format!(
                "`{}` is no longer used: an earlier edit put `{}` in its place; leave this edit out",
                name.0, by.0
            )),
            None => self.graph.resolve(name).ok_or_else(|| self.missing(name)),
        }
    }

    fn missing(&self, name: &ValueRef) -> String {
        let path = name.0.rsplit_once(':').map_or(name.0.as_str(), |(p, _)| p);
        self.missing_node(if self.gone.contains_key(&name.0) { &name.0 } else { path }, "value")
    }

    /// What to say of a path that is not in the graph.
    pub fn missing_node(&self, path: &str, what: &str) -> String {
        match self.gone.get(path) {
            Some(edit) => format!("`{path}` is gone: edit {edit} removed it; leave this edit out"),
            None => format!(
                "there is no {what} `{path}` in `{}`: `pomona inspect` lists the paths",
                self.graph.name
            ),
        }
    }

    /// Every reader of `old`, ports and states included, reads `new` instead.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for v in self.graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|v| **v == old) {
            *v = new;
        }
        self.graph.outputs.iter_mut().filter(|p| p.value == old).for_each(|p| p.value = new);
        self.graph.states.iter_mut().filter(|s| s.output == old).for_each(|s| s.output = new);
    }

    /// Puts the nodes in an order in which every input is ready, changing as little as possible.
    pub fn sort(&mut self) -> Result<(), String> {
        let mut waiting: Vec<usize> = Vec::with_capacity(self.graph.nodes.len());
        let producers = self.graph.producers();
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.graph.nodes.len()];
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let made_by: HashSet<usize> = node
                .inputs
                .iter()
                .filter_map(|v| producers[v.0 as usize])
                .map(|(n, _)| n.0 as usize)
                .collect();
            made_by.iter().for_each(|p| readers[*p].push(i));
            waiting.push(made_by.len());
        }
        let mut ready: BTreeSet<usize> = (0..waiting.len()).filter(|i| waiting[*i] == 0).collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for r in &readers[i] {
                waiting[*r] -= 1;
                if waiting[*r] == 0 {
                    ready.insert(*r);
                }
            }
        }
        if order.len() < waiting.len() {
            let stuck = (0..waiting.len()).find(|i| waiting[*i] > 0).map(|i| &self.graph.nodes[i].path);
            return Err(format!("`{}` would need its own result", stuck.map_or("?", String::as_str)));
        }
        if order.iter().enumerate().any(|(i, o)| i != *o) {
            let mut nodes: Vec<Option<_>> =
                std::mem::take(&mut self.graph.nodes).into_iter().map(Some).collect();
            self.graph.nodes = order.into_iter().filter_map(|i| nodes[i].take()).collect();
        }
        Ok(())
    }
}

/// What is in use: compared before and after an edit, it tells what the edit made useless.
pub(crate) struct Usage {
    nodes: Vec<bool>,
    inputs: HashSet<String>,
    states: HashSet<String>,
    tensors: HashSet<String>,
}

impl Usage {
    /// Nodes that an output needs, and the inputs, states and tensors that these read. A state is needed where a needed
    /// node reads it; what makes its next value is then needed too. Names in `kept` are needed in any case.
    pub fn of(graph: &Graph, kept: Option<&Usage>) -> Usage {
        let producers = graph.producers();
        let mut nodes = vec![false; graph.nodes.len()];
        let mut live = vec![false; graph.values.len()];
        let mut stack: Vec<ValueId> = graph.outputs.iter().map(|p| p.value).collect();
        // A state that nobody read before the edit either is left as it is.
        let idle = |name: &str| kept.is_some_and(|k| !k.states.contains(name));
        stack.extend(graph.states.iter().filter(|s| idle(&s.name)).map(|s| s.output));
        while let Some(v) = stack.pop() {
            if std::mem::replace(&mut live[v.0 as usize], true) {
                continue;
            }
            stack.extend(graph.states.iter().filter(|s| s.input == v).map(|s| s.output));
            if let Some((n, _)) = producers[v.0 as usize]
                && !std::mem::replace(&mut nodes[n.0 as usize], true)
            {
                stack.extend(&graph.node(n).inputs);
            }
        }
        let is_live = |v: ValueId| live[v.0 as usize];
        let used = |i: &usize| nodes[*i];
        let tensors: HashSet<TensorId> =
            (0..nodes.len()).filter(used).flat_map(|i| graph.nodes[i].weights.values().copied()).collect();
        Usage {
            inputs: graph.inputs.iter().filter(|p| is_live(p.value)).map(|p| p.name.clone()).collect(),
            states: graph.states.iter().filter(|s| is_live(s.input)).map(|s| s.name.clone()).collect(),
            tensors: tensors.into_iter().map(|t| graph.tensor(t).name.clone()).collect(),
            nodes,
        }
    }
}

impl Usage {
    /// Counts a tensor as used, so that it goes when nothing uses it afterwards.
    pub fn add_tensor(&mut self, name: &str) {
        self.tensors.insert(name.to_owned());
    }
}

impl Work {
    /// Removes what the edit made useless: nodes, states, tensors, inputs, annotations and module classes. Inputs, states
    /// and tensors that were idle before stay.
    pub fn sweep(&mut self, before: &Usage) {
        let after = Usage::of(&self.graph, Some(before));
        let graph = &mut self.graph;
        let lost = |was: &HashSet<String>, is: &HashSet<String>, name: &String| {
            was.contains(name) && !is.contains(name)
        };
        graph.inputs.retain(|p| !lost(&before.inputs, &after.inputs, &p.name));
        graph.states.retain(|s| !lost(&before.states, &after.states, &s.name));
        let had_nodes: HashSet<String> = module_paths(graph);
        let mut keep = after.nodes.iter();
        for (node, alive) in graph.nodes.iter().zip(&after.nodes) {
            if !alive {
                self.gone.insert(node.path.clone(), self.edit);
            }
        }
        graph.nodes.retain(|_| keep.next().copied().unwrap_or(true));
        let paths = module_paths(graph);
        graph.annotations.retain(|path, _| paths.contains(path));
        graph.modules.retain(|path, _| paths.contains(path) || !had_nodes.contains(path));
        self.drop_tensors(|t| lost(&before.tensors, &after.tensors, t));
        self.compact_values();
    }

    /// Removes tensors by name; nodes' ids follow.
    pub fn drop_tensors(&mut self, gone: impl Fn(&String) -> bool) {
        let graph = &mut self.graph;
        let mut ids = Vec::with_capacity(graph.tensors.len());
        let mut next = 0_u32;
        for t in &graph.tensors {
            ids.push(TensorId(next));
            next += u32::from(!gone(&t.name));
        }
        let keep: Vec<bool> = graph.tensors.iter().map(|t| !gone(&t.name)).collect();
        let mut marks = keep.iter();
        graph.tensors.retain(|_| marks.next().copied().unwrap_or(true));
        let mut marks = keep.iter();
        self.exprs.retain(|_| marks.next().copied().unwrap_or(true));
        for t in graph.nodes.iter_mut().flat_map(|n| n.weights.values_mut()) {
            *t = ids[t.0 as usize];
        }
    }

    fn compact_values(&mut self) {
        let graph = &mut self.graph;
        let mut used = vec![false; graph.values.len()];
        let ports = graph.inputs.iter().chain(&graph.outputs).map(|p| p.value);
        let states = graph.states.iter().flat_map(|s| [s.input, s.output]);
        let nodes = graph.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs).copied());
        ports.chain(states).chain(nodes).for_each(|v| used[v.0 as usize] = true);
        let mut ids = Vec::with_capacity(used.len());
        let mut next = 0_u32;
        for u in &used {
            ids.push(ValueId(next));
            next += u32::from(*u);
        }
        let mut marks = used.iter();
        graph.values.retain(|_| marks.next().copied().unwrap_or(true));
        let renumber = |v: &mut ValueId| *v = ids[v.0 as usize];
        graph.inputs.iter_mut().chain(&mut graph.outputs).for_each(|p| renumber(&mut p.value));
        for s in &mut graph.states {
            renumber(&mut s.input);
            renumber(&mut s.output);
        }
        graph.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().chain(&mut n.outputs)).for_each(renumber);
    }
}

/// Every node path and every prefix of one.
fn module_paths(graph: &Graph) -> HashSet<String> {
    let cuts = |p: &str| p.match_indices('.').map(|(i, _)| i).chain([p.len()]).collect::<Vec<_>>();
    graph.nodes.iter().flat_map(|n| cuts(&n.path).into_iter().map(|i| n.path[..i].to_owned())).collect()
}
