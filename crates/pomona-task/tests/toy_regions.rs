//! Parts of the toy U-Net taken out: what is left gives what the whole gives with the parts masked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod masks;
mod seeded;

use masks::{Held, gap, held, outputs, run_cut, run_masked};
use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Edit, Graph, ValueRef, apply, region_at, toys, why_not};

fn network() -> (Graph, Held, Feeds) {
    let graph = toys::unet(&toys::UnetSizes::default()).unwrap();
    let mut feeds = Feeds::default();
    for port in &graph.inputs {
        let shape: Vec<usize> =
            graph.value(port.value).shape.iter().map(|d| d.size(&port.name).unwrap()).collect();
        let values = seeded::uniform(&format!("input:{}", port.name), shape.iter().product());
        feeds.insert(port.value, Tensor::from_f32(values, &shape, &Device::cpu()).unwrap());
    }
    let weights = held(&graph, seeded::weight);
    (graph, weights, feeds)
}

/// Masked: weights that went are zero, and a bypassed value is fed with the one that takes its place.
fn check(edits: &[Edit]) {
    let (graph, weights, mut feeds) = network();
    let (edited, recipe) = apply(&graph, edits).unwrap();
    edited.validate().unwrap();
    let dense = outputs(&graph, &weights, &feeds);
    let cut = run_cut(&graph, &weights, (&edited, &recipe), &feeds);
    let mut bypasses: Vec<(usize, &ValueRef, &ValueRef)> = edits
        .iter()
        .filter_map(|e| match e {
            Edit::Bypass { from, to } => Some((graph.find_node(&to.0).unwrap().0 as usize, from, to)),
            _ => None,
        })
        .collect();
    bypasses.sort_by_key(|b| b.0);
    for (_, from, to) in bypasses {
        let from = graph.resolve(from).unwrap();
        let value = evaluate(&graph, &weights, &feeds, &[from], &Options::default()).unwrap().remove(0);
        feeds.insert(graph.resolve(to).unwrap(), value);
    }
    let masked = run_masked(&graph, &weights, (&edited, &recipe), &feeds);
    assert!(gap(&masked, &cut) < 1.0, "{} times what may differ: {edits:?}", gap(&masked, &cut));
    assert!(gap(&dense, &cut) > 1.0, "nothing changed: {edits:?}");
}

fn part(path: &str) -> Vec<Edit> {
    let (graph, ..) = network();
    region_at(&graph, path).unwrap_or_else(|| panic!("{path}: {:?}", why_not(&graph, path))).edits()
}

#[test]
fn a_resnet() {
    check(&part("down_blocks.0.resnets.1"));
    check(&part("down_blocks.1.resnets.1"));
    check(&part("mid_block.resnets.0"));
}

#[test]
fn an_attention() {
    for path in ["down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.0.attentions.2"] {
        check(&part(path));
    }
}

#[test]
fn the_middle_block() {
    check(&part("mid_block"));
}

#[test]
fn the_whole_inner_level() {
    check(&part("down_blocks.0.downsamplers.0.conv..up_blocks.0.attentions.2.residual"));
}

#[test]
fn a_level_whose_skips_are_joined_further_on() {
    check(&part("down_blocks.1"));
}

#[test]
fn a_skip() {
    check(&[Edit::DropOperand { node: "up_blocks.0.resnets.1.concat".to_owned(), index: 1 }]);
}

#[test]
fn several_parts_at_once() {
    let parts =
        ["down_blocks.0.resnets.1", "down_blocks.1.attentions.1", "mid_block", "up_blocks.0.attentions.0"];
    check(&parts.map(part).concat());
    let mut both = part("down_blocks.1.attentions.0");
    both.push(Edit::DropOperand { node: "up_blocks.0.resnets.1.concat".to_owned(), index: 1 });
    // Behind the part that goes: what the masked run feeds there is made by whole weights.
    let group = "up_blocks.1.resnets.2.conv1.weight:0".to_owned();
    both.push(Edit::Keep { group, indices: vec![0, 3] });
    check(&both);
}
