//! Peak activations, trees and what cannot be counted, on small graphs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::Build;
use pomona_cost::{CostError, CostOptions, CostReport, cost};
use pomona_graph::*;

fn count(graph: &Graph) -> CostReport {
    cost(graph, &CostOptions::default()).unwrap()
}

fn relu() -> Op {
    Op::Activation { function: Activation::Relu }
}

/// `in` (10 elements) to `a`; `a` to `left` (40) and `right` (20); both to `join` (60).
fn diamond() -> Build {
    let mut b = Build::new("f32");
    let x = b.input("x", &[1, 10], ValueType::Float);
    let a = b.node("a", relu(), &[x], &[], &[1, 10]);
    let left = b.layer("left", Op::Linear {}, a, &[40, 10], &[1, 40]);
    let left = b.node("left_act", relu(), &[left], &[], &[1, 40]);
    let right = b.layer("right", Op::Linear {}, a, &[20, 10], &[1, 20]);
    let y = b.node("join", Op::Concat { axis: 1 }, &[left, right], &[], &[1, 60]);
    b.output("y", y);
    b
}

#[test]
fn a_diamond_peaks_where_both_arms_and_the_join_live() {
    let b = diamond();
    // x is the caller's, so always there. Live elements: a 20; left 60; left_act 100, then left goes; right 80; join
    // 10 + 40 + 20 + 60 (a went with `right`).
    let r = count(&b.graph);
    assert_eq!((r.peak_activations.bytes, r.peak_activations.at.as_str()), (4 * 130, "join"));
}

#[test]
fn a_value_without_readers_dies_at_once_and_an_output_never() {
    let mut b = diamond();
    let x = b.graph.inputs[0].value;
    b.node("unread", relu(), &[x], &[], &[1, 1000]);
    let tail = b.node("tail", relu(), &[x], &[], &[1, 10]);
    b.output("tail", tail);
    // At `unread`: x, the output y and its own 1000; at `tail` these 1000 are gone.
    let r = count(&b.graph);
    assert_eq!((r.peak_activations.bytes, r.peak_activations.at.as_str()), (4 * 1070, "unread"));
    b.graph.outputs.retain(|p| p.name != "y");
    assert_eq!(count(&b.graph).peak_activations.bytes, 4 * 1010);
}

#[test]
fn intensity_is_operations_a_byte() {
    let r = count(&diamond().graph);
    let left = r.operators.iter().find(|o| o.path == "left").unwrap();
    assert_eq!(left.traffic.weights, 4 * 400);
    assert_eq!((left.traffic.read, left.traffic.written), (40, 160));
    assert_eq!(left.intensity, Some(800.0 / 1800.0));
}

#[test]
fn the_tree_sums_up() {
    let mut b = Build::new("f32");
    let x = b.input("x", &[1, 3, 8, 8], ValueType::Float);
    b.graph.modules.insert("encoder".to_owned(), "Encoder".to_owned());
    let conv = || Op::Conv(ConvAttrs::square(1, 1));
    let y = b.layer("encoder.0.conv", conv(), x, &[4, 3, 3, 3], &[1, 4, 8, 8]);
    let y = b.layer("encoder.1.conv", conv(), y, &[4, 4, 3, 3], &[1, 4, 8, 8]);
    let y = b.layer("head", conv(), y, &[2, 4, 3, 3], &[1, 2, 8, 8]);
    b.output("y", y);
    let r = count(&b.graph);
    let names: Vec<_> =
        r.modules.children.iter().map(|m| (m.path.as_str(), m.class.as_deref(), m.macs.full)).collect();
    assert_eq!(names, [("encoder", Some("Encoder"), 64 * 9 * (12 + 16)), ("head", Some("Conv"), 64 * 9 * 8)]);
    let inner: Vec<_> = r.modules.children[0].children.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(inner, ["encoder.0", "encoder.1"]);
    assert_eq!(r.modules.macs, r.macs);
    assert_eq!(r.blocks.iter().map(|b| b.path.as_str()).collect::<Vec<_>>(), ["encoder.0", "encoder.1"]);
    assert!(r.blocks.iter().all(|b| !b.removable), "without an analysis nothing is called removable");
}

#[test]
fn buffers_have_bytes_but_are_no_parameters() {
    let mut b = diamond();
    let t = b.tensor("left.running_mean", &[40]);
    b.graph.tensors[t.0 as usize].role = Role::Buffer;
    let r = count(&b.graph);
    assert_eq!((r.parameters, r.weight_bytes), (600, 4 * 640));
    assert_eq!(r.modules.children.iter().find(|m| m.path == "left").unwrap().parameters, 400);
}

#[test]
fn a_graph_of_tensors_only_has_parameters_bytes_and_repeated_blocks() {
    let mut b = Build::new("bf16");
    b.tensor("embed.weight", &[10, 4]);
    for i in 0..3 {
        b.tensor(&format!("stack.{i}.mix.weight"), &[4, 4]);
        b.tensor(&format!("stack.{i}.norm.weight"), &[4]);
    }
    let r = count(&b.graph);
    assert_eq!((r.parameters, r.weight_bytes, r.macs.full), (100, 200, 0));
    let blocks: Vec<_> = r.blocks.iter().map(|b| (b.path.as_str(), b.parameters)).collect();
    assert_eq!(blocks, [("stack.0", 20), ("stack.1", 20), ("stack.2", 20)]);
    let paths: Vec<_> = r.modules.children.iter().map(|m| (m.path.as_str(), m.parameters)).collect();
    assert_eq!(paths, [("embed", 40), ("stack", 60)]);
}

#[test]
fn uncounted_operators_and_types_are_named() {
    let mut b = Build::new("q77");
    let x = b.input("x", &[1, 10], ValueType::Float);
    let y = b.layer("head", Op::Linear {}, x, &[40, 10], &[1, 40]);
    let y = b.node("choose", Op::TopK { k: 4 }, &[y], &[], &[1, 4]);
    b.output("y", y);
    let r = count(&b.graph);
    let named: Vec<_> = r.uncounted.iter().map(|u| (u.path.as_str(), u.operator.as_str())).collect();
    assert_eq!(named, [("head.weight", "q77"), ("choose", "TopK")]);
    assert_eq!(r.macs.full, 400);
}

#[test]
fn a_symbolic_shape_is_refused_by_name() {
    let mut b = diamond();
    b.graph.values[1].shape[0] = Dim::symbol("batch");
    let e = cost(&b.graph, &CostOptions::default()).unwrap_err();
    assert!(matches!(e, CostError::Unbound { .. }));
    assert_eq!(
        e.to_string(),
        "value 1 of `a` has shape [batch, 10], which is not bound: give its symbols a size (`--input name=value`)"
    );
}
