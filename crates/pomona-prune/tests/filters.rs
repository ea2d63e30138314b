//! Filter plans: a cut network gives what the masked one gives, and targets are met with the smallest cut.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod nets;

use std::collections::BTreeMap;
use std::time::Duration;

use nets::*;
use pomona_exec::Device;
use pomona_graph::*;
use pomona_prune::criteria::filters::{Aggregate, FilterCriterion};
use pomona_prune::methods::filters::{Choice, Planning, Scoring, open_groups, plan, score};
use pomona_prune::{FilterScores, FilterSettings, Fit, Goal, LadderOptions, Order, ScoredUnit};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn settings(criterion: FilterCriterion) -> FilterSettings {
    FilterSettings {
        criterion,
        aggregate: Aggregate::Normalised,
        samples: 0,
        seed: 7,
        unit: ScoredUnit::Channels,
        gamma: None,
    }
}

fn scores(graph: &Graph, weights: &Seeded, settings: &FilterSettings) -> FilterScores {
    let on = Scoring {
        graph,
        weights,
        objective: None,
        device: &Device::cpu(),
        fingerprint: "f",
        component: None,
        tool: "t",
        at_once: 1,
        save_every: Duration::ZERO,
    };
    score(&on, settings, None, &mut |_, _| Ok(())).unwrap()
}

