//! Application of edits: from a graph and a plan to the new graph and its weight recipe.

use std::collections::HashMap;

use super::work::Work;
use super::{Edit, Plan, annotate, bypass, drop_operand, keep, replace};
use crate::error::{GraphError, Result};
use crate::graph::Graph;
use crate::recipe::{Expr, Recipe, RecipeOutput, SourceTensor};
use crate::tensor::TensorDef;

/// Applies edits in order. The recipe makes each tensor of the new graph from those of `graph`, by their names for life.
///
/// Node paths and tensor names do not change. Nodes, states, tensors and inputs that the edits make useless go; a tied
/// tensor stays while any use of it does.
///
/// # Errors
/// [`GraphError::Edit`] with the edit's position and kind, and what would work; [`GraphError::Node`] or
/// [`GraphError::Graph`] where the edited graph does not validate.
pub fn apply(graph: &Graph, edits: &[Edit]) -> Result<(Graph, Recipe)> {
    let mut work = Work::new(graph);
    let mut cuts = None;
    for (index, edit) in edits.iter().enumerate() {
        let refuse = |index: usize, message| GraphError::Edit { index, kind: edits[index].kind(), message };
        // Consecutive cuts of different groups are made in one pass.
        if !matches!(edit, Edit::Keep { .. }) {
            keep::flush(&mut work, &mut cuts).map_err(|why| refuse(index - 1, why))?;
        }
        work.edit = index;
        apply_one(&mut work, &mut cuts, edit).map_err(|why| refuse(index, why))?;
        if index + 1 == edits.len() {
            keep::flush(&mut work, &mut cuts).map_err(|why| refuse(index, why))?;
        }
    }
    work.graph.validate()?;
    let table: HashMap<&str, &TensorDef> = graph.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let sources = |name: &str| table.get(name).map(|t| SourceTensor::new(t.shape.clone(), &t.dtype));
    let output = |(t, expr): (&TensorDef, &Expr)| RecipeOutput {
        name: t.name.clone(),
        shape: t.shape.clone(),
        expr: expr.clone(),
    };
    let recipe = Recipe { outputs: work.graph.tensors.iter().zip(&work.exprs).map(output).collect() };
    let recipe = recipe.simplified(&sources);
    recipe.check(&sources)?;
    Ok((work.graph, recipe))
}

fn apply_one(
    work: &mut Work,
    cuts: &mut Option<keep::Pending>,
    edit: &Edit,
) -> std::result::Result<(), String> {
    match edit {
        Edit::Bypass { from, to } => bypass::bypass(work, from, to),
        Edit::Annotate { node, annotation } => annotate::annotate(work, node, annotation),
        Edit::DropOperand { node, index } => drop_operand::drop_operand(work, node, *index),
        Edit::Keep { group, indices } => keep::keep(work, cuts, group, indices),
        Edit::Replace { module, template, recipe } => replace::replace(work, module, template, recipe),
    }
}

impl Graph {
    /// Applies a plan that names this component, or none.
    ///
    /// # Errors
    /// As [`apply`]; [`GraphError::Plan`] where the plan is for another component.
    pub fn apply_plan(&self, plan: &Plan) -> Result<(Graph, Recipe)> {
        match &plan.component {
            Some(c) if *c != self.name => Err(GraphError::Plan(format!(
                "it is for component `{c}`; this is `{}`: apply it to that component",
                self.name
            ))),
            _ => apply(self, &plan.edits),
        }
    }
}
