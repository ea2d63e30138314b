//! Channel groups of small graphs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use super::{ChannelGroup, Side, channel_groups, keep_edits};
use crate::*;

fn conv(b: &mut GraphBuilder, path: &str, x: ValueId, out: usize, groups: usize) -> ValueId {
    b.conv(path, x, out, &[3, 3], ConvAttrs { groups, ..ConvAttrs::square(1, 1) }).unwrap()
}

fn image(b: &mut GraphBuilder) -> ValueId {
    b.input("x", vec![1.into(), 3.into(), 8.into(), 8.into()], ValueType::Float)
}

fn names(graph: &Graph) -> Vec<(String, usize, Vec<String>)> {
    let member = |m: &ChannelMember| {
        let of = m.channel.iter().flatten().count();
        format!("{}:{} {of}/{} {:?}", graph.tensor(m.tensor).name, m.axis, m.channel.len(), m.side)
    };
    let groups = channel_groups(graph).unwrap();
    groups.iter().map(|g| (g.name.clone(), g.len, g.members.iter().map(member).collect())).collect()
}

/// Two branches into a Concat, as a U-shape has them.
fn joined() -> Graph {
    let mut b = GraphBuilder::new("net", "f32");
    let x = image(&mut b);
    let skip = conv(&mut b, "skip", x, 4, 1);
    let inner = conv(&mut b, "inner", skip, 6, 1);
    let c = b.node("cat", Op::Concat { axis: 1 }, &[skip, inner], &[]).unwrap();
    let y = conv(&mut b, "head", c, 2, 1);
    b.output("y", y);
    b.finish().unwrap()
}

#[test]
fn a_concat_does_not_join_what_can_be_cut_apart() {
    let found = names(&joined());
    let [skip, inner] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((skip.0.as_str(), skip.1), ("skip.weight:0", 4));
    assert_eq!(
        skip.2,
        [
            "skip.weight:0 4/4 Makes",
            "skip.bias:0 4/4 Makes",
            "inner.weight:1 4/4 Reads",
            "head.weight:1 4/10 Reads"
        ]
    );
    assert_eq!((inner.0.as_str(), inner.1), ("inner.weight:0", 6));
    assert_eq!(inner.2.last().unwrap(), "head.weight:1 6/10 Reads");
}

#[test]
fn edits_of_several_groups_count_what_is_left() {
    let graph = joined();
    let groups = channel_groups(&graph).unwrap();
    let kept = BTreeMap::from([(0, vec![1, 3]), (1, vec![0, 2, 5])]);
    let (edited, recipe) = apply(&graph, &keep_edits(&graph, &groups, &kept)).unwrap();
    let head = edited.find_tensor("head.weight").unwrap();
    assert_eq!(edited.tensor(head).shape, [2, 5, 3, 3]);
    let expr = &recipe.output("head.weight").unwrap().expr;
    assert_eq!(*expr, Expr::copy("head.weight").gather(1, vec![1, 3, 4, 6, 9]));
}

#[test]
fn a_flattened_channel_is_a_run_of_features() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = image(&mut b);
    let c = conv(&mut b, "conv", x, 4, 1);
    let flat = b.node("flat", Op::Reshape { shape: vec![1.into(), 256.into()] }, &[c], &[]).unwrap();
    let y = b.linear("fc", flat, 2, true).unwrap();
    b.output("y", y);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    assert_eq!(groups.len(), 1);
    let fc = groups[0].members.last().unwrap();
    assert_eq!(fc.channel.len(), 256);
    assert_eq!(fc.channel[64], Some(1));
    assert_eq!(fc.side, Side::Reads);
}

fn cells(g: &ChannelGroup) -> usize {
    g.cells.iter().copied().max().map_or(0, |m| m as usize + 1)
}

