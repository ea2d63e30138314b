//! `pomona inspect`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use pomona_cost::{BlockSpec, CostOptions, CostReport, cost, decode_bindings, default_bindings, roofline};
use pomona_graph::{Bindings, Graph, apply, blocks, coupled_groups, diff, regions};
use pomona_models::{Component, Model};
use pomona_report::{InspectOptions, TreeOptions, compare, group_table, inspect, removal};

use crate::args::Inspect;
use crate::context::{cost_device, open_model, read_plan};
use crate::ui::Ui;

/// Tensors without a place that are listed one by one.
const LISTED: usize = 8;

pub fn run(a: &Inspect, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    let given: Bindings = a.input.iter().cloned().collect();
    let known: BTreeSet<String> = model.components.iter().flat_map(|c| c.graph.symbols()).collect();
    if let Some(name) = given.keys().find(|n| !known.contains(n.as_str())) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        bail!("--input: `{name}` is no size of this model; it has {}", known.join(", "));
    }
    if let Some(path) = &a.plan {
        let plan = read_plan(path)?;
        let named = || path.display().to_string();
        let component = model.planned(&plan).with_context(named)?;
        let (edited, _) = apply(&component.graph, &plan.edits).with_context(named)?;
        let before = report(&component.graph, &component.architecture, &given)?;
        let after = report(&edited, &component.architecture, &given)?;
        let diff = diff(&component.graph, &edited);
        let document =
            serde_json::json!({"before": before, "after": after, "removed": plan.removed, "diff": diff});
        return ui.result(&document, || {
            compare(&before, &after, &[], ui.style()) + "\n" + &removal(&diff, ui.style())
        });
    }
    if let (None, [_, _, ..]) = (&a.component, model.components.as_slice()) {
        return pipeline(&model, a, &given, ui);
    }
    let component = model.component(a.component.as_deref())?;
    let (document, text) = one(component, a, &given, ui)?;
    ui.result(&document, || text)
}

/// Every component of a pipeline, and the sum of their parameters.
fn pipeline(model: &Model, a: &Inspect, given: &Bindings, ui: &Ui) -> Result<()> {
    let (mut components, mut text) = (serde_json::Map::new(), String::new());
    let (mut parameters, mut bytes) = (0_u64, 0_u64);
    for component in &model.components {
        let (document, part) = one(component, a, given, ui)?;
        parameters += document["parameters"].as_u64().unwrap_or(0);
        bytes += document["weight_bytes"].as_u64().unwrap_or(0);
        text += &format!("{}: {part}\n", component.name);
        components.insert(component.name.clone(), document);
    }
    let document = serde_json::json!({"architecture": model.architecture, "parameters": parameters,
        "weight_bytes": bytes, "components": components});
    let exact = pomona_report::units::exact(parameters);
    ui.result(&document, || format!("{text}{}: {exact} parameters together\n", model.architecture))
}

/// JSON and text of one component.
fn one(component: &Component, a: &Inspect, given: &Bindings, ui: &Ui) -> Result<(serde_json::Value, String)> {
    let graph = &component.graph;
    // Sizes that no graph has at its default input.
    let dense = report(graph, &component.architecture, given)
        .with_context(|| component.path.display().to_string())?;
    let mut options = InspectOptions { style: ui.style(), ..InspectOptions::default() };
    options.tree = TreeOptions { depth: a.depth, ..TreeOptions::default() };
    if let Some(name) = &a.device {
        let device = cost_device(name)?;
        options.latencies.push(("one input".to_owned(), roofline(&dense, &device)?));
        if !graph.states.is_empty() {
            let bound = graph.bind(&decode_bindings(graph, 128))?;
            let settings =
                CostOptions { architecture: component.architecture.clone(), ..CostOptions::default() };
            let one = cost(&bound, &settings)?;
            options.latencies.push(("one token after 128".to_owned(), roofline(&one, &device)?));
        }
    }
    let (parts, groups) =
        if a.groups { (regions(graph), coupled_groups(graph)?) } else { (Vec::new(), Vec::new()) };
    let mut document = serde_json::to_value(&dense)?;
    let left_over = component.left_over();
    if !left_over.is_empty() {
        document["unused"] = serde_json::json!(left_over);
    }
    if a.groups {
        document["groups"] = serde_json::to_value(&groups)?;
        document["regions"] = parts
            .iter()
            .map(|r| {
                serde_json::json!({"path": r.path, "from": r.from, "to": r.to, "parameters": r.parameters,
                    "side_inputs": r.side_inputs, "states": r.states,
                    "goes_with": r.side_outputs.iter().map(|s| s.reader.clone()).collect::<Vec<_>>()})
            })
            .collect();
    }
    if !options.latencies.is_empty() {
        let seconds =
            options.latencies.iter().map(|(n, l)| serde_json::json!({"run": n, "seconds": l.seconds}));
        document["latency"] = seconds.collect();
    }
    let mut text = inspect(&dense, &options);
    if a.groups {
        text += &format!("\n{}\n", group_table(&groups, ui.style()));
    }
    // Activations and the like can go too; whoever looks for weight to lose does not want to read them all.
    let (heavy, light): (Vec<_>, Vec<_>) = parts.iter().partition(|r| r.parameters > 0);
    if !parts.is_empty() {
        text += "parts that can be taken out, from what flows in to what flows out\n";
    }
    for r in heavy {
        text += &format!("{}  {} -> {}  ({} parameters)\n", r.path, r.from.0, r.to.0, r.parameters);
    }
    if !light.is_empty() {
        text += &format!("and {} without parameters (all in --json)\n", light.len());
    }
    // Sizes that an importer could not keep open.
    let bound = component.config.get("onnx").and_then(|o| o.get("bound")).and_then(|b| b.as_object());
    for (name, size) in bound.into_iter().flatten() {
        text += &format!(
            "\n`{name}` is bound to {size}: the file computes with it in a way that no symbol follows\n"
        );
    }
    if !left_over.is_empty() {
        let more = left_over.len().saturating_sub(LISTED);
        let rest = if more > 0 { format!(", and {more} more (all in --json)") } else { String::new() };
        let names: Vec<&str> = left_over.iter().take(LISTED).copied().collect();
        let kind = &component.architecture;
        text += &format!("\nnot read, `{kind}` has no such tensors: {}{rest}\n", names.join(", "));
    }
    Ok((document, text))
}

/// Cost of a graph at its default sizes, or the given ones.
pub fn report(graph: &Graph, architecture: &str, given: &Bindings) -> Result<CostReport> {
    let mut sizes = default_bindings(graph);
    sizes.extend(given.clone());
    let specs =
        blocks(graph).into_iter().map(|r| BlockSpec { path: r.path, nodes: r.nodes, removable: true });
    let blocks = Some(specs.collect::<Vec<_>>()).filter(|b| !b.is_empty() && !graph.nodes.is_empty());
    let options = CostOptions { architecture: architecture.to_owned(), activation_dtype: None, blocks };
    Ok(cost(&graph.bind(&sizes)?, &options)?)
}
