//! `pomona inspect`.

use anyhow::Result;
use pomona_cost::{BlockSpec, CostOptions, CostReport, cost, decode_bindings, default_bindings, roofline};
use pomona_graph::{Bindings, Graph, Plan, apply, blocks, regions};
use pomona_report::{InspectOptions, TreeOptions, compare, inspect};

use crate::args::Inspect;
use crate::context::{cost_device, open_model};
use crate::ui::Ui;

pub fn run(a: &Inspect, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    let given: Bindings = a.input.iter().cloned().collect();
    let graph = model.graph()?;
    let dense = report(graph, &model.architecture, &given)?;
    if let Some(path) = &a.plan {
        let plan = Plan::from_json(&std::fs::read_to_string(path)?)?;
        model.check_plan(&plan)?;
        let (edited, _) = apply(graph, &plan.edits)?;
        let after = report(&edited, &model.architecture, &given)?;
        let document = serde_json::json!({"before": dense, "after": after, "removed": plan.removed});
        return ui.result(&document, || compare(&dense, &after, &[], ui.style()));
    }
    let mut options = InspectOptions { style: ui.style(), ..InspectOptions::default() };
    options.tree = TreeOptions { depth: a.depth, ..TreeOptions::default() };
    if let Some(name) = &a.device {
        let device = cost_device(name)?;
        options.latencies.push(("one input".to_owned(), roofline(&dense, &device)?));
        if !graph.states.is_empty() {
            let bound = graph.bind(&decode_bindings(graph, 128))?;
            let one = cost(
                &bound,
                &CostOptions { architecture: model.architecture.clone(), ..CostOptions::default() },
            )?;
            options.latencies.push(("one token after 128".to_owned(), roofline(&one, &device)?));
        }
    }
    let groups = if a.groups { regions(graph) } else { Vec::new() };
    let mut document = serde_json::to_value(&dense)?;
    if a.groups {
        document["regions"] = groups
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
    ui.result(&document, || {
        let mut text = inspect(&dense, &options);
        for r in &groups {
            text += &format!("{}  {} -> {}  ({} parameters)\n", r.path, r.from.0, r.to.0, r.parameters);
        }
        text
    })
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
