//! `replace`: another graph stands in a module's place.

use std::collections::{HashMap, HashSet};

use super::work::{Usage, Work};
use crate::dim::show_shape;
use crate::graph::{Graph, Node, NodeId, StatePort, ValueId, ValueRef};
use crate::recipe::{Expr, Recipe, SourceTensor};
use crate::region::is_under;
use crate::tensor::TensorId;

/// The template's inputs are named as values outside the module (`model.norm`, `@positions`), its outputs as values that
/// the module made. Its tensors come from the recipe; one of the same name and shape that the recipe copies is shared with
/// what else uses it.
pub(super) fn replace(
    work: &mut Work,
    module: &str,
    template: &Graph,
    recipe: &Recipe,
) -> Result<(), String> {
    template.validate().map_err(|e| format!("the template: {e}"))?;
    let mut before = Usage::of(&work.graph, None);
    let inside: HashSet<usize> =
        (0..work.graph.nodes.len()).filter(|i| is_under(&work.graph.nodes[*i].path, module)).collect();
    let Some(first) = inside.iter().min().copied() else {
        return Err(work.missing_node(module, "module"));
    };
    let mut values = bind_inputs(work, template, &inside)?;
    let taken: HashSet<String> = work
        .graph
        .nodes
        .iter()
        .enumerate()
        .filter(|(i, _)| !inside.contains(i))
        .map(|(_, n)| n.path.clone())
        .collect();
    if let Some(n) = template.nodes.iter().find(|n| taken.contains(&n.path)) {
        return Err(format!(
            "the template has a node `{}`, which the model also has outside `{module}`",
            n.path
        ));
    }
    let outputs = match_outputs(work, template, &inside)?;
    let users: HashSet<TensorId> = work
        .graph
        .nodes
        .iter()
        .enumerate()
        .filter(|(i, _)| !inside.contains(i))
        .flat_map(|(_, n)| n.weights.values().copied())
        .collect();
    let tensors = import_tensors(work, template, recipe, &users, &mut before)?;
    let mut value = |work: &mut Work, v: ValueId| {
        *values.entry(v).or_insert_with(|| {
            work.graph.values.push(template.value(v).clone());
            ValueId(work.graph.values.len() as u32 - 1)
        })
    };
    let mut nodes = Vec::with_capacity(template.nodes.len());
    for node in &template.nodes {
        nodes.push(Node {
            path: node.path.clone(),
            op: node.op.clone(),
            inputs: node.inputs.iter().map(|v| value(work, *v)).collect(),
            weights: node.weights.iter().map(|(s, t)| (*s, tensors[t.0 as usize])).collect(),
            outputs: node.outputs.iter().map(|v| value(work, *v)).collect(),
        });
    }
    for state in &template.states {
        if work.graph.states.iter().any(|s| s.name == state.name) {
            return Err(format!(
                "the model has a state `{}` already: name the template's otherwise",
                state.name
            ));
        }
        let (input, output) = (value(work, state.input), value(work, state.output));
        work.graph.states.push(StatePort { name: state.name.clone(), input, output, start: state.start });
    }
    for (old, new) in outputs {
        let new = value(work, new);
        work.replace_uses(old, new);
    }
    splice(work, first, &inside, nodes);
    work.graph.annotations.retain(|path, _| !is_under(path, module));
    work.graph.annotations.extend(template.annotations.clone());
    work.graph.modules.retain(|path, _| !is_under(path, module));
    work.graph.modules.extend(template.modules.clone());
    work.sort().map_err(|why| format!("the template closes a cycle: {why}"))?;
    work.sweep(&before);
    Ok(())
}

/// Values of the graph for the template's input ports.
fn bind_inputs(
    work: &Work,
    template: &Graph,
    inside: &HashSet<usize>,
) -> Result<HashMap<ValueId, ValueId>, String> {
    let producers = work.graph.producers();
    let mut out = HashMap::new();
    for port in &template.inputs {
        let value = work.source(&ValueRef(port.name.clone()))?;
        if producers[value.0 as usize].is_some_and(|(NodeId(n), _)| inside.contains(&(n as usize))) {
            return Err(format!("the template's input `{}` is made inside the module that goes", port.name));
        }
        same(work, value, template, port.value, &port.name)?;
        out.insert(port.value, value);
    }
    Ok(out)
}

