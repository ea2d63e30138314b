//! Graphs, plans and recipes from files that want to hurt: an error each, never a panic or a huge allocation.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::result::Result;

use pomona_graph::*;
use serde_json::{Value as Json, json};

fn small() -> Graph {
    let mut b = GraphBuilder::new("model", "f32");
    let x = b.input("x", vec![Dim::symbol("batch"), 4.into()], ValueType::Float);
    let up = b.linear("up", x, 8, true).unwrap();
    let down = b.linear("down", up, 4, false).unwrap();
    b.output("y", down);
    b.finish().unwrap()
}

/// The small graph with one place of its JSON changed.
fn changed(pointer: &str, value: Json) -> Result<Graph, String> {
    let mut json = serde_json::to_value(small()).unwrap();
    *json.pointer_mut(pointer).unwrap_or_else(|| unreachable!("no {pointer}")) = value;
    let graph: Graph = serde_json::from_value(json).map_err(|e| e.to_string())?;
    graph.validate().map_err(|e| e.to_string())?;
    Ok(graph)
}

#[test]
fn damaged_graphs_are_refused() {
    let same = serde_json::to_value(small()).unwrap();
    assert!(changed("/name", same["name"].clone()).is_ok(), "the untouched graph is valid");
    let huge = u64::MAX;
    for (pointer, value, part) in [
        ("/nodes/0/inputs/0", json!(99), "reads value 99 before it is made"),
        ("/nodes/0/inputs/0", json!(2), "reads value 2 before it is made"),
        ("/nodes/1/outputs/0", json!(1), "is made by another node too"),
        ("/nodes/1/outputs/0", json!(4_000_000_000_u32), "does not exist"),
        ("/nodes/1/outputs", json!([]), "has 0 outputs; 1 were expected"),
        ("/nodes/1/path", json!("up"), "shares it with another node"),
        ("/nodes/1/path", json!(""), "has no path"),
        ("/nodes/0/weights", json!({}), "has no Weight tensor"),
        ("/nodes/0/weights/weight", json!(77), "is not in the table of tensors"),
        ("/nodes/0/weights/weight", json!(2), "last axis of [batch, 4] against `down.weight` [4, 8]"),
        ("/nodes/0/weights", json!({"weight": 0, "running_var": 1}), "does not read a RunningVar"),
        ("/tensors/0/shape", json!([huge, huge]), "too large"),
        ("/tensors/0/shape", json!([8, -4]), "invalid value"),
        ("/tensors/0/name", json!("down.weight"), "stands twice"),
        ("/tensors/0/name", json!(""), "has no name"),
        ("/values/0/shape", json!(["batch", -4]), "impossible shape"),
        ("/values/0/shape", json!([i64::MAX, i64::MAX]), "impossible shape"),
        ("/values/0/shape", json!(["floor(batch, 0)", 4]), "divided by zero"),
        ("/values/0/shape", json!(["(".repeat(100_000), 4]), "less nesting"),
        ("/values/1/shape", json!(["batch", 9]), "is declared as Float [batch, 9] and comes out as"),
        ("/inputs/0/value", json!(17), "has no value of its own"),
        ("/outputs/0/value", json!(17), "is a value that nothing makes"),
        ("/outputs/0/name", json!(""), "has no name"),
    ] {
        let message = changed(pointer, value.clone()).unwrap_err();
        assert!(message.contains(part), "{pointer} = {value:.60}: {message}\n lacks: {part}");
    }
}

#[test]
fn a_cycle_is_refused() {
    let mut json = serde_json::to_value(small()).unwrap();
    // `up` reads what `down` gives.
    let end = json["nodes"][1]["outputs"][0].clone();
    json["nodes"][0]["inputs"][0] = end;
    let graph: Graph = serde_json::from_value(json).unwrap();
    let message = graph.validate().unwrap_err().to_string();
    assert!(message.contains("before it is made"), "{message}");
}