fn planned(graph: &Graph, scores: &FilterScores, limits: LadderOptions, choice: Choice<'_>) -> Plan {
    let on = Planning {
        graph,
        scores,
        limits,
        choice,
        fit: Fit::AtMost,
        method: "filters",
        device: None,
        fingerprint: "f",
        component: None,
        tool: "t",
    };
    plan(&on).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn random_cuts_equal_masks() {
    for (graph, cuts) in [(resnet(), 150), (residual(true), 150), (pix2pix(5, 4, 32), 60)] {
        let (weights, x) = (seeded(&graph, 1), feeds(&graph, 2));
        let groups = open_groups(&graph).unwrap();
        let dense = run(&graph, &weights, &x);
        let mut moved = 0;
        for cut in 0..cuts {
            let mut rng = ChaCha8Rng::seed_from_u64(cut);
            let mut kept = BTreeMap::new();
            for (g, group) in groups.iter().enumerate().filter(|(_, g)| g.len > 1) {
                if rng.random_range(0..3) > 0 {
                    let mut all: Vec<u32> = (0..group.len as u32).collect();
                    all.shuffle(&mut rng);
                    all.truncate(rng.random_range(1..group.len));
                    all.sort_unstable();
                    kept.insert(g, all);
                }
            }
            let pruned = run_cut(&graph, &weights, &x, &keep_edits(&graph, &groups, &kept));
            let masked = run_masked(&graph, &weights, &x, &groups, &kept);
            assert!(gap(&masked, &pruned) < 1.0, "cut {cut}: {}", gap(&masked, &pruned));
            moved += usize::from(gap(&dense, &pruned) > 10.0);
        }
        assert!(moved > cuts as usize / 2, "the cuts must change something: {moved}");
    }
}

#[test]
fn every_data_free_criterion_plans_and_keeps_the_highest_scores() {
    let graph = resnet();
    let weights = seeded(&graph, 3);
    for criterion in FilterCriterion::ALL.into_iter().filter(|c| {
        !c.needs_loss() && !c.name().contains("snp") && c.name() != "attention" && c.name() != "redundancy"
    }) {
        let s = scores(&graph, &weights, &settings(criterion));
        let ratios = [("*".to_owned(), 0.5)];
        let p = planned(&graph, &s, LadderOptions::default(), Choice::Ratios(&ratios, None));
        assert_eq!(p.edits.len(), open_groups(&graph).unwrap().len(), "{criterion:?}");
        for edit in &p.edits {
            let Edit::Keep { group, indices } = edit else { panic!("{edit:?}") };
            let found = s.of(group, indices.len() * 2).unwrap();
            let lowest_kept = indices.iter().map(|i| found[*i as usize]).fold(f64::INFINITY, f64::min);
            let gone = (0..found.len() as u32).filter(|i| !indices.contains(i));
            let highest_gone = gone.map(|i| found[i as usize]).fold(f64::NEG_INFINITY, f64::max);
            assert!(lowest_kept >= highest_gone, "{criterion:?} {group}");
        }
    }
}

#[test]
fn l1_of_makers_is_the_sum_of_each_filter() {
    let graph = resnet();
    let weights = seeded(&graph, 3);
    let by = FilterSettings { aggregate: Aggregate::Makers, ..settings(FilterCriterion::L1) };
    let s = scores(&graph, &weights, &by);
    let name = "layers.1.conv1.weight";
    let id = graph.find_tensor(name).unwrap();
    // The depthwise filters behind it are made by the same group.
    let dw = graph.find_tensor("layers.1.dw.weight").unwrap();
    let sums = |id: TensorId| -> Vec<f64> {
        let v = weights.0.0[&id].to_f32().unwrap();
        v.chunks(v.len() / 16).map(|f| f.iter().map(|w| f64::from(w.abs())).sum()).collect()
    };
    let expected: Vec<f64> = sums(id).iter().zip(sums(dw)).map(|(a, b)| a + b).collect();
    let found = s.of(&format!("{name}:0"), 16).unwrap();
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
    let reverse = scores(&graph, &weights, &FilterSettings { criterion: FilterCriterion::Reverse, ..by });
    let of = reverse.of(&format!("{name}:0"), 16).unwrap();
    assert!(of.iter().zip(found).all(|(a, b)| a == &-b));
}

#[test]
fn targets_are_met_with_the_smallest_cut() {
    let graph = resnet();
    let s = scores(&graph, &seeded(&graph, 3), &settings(FilterCriterion::L2));
    for order in [Order::Uniform, Order::Global] {
        for goal in ["params=60%", "macs=50%", "memory=4000"] {
            let goal: Goal = goal.parse().unwrap();
            let p = planned(&graph, &s, LadderOptions::default(), Choice::Target(&goal, order));
            let (bound, reached) = match goal {
                Goal::Params(a) => (a.bound(p.before.parameters as f64), p.after.parameters as f64),
                Goal::Macs(a) => (a.bound(p.before.macs as f64), p.after.macs as f64),
                _ => (4000.0, p.after.weight_bytes as f64),
            };
            assert!(reached <= bound, "{goal} {order:?}: {reached} > {bound}");
            // The step before it is one channel of a group, or one share of all.
            assert!(reached > bound * 0.8, "{goal} {order:?}: {reached} is far below {bound}");
        }
    }
}

#[test]
fn rounding_protection_and_impossible_targets() {
    let graph = resnet();
    let s = scores(&graph, &seeded(&graph, 3), &settings(FilterCriterion::L1));
    let limits = LadderOptions { round: 8, protect: vec!["layers.2.conv1".to_owned()], ..Default::default() };
    let ratios = [("*".to_owned(), 0.6)];
    let p = planned(&graph, &s, limits.clone(), Choice::Ratios(&ratios, None));
    let kept: Vec<(&str, usize)> = p
        .edits
        .iter()
        .map(|e| match e {
            Edit::Keep { group, indices } => (group.as_str(), indices.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    // Groups of 8 would round to nothing; those of 16 keep 8.
    assert_eq!(kept, [("layers.1.conv1.weight:0", 8), ("layers.1.conv2.weight:0", 8)]);
    let on = |limits, goal: &str| {
        let goal: Goal = goal.parse().unwrap();
        let choice = Choice::Target(&goal, Order::Uniform);
        let on = Planning {
            graph: &graph,
            scores: &s,
            limits,
            choice,
            fit: Fit::AtMost,
            method: "filters",
            device: None,
            fingerprint: "f",
            component: None,
            tool: "t",
        };
        plan(&on).unwrap_err().to_string()
    };
    let message = on(limits.clone(), "params=1%");
    assert!(message.contains("params=1% cannot be reached") && message.contains("is left"), "{message}");
    let message = on(LadderOptions { protect: vec!["nowhere".to_owned()], ..limits }, "params=90%");
    assert!(message.contains("`nowhere` is in no group"), "{message}");
    assert!(on(LadderOptions::default(), "blocks=2").contains("--method depth"));
}

#[test]
fn an_interrupted_run_ends_with_the_same_file() {
    let graph = resnet();
    let weights = seeded(&graph, 3);
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole.json"), dir.path().join("parts.json"));
    let on = Scoring {
        graph: &graph,
        weights: &weights,
        objective: None,
        device: &Device::cpu(),
        fingerprint: "f",
        component: None,
        tool: "t",
        at_once: 1,
        save_every: Duration::ZERO,
    };
    let by = settings(FilterCriterion::GeometricMedian);
    score(&on, &by, Some(&whole), &mut |_, _| Ok(())).unwrap();
    let mut left = 3;
    let stop = score(&on, &by, Some(&parts), &mut |_, _| {
        left -= 1;
        if left == 0 { Err(pomona_prune::PruneError::Unfit("stop".into())) } else { Ok(()) }
    });
    assert!(stop.is_err());
    let kept = FilterScores::read(&parts).unwrap();
    assert!(!kept.complete && kept.groups.len() == 3, "{}", kept.groups.len());
    score(&on, &by, Some(&parts), &mut |_, _| Ok(())).unwrap();
    assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&parts).unwrap());
    let other = FilterSettings { seed: 8, ..by };
    let message = score(&on, &other, Some(&parts), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(message.contains("other settings"), "{message}");
}
