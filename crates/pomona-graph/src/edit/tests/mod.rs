#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bypass;
mod drop_operand;
mod keep;
mod models;
mod random;
mod renumber;
mod replace;

use crate::*;

fn bypass(from: &str, to: &str) -> Edit {
    Edit::Bypass { from: ValueRef(from.into()), to: ValueRef(to.into()) }
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.tensors.iter().map(|t| t.name.as_str()).collect()
}

fn paths(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|n| n.path.as_str()).collect()
}

/// Every tensor is copied as it is.
fn assert_copies(recipe: &Recipe) {
    for o in &recipe.outputs {
        assert_eq!(o.expr, Expr::copy(&o.name));
    }
}

fn refusal(graph: &Graph, edits: &[Edit]) -> String {
    apply(graph, edits).unwrap_err().to_string()
}
