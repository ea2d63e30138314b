//! Random cuts of generated networks: valid, and equal to the masked network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "masks/nets.rs"]
mod nets;

mod masks;
mod seeded;

use std::collections::BTreeSet;

use masks::{gap, held, outputs, random_cut, run_cut, run_masked};
use nets::generated;
use pomona_exec::{Device, Feeds, Tensor};
use pomona_graph::{Granularity, Graph, GraphError, apply, channel_groups, coupled_groups};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn feeds(graph: &Graph) -> Feeds {
    let x = graph.inputs[0].value;
    let shape: Vec<usize> = graph.value(x).shape.iter().map(|d| d.size("x").unwrap()).collect();
    let values = seeded::uniform("x", shape.iter().product());
    Feeds::from([(x, Tensor::from_f32(values, &shape, &Device::cpu()).unwrap())])
}

/// Cuts a network in some ways; an error where the cut one is not the masked one.
fn check(graph: &Graph, seeds: &[u64]) -> Result<usize, TestCaseError> {
    let weights = held(graph, seeded::weight);
    let groups = channel_groups(graph).unwrap();
    let feeds = feeds(graph);
    let mut made = 0;
    if groups.is_empty() {
        return Ok(0);
    }
    // Without a cut the masked network is the network.
    let (whole, recipe) = apply(graph, &[]).unwrap();
    let dense = outputs(graph, &weights, &feeds);
    prop_assert_eq!(gap(&dense, &run_masked(graph, &weights, (&whole, &recipe), &feeds)), 0.0);
    for seed in seeds {
        let edits = random_cut(graph, &groups, &mut ChaCha8Rng::seed_from_u64(*seed));
        let (edited, recipe) = match apply(graph, &edits) {
            Ok(found) => found,
            Err(GraphError::Edit { .. }) => continue,
            Err(e) => return Err(TestCaseError::fail(format!("{edits:?}: {e}"))),
        };
        edited.validate().map_err(|e| TestCaseError::fail(format!("{edits:?}: {e}")))?;
        let cut = run_cut(graph, &weights, (&edited, &recipe), &feeds);
        let masked = run_masked(graph, &weights, (&edited, &recipe), &feeds);
        let apart = gap(&masked, &cut);
        prop_assert!(apart < 1.0, "{:?}: {} times what may differ", edits, apart);
        made += usize::from(!edits.is_empty());
    }
    Ok(made)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cut_pictures_equal_masked_ones(
        image in prop::collection::vec(any::<u8>(), 1..7),
        seeds in prop::collection::vec(any::<u64>(), 3),
    ) {
        check(&generated(&image, &[]), &seeds)?;
    }

    #[test]
    fn cut_sequences_equal_masked_ones(
        image in prop::collection::vec(any::<u8>(), 0..3),
        tokens in prop::collection::vec(any::<u8>(), 1..5),
        seeds in prop::collection::vec(any::<u64>(), 3),
    ) {
        check(&generated(&image, &tokens), &seeds)?;
    }

    /// The list of groups parts every index of every tensor, and agrees with what can be cut.
    #[test]
    fn the_list_of_groups_is_complete(
        image in prop::collection::vec(any::<u8>(), 0..5),
        tokens in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let graph = generated(&image, &tokens);
        let groups = coupled_groups(&graph).unwrap();
        let indices: usize = groups.iter().flat_map(|g| &g.members).map(|m| m.indices).sum();
        prop_assert_eq!(indices, graph.tensors.iter().map(|t| t.shape.iter().sum::<usize>()).sum::<usize>());
        let names: BTreeSet<&str> = groups.iter().map(|g| g.name.as_str()).collect();
        prop_assert_eq!(names.len(), groups.len());
        let by_channel = |g: &&pomona_graph::CoupledGroup| {
            g.locked.is_none() && !matches!(g.granularity, Granularity::Head { .. })
        };
        let listed: usize = groups.iter().filter(by_channel).map(|g| g.len).sum();
        let cut = channel_groups(&graph).unwrap();
        let single = |g: &&pomona_graph::ChannelGroup| {
            g.members.iter().all(|m| graph.tensor(m.tensor).shape[m.axis] == 1)
        };
        prop_assert_eq!(listed, cut.iter().filter(|g| !single(g)).map(|g| g.len).sum::<usize>());
    }
}

/// Each kind of block and layer alone, so that a failure names it.
#[test]
fn every_kind_of_block_by_itself() {
    let mut made = 0;
    for s in 0..=255_u8 {
        made += check(&generated(&[s], &[]), &[1, 2]).unwrap_or_else(|e| panic!("block {s}: {e}"));
        made += check(&generated(&[], &[s]), &[1, 2]).unwrap_or_else(|e| panic!("layer {s}: {e}"));
    }
    assert!(made > 900, "{made} of 1024 cuts were made");
}