#[test]
fn norm_groups_over_a_concat_tie_its_parts() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = image(&mut b);
    let a = conv(&mut b, "a", x, 8, 1);
    let c = conv(&mut b, "c", x, 4, 1);
    let cat = b.node("cat", Op::Concat { axis: 1 }, &[a, c], &[]).unwrap();
    // Two groups of 6: the first six of `a`; its last two with all of `c`.
    let n = b.group_norm("norm", cat, 2, 1e-5).unwrap();
    let y = conv(&mut b, "head", n, 2, 1);
    b.output("y", y);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0].cluster, groups[1].cluster);
    assert_eq!(groups[0].cells, [0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(cells(&groups[1]), 1);
    // Half of every cell keeps the groups equal.
    let kept = BTreeMap::from([(0, vec![0, 1, 2, 6]), (1, vec![0, 3])]);
    apply(&graph, &keep_edits(&graph, &groups, &kept)).unwrap();
    let kept = BTreeMap::from([(0, vec![0, 1, 2, 3]), (1, vec![0, 3])]);
    assert!(apply(&graph, &keep_edits(&graph, &groups, &kept)).is_err());
}

#[test]
fn groups_with_fixed_channels_stay_whole_where_shares_differ() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = image(&mut b);
    let a = conv(&mut b, "a", x, 5, 1);
    let cat = b.node("cat", Op::Concat { axis: 1 }, &[x, a], &[]).unwrap();
    let n = b.group_norm("norm", cat, 2, 1e-5).unwrap();
    let y = conv(&mut b, "head", n, 2, 1);
    b.output("y", y);
    assert!(channel_groups(&b.finish().unwrap()).unwrap().is_empty());
}

#[test]
fn depthwise_channels_go_one_by_one_and_grouped_ones_alike() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = image(&mut b);
    let a = conv(&mut b, "a", x, 8, 1);
    let d = conv(&mut b, "depthwise", a, 8, 8);
    let g = conv(&mut b, "grouped", d, 8, 2);
    let y = conv(&mut b, "head", g, 2, 1);
    b.output("y", y);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let [a, g] = groups.as_slice() else { panic!("{groups:?}") };
    // The grouped convolution shares the axis of its inputs: four channels, each once in every group.
    assert_eq!((a.name.as_str(), a.len, cells(a)), ("a.weight:0", 4, 1));
    assert_eq!((g.name.as_str(), g.len, cells(g)), ("grouped.weight:0", 8, 2));
    let kept = BTreeMap::from([(0, vec![0, 2]), (1, vec![1, 2, 4, 7])]);
    let (edited, _) = apply(&graph, &keep_edits(&graph, &groups, &kept)).unwrap();
    let shape = |n: &str| edited.tensor(edited.find_tensor(n).unwrap()).shape.clone();
    assert_eq!(shape("depthwise.weight"), [4, 1, 3, 3]);
    assert_eq!(shape("grouped.weight"), [4, 2, 3, 3]);
}

#[test]
fn quantised_rows_are_cut_as_they_are_and_opened_where_columns_go() {
    let mut b = GraphBuilder::new("net", "q8_0");
    let x = b.input("x", vec![1.into(), 32.into()], ValueType::Float);
    let h = b.linear("a", x, 64, false).unwrap();
    let y = b.linear("b", h, 32, false).unwrap();
    b.output("y", y);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let kept: Vec<u32> = (0..40).collect();
    let (edited, recipe) = apply(&graph, &keep_edits(&graph, &groups, &BTreeMap::from([(0, kept)]))).unwrap();
    let dtype = |n: &str| edited.tensor(edited.find_tensor(n).unwrap()).dtype.clone();
    assert_eq!((dtype("a.weight"), dtype("b.weight")), ("q8_0".to_owned(), "f32".to_owned()));
    assert!(
        matches!(recipe.output("b.weight").unwrap().expr, Expr::Gather { ref of, .. } if matches!(**of, Expr::Decode { .. })
        || matches!(**of, Expr::Copy { .. }))
            || format!("{:?}", recipe.output("b.weight")).contains("Decode")
    );
}