fn plan(edits: Json) -> String {
    let cost = json!({"parameters": 1, "macs": 1, "weight_bytes": 4});
    json!({"version": PLAN_VERSION, "tool": "t", "fingerprint": "f", "method": "m", "before": cost, "after": cost,
           "edits": edits})
    .to_string()
}

#[test]
fn damaged_plans_are_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, part) in [
        (String::new(), "EOF"),
        ("{".to_owned(), "EOF"),
        (plan(json!(["deep"])).replace("\"deep\"", &deep), "invalid type"),
        (plan(json!([])).replace("\"version\":1", "\"version\":999"), "999"),
        (plan(json!([{"edit": "explode"}])), "unknown variant"),
        (plan(json!([{"edit": "bypass", "from": "a"}])), "missing field"),
        (plan(json!([{"edit": "keep", "group": "up.weight:0", "indices": [-1]}])), "invalid value"),
    ] {
        let message = Plan::from_json(&text).unwrap_err().to_string();
        assert!(message.contains(part), "{message}\n lacks: {part}");
    }
}

#[test]
fn plans_that_do_not_fit_the_graph_are_refused() {
    let graph = small();
    let keep = |indices: Json| json!([{"edit": "keep", "group": "up.weight:0", "indices": indices}]);
    for edits in [
        json!([{"edit": "bypass", "from": "up", "to": "nowhere"}]),
        json!([{"edit": "bypass", "from": "down", "to": "up"}]),
        json!([{"edit": "bypass", "from": "@x", "to": "up"}]),
        json!([{"edit": "drop_operand", "node": "up", "index": 0}]),
        json!([{"edit": "keep", "group": "nowhere:0", "indices": [0]}]),
        json!([{"edit": "keep", "group": "up.weight:9", "indices": [0]}]),
        keep(json!([])),
        keep(json!([8])),
        keep(json!([u32::MAX])),
        keep(json!([1, 1])),
    ] {
        let parsed = Plan::from_json(&plan(edits.clone())).unwrap();
        let message = apply(&graph, &parsed.edits).unwrap_err().to_string();
        assert!(message.starts_with("edit 0 ("), "{edits}: {message}");
    }
    let fine = Plan::from_json(&plan(keep(json!([0, 3, 7])))).unwrap();
    let (smaller, _) = apply(&graph, &fine.edits).unwrap();
    assert_eq!(smaller.tensors[0].shape, [3, 4]);
}

#[test]
fn damaged_recipes_are_refused() {
    let copy = |name: &str| Expr::copy(name);
    let source = |name: &str| (name == "a").then(|| SourceTensor::new(vec![4, 3], "f32"));
    let check = |shape: &[usize], expr: Expr| {
        let outputs = vec![RecipeOutput { name: "out".into(), shape: shape.to_vec(), expr }];
        Recipe { outputs }.check(&source)
    };
    assert!(check(&[4, 3], copy("a")).is_ok());
    for (shape, expr) in [
        (vec![4, 3], copy("b")),
        (vec![3, 4], copy("a")),
        (vec![usize::MAX, 3], copy("a")),
        (vec![1, 3], Expr::Gather { of: Box::new(copy("a")), axis: 0, indices: vec![4] }),
        (vec![1, 3], Expr::Gather { of: Box::new(copy("a")), axis: 7, indices: vec![0] }),
        (vec![8, 3], Expr::Concat { axis: 5, of: vec![copy("a"), copy("a")] }),
        (vec![0], Expr::Concat { axis: 0, of: vec![] }),
        (vec![5, 3], Expr::Reshape { of: Box::new(copy("a")), shape: vec![5, 3] }),
        (vec![3, 4], Expr::Transpose { of: Box::new(copy("a")), axes: vec![1, 1] }),
    ] {
        let message = check(&shape, expr).unwrap_err().to_string();
        assert!(message.contains("recipe for `out`"), "{message}");
    }
}
