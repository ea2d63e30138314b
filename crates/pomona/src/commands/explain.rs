//! `pomona explain`.

use anyhow::{Result, bail};
use pomona_graph::{region_at, why_not};

use crate::args::Explain;
use crate::context::open_model;
use crate::ui::Ui;

pub fn run(a: &Explain, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    let graph = &model.component(a.component.as_deref())?.graph;
    if let Some(r) = region_at(graph, &a.part) {
        let document = serde_json::json!({"path": r.path, "removable": true, "from": r.from, "to": r.to,
            "parameters": r.parameters, "side_inputs": r.side_inputs, "states": r.states,
            "goes_with": r.side_outputs.iter().map(|s| s.reader.clone()).collect::<Vec<_>>()});
        return ui.result(&document, || {
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
            text + ".\n"
        });
    }
    let inside = |path: &str| path.strip_prefix(&a.part).is_some_and(|r| r.is_empty() || r.starts_with('.'));
    let there = graph.nodes.iter().any(|n| inside(&n.path)) || graph.tensors.iter().any(|t| inside(&t.name));
    match why_not(graph, &a.part).filter(|_| there) {
        Some(reason) => {
            let document = serde_json::json!({"path": a.part, "removable": false, "reason": reason});
            ui.result(&document, || format!("{reason}\n"))
        }
        None => bail!(
            "{}: has no part `{}`; `pomona inspect --depth 4` lists its parts",
            a.model.display(),
            a.part
        ),
    }
}