#[test]
fn zeros_beside_channels_go_with_what_is_added_to_them() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = image(&mut b);
    let a = conv(&mut b, "a", x, 2, 1);
    let pad =
        Op::Pad { amounts: vec![[0; 2], [1, 2], [0; 2], [0; 2]], mode: PadMode::Constant { value: 0.0 } };
    let wide = b.node("pad", pad, &[a], &[]).unwrap();
    let c = conv(&mut b, "c", a, 5, 1);
    let sum = b.add("sum", &[wide, c]).unwrap();
    let y = conv(&mut b, "head", sum, 2, 1);
    b.output("y", y);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let [both, zeros] = groups.as_slice() else { panic!("{groups:?}") };
    assert_eq!((both.name.as_str(), both.len), ("a.weight:0", 2));
    assert_eq!((zeros.name.as_str(), zeros.len), ("c.weight:0", 3));
    assert_eq!(zeros.members[0].channel, [Some(0), None, None, Some(1), Some(2)]);
    let kept = BTreeMap::from([(0, vec![1]), (1, vec![1, 2])]);
    let (edited, recipe) = apply(&graph, &keep_edits(&graph, &groups, &kept)).unwrap();
    let Op::Pad { amounts, .. } = &edited.node(edited.find_node("pad").unwrap()).op else { panic!() };
    assert_eq!(amounts[1], [0, 2]);
    // Rows 2, 3 and 4 of the one convolution, column 1.
    let rows = Expr::Split { axis: 0, start: 2, len: 3, of: Box::new(Expr::copy("c.weight")) };
    let made = &recipe.output("c.weight").unwrap().expr;
    assert_eq!(*made, Expr::Split { axis: 1, start: 1, len: 1, of: Box::new(rows) });
}

#[test]
fn norm_groups_of_few_channels_go_whole_and_straddling_ones_stay() {
    let mut b = GraphBuilder::new("net", "f32");
    let x = image(&mut b);
    let a = conv(&mut b, "a", x, 16, 1);
    let an = b.group_norm("an", a, 8, 1e-5).unwrap();
    let c = conv(&mut b, "c", an, 8, 1);
    let cn = b.group_norm("cn", c, 8, 1e-5).unwrap();
    let cat = b.node("cat", Op::Concat { axis: 1 }, &[a, cn], &[]).unwrap();
    // Groups of 3, beside pairs of `a`: channels of `a` go by six; 12 to 15 are joined with 0 and 1 of `c`.
    let n = b.group_norm("norm", cat, 8, 1e-5).unwrap();
    let y = conv(&mut b, "head", n, 2, 1);
    b.output("y", y);
    let graph = b.finish().unwrap();
    let groups = channel_groups(&graph).unwrap();
    let [a, c] = groups.as_slice() else { panic!("{groups:?}") };
    let runs = |g: &ChannelGroup| {
        let bundles = g.bundles.as_ref().unwrap();
        bundles.chunk_by(|x, y| x == y).map(|r| (r.len(), r[0].is_some())).collect::<Vec<_>>()
    };
    assert_eq!(runs(a), [(6, true), (6, true), (4, false)]);
    assert_eq!(runs(c), [(2, false), (3, true), (3, true)]);
    let listed = coupled_groups(&graph).unwrap();
    let ways: Vec<Granularity> =
        listed.iter().filter(|g| g.locked.is_none()).map(|g| g.granularity).collect();
    assert_eq!(
        ways,
        [Granularity::NormGroup { bundles: 2, stay: 4 }, Granularity::NormGroup { bundles: 2, stay: 2 }]
    );
    assert!(listed.iter().all(|g| g.tied.is_empty()));
    let kept = BTreeMap::from([(0, (6..16).collect()), (1, vec![0, 1, 5, 6, 7])]);
    let (edited, _) = apply(&graph, &keep_edits(&graph, &groups, &kept)).unwrap();
    let norm = |n: &str| match edited.node(edited.find_node(n).unwrap()).op {
        Op::GroupNorm { groups, .. } => groups,
        _ => 0,
    };
    assert_eq!((norm("an"), norm("cn"), norm("norm")), (5, 5, 5));
}
