//! BK-SDM: whole residual and attention blocks out of a Stable Diffusion U-Net.
//!
//! Source: Kim et al., "BK-SDM: A Lightweight, Fast, and Cheap Version of Stable Diffusion", arXiv:2305.15798. A block
//! is a pair of a resnet and the attention behind it. What goes is read off the structure:
//!
//! - **Base**: of each down stage the first pair stays, of each up stage the first and the last. The last one stays because
//!   its skip comes from the stage's own downsampling, whose width only it fits.
//! - **Small**: and the mid block.
//! - **Tiny**: Base, and everything inside the innermost downsampling, which takes the mid block along.

use std::collections::BTreeMap;

use pomona_graph::{Edit, Graph, PLAN_VERSION, Plan, ValueRef, apply, diff, span};

use super::depth::report;
use crate::error::{PruneError, Result};

/// The three students of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// One pair fewer in each stage.
    Base,
    /// Base without the mid block.
    Small,
    /// Small without the innermost stage.
    Tiny,
}

impl Variant {
    /// The method's name on the command line and in plans.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Base => "bk-sdm-base",
            Variant::Small => "bk-sdm-small",
            Variant::Tiny => "bk-sdm-tiny",
        }
    }
}

/// What a plan is made for.
pub struct Planning<'a> {
    /// The U-Net, symbolic or bound.
    pub graph: &'a Graph,
    /// Its name in a pipeline; none where it stands alone.
    pub component: Option<&'a str>,
    /// Fingerprint of the U-Net.
    pub fingerprint: &'a str,
    /// The program, with its version.
    pub tool: &'a str,
}

/// The plan of a variant. It needs no scores and no target.
///
/// # Errors
/// [`PruneError::Unfit`] where the graph is no U-Net of stages, or a part of it cannot go.
pub fn plan(on: &Planning<'_>, variant: Variant) -> Result<Plan> {
    let edits = edits(on.graph, variant)?;
    let (edited, _) = apply(on.graph, &edits)?;
    let removed = diff(on.graph, &edited).removed.into_iter().map(|r| r.path).collect();
    Ok(Plan {
        version: PLAN_VERSION,
        tool: on.tool.to_owned(),
        fingerprint: on.fingerprint.to_owned(),
        component: on.component.map(str::to_owned),
        method: variant.name().to_owned(),
        criterion: None,
        target: None,
        removed,
        before: report(on.graph)?.summary(),
        after: report(&edited)?.summary(),
        edits,
    })
}

/// The edits of a variant, from the network's end to its beginning, so that what a bypass reads is still there.
pub fn edits(graph: &Graph, variant: Variant) -> Result<Vec<Edit>> {
    let (down, up) = (stages(graph, "down_blocks"), stages(graph, "up_blocks"));
    if down.len() < 2 || down.len() != up.len() {
        return Err(unfit(format!("has {} down blocks and {} up blocks", down.len(), up.len())));
    }
    let innermost = down.len() - 1;
    let mut edits = Vec::new();
    for (i, stage) in up.iter().enumerate().rev() {
        if variant == Variant::Tiny && i == 0 {
            continue;
        }
        if let [first, .., last, _] = stage.as_slice() {
            edits.push(bypass(graph, first, last)?);
        }
    }
    match variant {
        Variant::Base => {}
        Variant::Small => {
            let entry = down[innermost].last().ok_or_else(|| unfit("has an empty stage".to_owned()))?;
            edits.push(bypass(graph, entry, &output(graph, "mid_block")?)?);
        }
        Variant::Tiny => {
            let outer = &down[innermost - 1];
            let entry = outer.last().ok_or_else(|| unfit("has an empty stage".to_owned()))?;
            edits.push(bypass(graph, entry, &output(graph, "up_blocks.0")?)?);
        }
    }
    for (i, stage) in down.iter().enumerate().rev() {
        if variant == Variant::Tiny && i == innermost {
            continue;
        }
        if let [first, .., last] = stage.as_slice() {
            edits.push(bypass(graph, first, last)?);
        }
    }
    Ok(edits)
}

fn unfit(what: String) -> PruneError {
    PruneError::Unfit(format!(
        "bk-sdm takes a U-Net with as many up blocks as down blocks, at least two of each; this network {what}"
    ))
}

/// A bypass over a part that can go as a whole.
fn bypass(graph: &Graph, from: &ValueRef, to: &ValueRef) -> Result<Edit> {
    span(graph, from, to)?;
    Ok(Edit::Bypass { from: from.clone(), to: to.clone() })
}

/// What a module gives: the output of its last node.
fn output(graph: &Graph, module: &str) -> Result<ValueRef> {
    let inside = |path: &str| path.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'));
    let last = graph.nodes.iter().rfind(|n| inside(&n.path));
    last.map(|n| ValueRef(n.path.clone())).ok_or_else(|| unfit(format!("has no `{module}`")))
}

/// The outputs of the pairs of each stage `list.N`, in order.
fn stages(graph: &Graph, list: &str) -> Vec<Vec<ValueRef>> {
    let mut found: BTreeMap<usize, BTreeMap<usize, ValueRef>> = BTreeMap::new();
    for node in &graph.nodes {
        let mut parts = node.path.strip_prefix(list).unwrap_or_default().split('.').skip(1);
        let (stage, kind, pair) = (parts.next(), parts.next(), parts.next());
        let number = |part: Option<&str>| part.and_then(|p| p.parse::<usize>().ok());
        if let (Some(stage), Some("resnets" | "attentions"), Some(pair)) = (number(stage), kind, number(pair))
        {
            // The last node of a pair, in the order of the graph, gives what the pair gives.
            found.entry(stage).or_default().insert(pair, ValueRef(node.path.clone()));
        }
    }
    found.into_values().map(|pairs| pairs.into_values().collect()).collect()
}