/// Pairs of a value that goes and the template's value that takes over.
fn match_outputs(
    work: &Work,
    template: &Graph,
    inside: &HashSet<usize>,
) -> Result<Vec<(ValueId, ValueId)>, String> {
    let mut pairs = Vec::new();
    for port in &template.outputs {
        let old = work.value(&ValueRef(port.name.clone()))?;
        same(work, old, template, port.value, &port.name)?;
        pairs.push((old, port.value));
    }
    let consumers = work.graph.consumers();
    for v in inside.iter().flat_map(|i| &work.graph.nodes[*i].outputs) {
        let outside = consumers[v.0 as usize].iter().any(|(n, _)| !inside.contains(&(n.0 as usize)));
        let port = work.graph.outputs.iter().any(|p| p.value == *v);
        if (outside || port) && !pairs.iter().any(|(old, _)| old == v) {
            let name = work.graph.value_ref(*v).0;
            return Err(format!("the template has no output `{name}`, which others read"));
        }
    }
    Ok(pairs)
}

fn same(work: &Work, ours: ValueId, template: &Graph, theirs: ValueId, port: &str) -> Result<(), String> {
    let (a, b) = (work.graph.value(ours), template.value(theirs));
    if a == b {
        return Ok(());
    }
    let (x, y) = (show_shape(&a.shape), show_shape(&b.shape));
    Err(format!("port `{port}` is {:?} {x} in the model and {:?} {y} in the template", a.ty, b.ty))
}

/// Ids of the template's tensors in the graph.
fn import_tensors(
    work: &mut Work,
    template: &Graph,
    recipe: &Recipe,
    users: &HashSet<TensorId>,
    before: &mut Usage,
) -> Result<Vec<TensorId>, String> {
    let known = |name: &str| {
        let id = work.graph.find_tensor(name)?;
        let t = work.graph.tensor(id);
        Some(SourceTensor::new(t.shape.clone(), &t.dtype))
    };
    recipe.check(&known).map_err(|e| e.to_string())?;
    let mut ids = Vec::with_capacity(template.tensors.len());
    let mut made = Vec::new();
    for t in &template.tensors {
        let output = recipe
            .output(&t.name)
            .filter(|o| o.shape == t.shape)
            .ok_or_else(|| format!("the recipe does not make `{}` of shape {:?}", t.name, t.shape))?;
        let existing = work.graph.find_tensor(&t.name);
        let shared = existing.filter(|id| {
            let copies =
                matches!(&output.expr, Expr::Copy { name } if work.graph.find_tensor(name) == Some(*id));
            copies && work.graph.tensor(*id) == t
        });
        if let Some(id) = shared {
            ids.push(id);
            continue;
        }
        if existing.is_some_and(|id| users.contains(&id)) {
            return Err(format!(
                "the template's tensor `{}` is another one than the model's of that name",
                t.name
            ));
        }
        let current = |name: &str| -> crate::Result<Expr> {
            let missing = || crate::GraphError::Recipe {
                output: t.name.clone(),
                message: format!("there is no source tensor `{name}`"),
            };
            let id = work.graph.find_tensor(name).ok_or_else(missing)?;
            Ok(work.exprs[id.0 as usize].clone())
        };
        let expr = output.expr.substitute(&current).map_err(|e| e.to_string())?;
        made.push((t.clone(), expr, existing));
        ids.push(TensorId((work.graph.tensors.len() + made.len() - 1) as u32));
    }
    for (t, expr, existing) in made {
        if let Some(old) = existing {
            // The one that goes with the module must not stand in the way of its successor until it is swept.
            let old = &mut work.graph.tensors[old.0 as usize];
            old.name.push_str(" (replaced)");
            old.aliases.clear();
            before.add_tensor(&old.name);
        }
        work.graph.tensors.push(t);
        work.exprs.push(expr);
    }
    Ok(ids)
}

fn splice(work: &mut Work, first: usize, inside: &HashSet<usize>, nodes: Vec<Node>) {
    let old = std::mem::take(&mut work.graph.nodes);
    let mut new = Some(nodes);
    for (i, node) in old.into_iter().enumerate() {
        if i == first {
            work.graph.nodes.extend(new.take().unwrap_or_default());
        }
        if inside.contains(&i) {
            work.gone.insert(node.path, work.edit);
        } else {
            work.graph.nodes.push(node);
        }
    }
}
