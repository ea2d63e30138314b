//! The tree of modules, from the paths of nodes, with the cost of everything below.

use std::collections::HashMap;

use pomona_graph::{Graph, Role};

use crate::report::{Macs, ModuleCost, OperatorCost};

/// A flat module while the tree grows; `children` are indices.
struct Module {
    cost: ModuleCost,
    parent: usize,
    children: Vec<usize>,
    /// The last tensor that was added, so that one that is used twice below counts once.
    seen: usize,
}

/// Builds the tree. A tensor counts in every module above a node that uses it, once; one that no node uses (an opaque
/// model has only such) counts in the modules of its own name.
pub(crate) fn build(graph: &Graph, operators: &[OperatorCost], tensor_bytes: &[u64]) -> ModuleCost {
    let mut t = Tree { modules: Vec::new(), by_path: HashMap::new() };
    t.add(graph, usize::MAX, &graph.name, "");
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); graph.tensors.len()];
    for (node, op) in graph.nodes.iter().zip(operators) {
        let at = t.ensure(graph, &node.path);
        t.modules[at].cost.class.get_or_insert_with(|| op.operator.clone());
        t.up(at, |m| {
            m.cost.macs.full = m.cost.macs.full.saturating_add(op.macs.full);
            m.cost.macs.thop = m.cost.macs.thop.saturating_add(op.macs.thop);
            m.cost.other_ops = m.cost.other_ops.saturating_add(op.other_ops);
        });
        for id in node.weights.values() {
            users[id.0 as usize].push(at);
        }
    }
    for (i, (tensor, at)) in graph.tensors.iter().zip(&mut users).enumerate() {
        if at.is_empty() {
            let module = tensor.name.rsplit_once('.').map_or("", |(path, _)| path);
            at.push(t.ensure(graph, module));
        }
        for &module in at.iter() {
            t.up(module, |m| {
                if m.seen == i {
                    return;
                }
                m.seen = i;
                m.cost.weight_bytes = m.cost.weight_bytes.saturating_add(tensor_bytes[i]);
                if tensor.role == Role::Parameter {
                    m.cost.parameters = m.cost.parameters.saturating_add(tensor.elements());
                }
            });
        }
    }
    t.nest()
}

struct Tree {
    modules: Vec<Module>,
    by_path: HashMap<String, usize>,
}

impl Tree {
    fn add(&mut self, graph: &Graph, parent: usize, name: &str, path: &str) -> usize {
        let id = self.modules.len();
        self.modules.push(Module {
            cost: ModuleCost {
                name: name.to_owned(),
                path: path.to_owned(),
                class: graph.modules.get(path).cloned(),
                parameters: 0,
                weight_bytes: 0,
                macs: Macs::default(),
                other_ops: 0,
                children: Vec::new(),
            },
            parent,
            children: Vec::new(),
            seen: usize::MAX,
        });
        self.by_path.insert(path.to_owned(), id);
        if let Some(p) = self.modules.get_mut(parent) {
            p.children.push(id);
        }
        id
    }

    /// The module at a path, made with all above it where it is new.
    fn ensure(&mut self, graph: &Graph, path: &str) -> usize {
        if let Some(&id) = self.by_path.get(path) {
            return id;
        }
        let mut at = 0;
        let mut end = 0;
        for part in path.split('.') {
            end += part.len();
            let prefix = &path[..end];
            at = match self.by_path.get(prefix) {
                Some(&id) => id,
                None => self.add(graph, at, part, prefix),
            };
            end += 1;
        }
        at
    }

    /// Calls `f` on a module and all above it.
    fn up(&mut self, from: usize, mut f: impl FnMut(&mut Module)) {
        let mut at = from;
        while let Some(module) = self.modules.get_mut(at) {
            f(module);
            at = module.parent;
        }
    }

    /// Children follow their parents, so going backwards every module is complete when its parent takes it.
    fn nest(mut self) -> ModuleCost {
        while self.modules.len() > 1 {
            let Some(mut module) = self.modules.pop() else { break };
            module.cost.children.reverse();
            self.modules[module.parent].cost.children.push(module.cost);
        }
        let mut root = self.modules.remove(0).cost;
        root.children.reverse();
        root
    }
}
