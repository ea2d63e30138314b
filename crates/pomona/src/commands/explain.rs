//! `pomona explain`.

use anyhow::{Result, bail};
use pomona_graph::{CoupledGroup, Graph, Region, coupled_groups, region_at, why_not};
use pomona_report::{group_text, is_never_cut};
use serde_json::{Value, json};

use crate::args::Explain;
use crate::context::open_model;
use crate::ui::Ui;

pub fn run(a: &Explain, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    let graph = &model.component(a.component.as_deref())?.graph;
    let groups = groups_of(graph, &a.part)?;
    let inside = |path: &str| path.strip_prefix(&a.part).is_some_and(|r| r.is_empty() || r.starts_with('.'));
    let there = graph.nodes.iter().any(|n| inside(&n.path)) || graph.tensors.iter().any(|t| inside(&t.name));
    let region = region_at(graph, &a.part);
    let reason = || why_not(graph, &a.part).filter(|_| there && graph.find_tensor(&a.part).is_none());
    let (mut document, mut text) = match &region {
        Some(r) => removable(r),
        None => match reason() {
            Some(reason) => {
                (json!({"path": a.part, "removable": false, "reason": reason}), format!("{reason}\n"))
            }
            None if groups.is_empty() => bail!(
                "{}: has no part `{}`; `pomona inspect --depth 4` lists its parts, `pomona inspect --groups` its axis groups",
                a.model.display(),
                a.part
            ),
            None => (json!({"path": a.part}), String::new()),
        },
    };
    if !groups.is_empty() {
        document["groups"] = serde_json::to_value(&groups)?;
        text += &groups.iter().map(group_text).collect::<Vec<_>>().join("");
    }
    ui.result(&document, || text)
}

fn removable(r: &Region) -> (Value, String) {
    let document = json!({"path": r.path, "removable": true, "from": r.from, "to": r.to,
        "parameters": r.parameters, "side_inputs": r.side_inputs, "states": r.states,
        "goes_with": r.side_outputs.iter().map(|s| s.reader.clone()).collect::<Vec<_>>()});
    let mut text = format!(
        "`{}` can go: its main stream `{}` has the shape of its only used output `{}`.\n{} parameters go with it",
        r.path, r.from.0, r.to.0, r.parameters
    );
    if !r.states.is_empty() {
        text += &format!(", and the states {}", r.states.join(", "));
    }
    for s in &r.side_outputs {
        text += &format!("\nits value `{}` goes out of `{}` too", s.value.0, s.reader);
    }
    (document, text + ".\n")
}

/// The groups that a name means: a group's own name, an axis `<tensor>:<axis>`, a tensor, or a layer, whose tensors count.
fn groups_of(graph: &Graph, name: &str) -> Result<Vec<CoupledGroup>> {
    let axis = name.rsplit_once(':').and_then(|(t, axis)| {
        let axis = axis.split('@').next()?.parse::<usize>().ok()?;
        Some((graph.tensor(graph.find_tensor(t)?).name.clone(), axis))
    });
    let mut tensors: Vec<String> =
        graph.find_tensor(name).map(|t| graph.tensor(t).name.clone()).into_iter().collect();
    if let Some(node) = graph.find_node(name) {
        tensors.extend(graph.node(node).weights.values().map(|t| graph.tensor(*t).name.clone()));
    }
    if axis.is_none() && tensors.is_empty() {
        return Ok(Vec::new());
    }
    let mut groups = coupled_groups(graph)?;
    if name.contains('@') && groups.iter().any(|g| g.name == name) {
        groups.retain(|g| g.name == name);
        return Ok(groups);
    }
    groups.retain(|g| {
        g.members.iter().any(|m| match &axis {
            Some((tensor, axis)) => m.tensor == *tensor && m.axis == *axis,
            None => tensors.contains(&m.tensor) && !is_never_cut(g),
        })
    });
    Ok(groups)
}
