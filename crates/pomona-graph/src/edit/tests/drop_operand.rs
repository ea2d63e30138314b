use super::models::unet;
use super::*;

fn drop(node: &str, index: usize) -> Edit {
    Edit::DropOperand { node: node.into(), index }
}

#[test]
fn a_skip_goes_with_the_channels_that_read_it() {
    let graph = unet();
    let (out, recipe) = apply(&graph, &[drop("up_blocks.0.resnets.1.concat", 1)]).unwrap();
    let p = "up_blocks.0.resnets.1";
    let first_half = |name: &str, axis: usize| {
        let of = Box::new(Expr::copy(name));
        assert_eq!(recipe.output(name).unwrap().expr, Expr::Split { axis, start: 0, len: 8, of });
    };
    first_half(&format!("{p}.norm1.weight"), 0);
    first_half(&format!("{p}.norm1.bias"), 0);
    first_half(&format!("{p}.conv1.weight"), 1);
    first_half(&format!("{p}.conv_shortcut.weight"), 1);
    assert_eq!(recipe.outputs.iter().filter(|o| o.expr != Expr::copy(&o.name)).count(), 4);
    assert!(out.find_node(&format!("{p}.concat")).is_none());
    let norm = out.node(out.find_node(&format!("{p}.norm1")).unwrap());
    assert!(matches!(norm.op, Op::GroupNorm { groups: 1, .. }));
}

#[test]
fn channels_within_a_group_cannot_be_dropped() {
    let message = refusal(&unet(), &[drop("up_blocks.1.resnets.0.concat", 1)]);
    assert!(
        message.contains("up_blocks.1.resnets.0.norm1") && message.contains("2 groups of 6"),
        "{message}"
    );
}

#[test]
fn a_level_goes_with_the_joins_that_read_its_skips() {
    let graph = unet();
    let region = region_at(&graph, "down_blocks.1").unwrap();
    let reads: Vec<&str> = region.side_outputs.iter().map(|s| s.reader.as_str()).collect();
    assert_eq!(reads, ["up_blocks.0.resnets.1.concat"]);
    assert_eq!(region.side_inputs.len(), 2);
    let (out, recipe) = apply(&graph, &region.edits()).unwrap();
    assert!(names(&out).iter().all(|n| !n.starts_with("down_blocks.1.")));
    assert_eq!(recipe.outputs.len(), out.tensors.len());
    assert_eq!(graph.tensors.len() - out.tensors.len(), 2 * 10 + 2 * 7);
}

#[test]
fn an_add_loses_a_term_and_vanishes_with_one_left() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = b.input("x", vec![2.into(), 4.into()], ValueType::Float);
    let branches: Vec<ValueId> =
        (0..2).map(|i| b.linear(&format!("branch.{i}"), x, 4, true).unwrap()).collect();
    let sum = b.add("sum", &[x, branches[0], branches[1]]).unwrap();
    b.output("y", sum);
    let graph = b.finish().unwrap();
    let (out, recipe) = apply(&graph, &[drop("sum", 1)]).unwrap();
    assert_copies(&recipe);
    assert_eq!(paths(&out), ["branch.1", "sum"]);
    let (out, _) = apply(&graph, &[drop("sum", 1), drop("sum", 1)]).unwrap();
    assert!(out.nodes.is_empty() && out.output("y") == out.input("x"));
    let (out, _) = apply(&graph, &[drop("sum", 0), drop("sum", 0)]).unwrap();
    assert_eq!(paths(&out), ["branch.1"]);
    assert!(refusal(&graph, &[drop("sum", 3)]).contains("has 3 operands"));
    assert!(refusal(&graph, &[drop("branch.0", 0)]).contains("only Add and Concat"));
    let message = refusal(&graph, &[drop("sum", 0), drop("sum", 0), drop("sum", 0)]);
    assert!(message.contains("edit 2 (drop_operand): `sum` is gone: edit 1 removed it"), "{message}");
}

#[test]
fn a_join_of_a_join_is_not_cut_through_its_other_side() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = b.input("x", vec![1.into(), 4.into(), 4.into(), 4.into()], ValueType::Float);
    let a = b.conv("a", x, 3, &[1, 1], ConvAttrs::square(1, 0)).unwrap();
    let c = b.node("concat", Op::Concat { axis: 1 }, &[a, x], &[]).unwrap();
    let other = b.conv("other", x, 7, &[1, 1], ConvAttrs::square(1, 0)).unwrap();
    let sum = b.add("sum", &[c, other]).unwrap();
    let y = b.conv("y", sum, 2, &[1, 1], ConvAttrs::square(1, 0)).unwrap();
    b.output("y", y);
    let graph = b.finish().unwrap();
    let message = refusal(&graph, &[drop("concat", 0)]);
    assert!(message.contains("it would also cut `other`"), "{message}");
}
