//! Cut Inner Layers on the pix2pix U-Net-256: the specification's whole table, cuts against masks, the sweep.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod nets;

use std::time::Duration;

use nets::*;
use pomona_exec::Device;
use pomona_graph::*;
use pomona_prune::criteria::filters::{Aggregate, FilterCriterion};
use pomona_prune::methods::filters::{Scoring, open_groups, score};
use pomona_prune::methods::inner_layers::{Cut, Planning, Share, plan};
use pomona_prune::{
    DataId, FilterScores, FilterSettings, Goal, LadderOptions, Sample, Sweep, drop_levels, group_levels,
    report, sweep,
};

fn scores(graph: &Graph, weights: &Seeded, criterion: FilterCriterion) -> FilterScores {
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
    let settings = FilterSettings {
        criterion,
        aggregate: Aggregate::Makers,
        samples: 0,
        seed: 7,
        unit: pomona_prune::ScoredUnit::Channels,
        gamma: None,
    };
    score(&on, &settings, None, &mut |_, _| Ok(())).unwrap()
}

fn none() -> Seeded {
    Seeded(pomona_exec::Loaded::default())
}

fn planned(graph: &Graph, drop: usize, cut: Option<Cut<'_>>) -> Plan {
    let on = Planning { graph, drop, cut, device: None, fingerprint: "f", component: None, tool: "t" };
    plan(&on).unwrap_or_else(|e| panic!("{e}"))
}

fn cost(graph: &Graph, plan: &Plan) -> (u64, u64, u64) {
    let r = report(&apply(graph, &plan.edits).unwrap().0).unwrap();
    (r.parameters, r.macs.full, r.macs.thop)
}

#[test]
fn the_dense_network_is_the_specification_s() {
    let graph = pix2pix(8, 64, 256);
    let r = report(&graph).unwrap();
    assert_eq!(r.parameters, 54_413_955);
    assert_eq!((giga(r.macs.full, 3), giga(r.macs.thop, 3)), (6.048, 18.140));
}

fn giga(macs: u64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (macs as f64 / 1e9 * unit).round() / unit
}

#[test]
fn innermost_levels_go_with_the_published_counts() {
    let graph = pix2pix(8, 64, 256);
    let table = [
        (1, 41_828_995, 6.02, 18.05),
        (2, 29_244_035, 5.92, 17.70),
        (3, 16_659_075, 5.52, 16.29),
        (4, 6_171_267, 4.45, 12.80),
    ];
    for (drop, parameters, full, thop) in table {
        let found = cost(&graph, &planned(&graph, drop, None));
        assert_eq!((found.0, giga(found.1, 2), giga(found.2, 2)), (parameters, full, thop), "{drop} levels");
        // A network of fewer levels is the same network.
        let shallow = apply(&graph, &drop_levels(&graph, drop).unwrap()).unwrap().0;
        let built = report(&pix2pix(8 - drop, 64, 256)).unwrap();
        assert_eq!((built.parameters, built.macs), (found.0, report(&shallow).unwrap().macs));
        assert!(shallow.find_node(&format!("down{}.norm", 8 - drop)).is_none());
    }
    let message = drop_levels(&graph, 9).unwrap_err().to_string();
    assert!(message.contains("7 inner levels that can be taken out, 9 were asked for"), "{message}");
}

#[test]
fn filters_of_inner_levels_go_with_the_published_counts() {
    let graph = pix2pix(8, 64, 256);
    let s = scores(&graph, &none(), FilterCriterion::Random);
    let table: [(usize, f64, u64, f64, Option<f64>); 9] = [
        (4, 0.25, 32_653_955, 5.18, Some(15.54)),
        (4, 0.50, 16_661_123, 4.44, Some(13.33)),
        (4, 0.75, 6_435_459, 3.84, Some(11.52)),
        (5, 0.25, 36_586_627, 5.73, None),
        (5, 0.50, 22_953_603, 5.45, None),
        (5, 0.75, 13_514_883, 5.20, None),
        (6, 0.25, 42_092_163, 5.97, None),
        (6, 0.50, 32_391_811, 5.90, None),
        (6, 0.75, 25_312_899, 5.84, None),
    ];
    for (from, ratio, parameters, full, thop) in table {
        let cut = Cut { scores: &s, limits: LadderOptions::default(), from, share: Share::Ratio(ratio) };
        let found = cost(&graph, &planned(&graph, 0, Some(cut)));
        assert_eq!((found.0, giga(found.1, 2)), (parameters, full), "level {from} on, {ratio}");
        if let Some(thop) = thop {
            assert_eq!(giga(found.2, 2), thop, "level {from} on, {ratio}");
        }
    }
}

#[test]
fn a_goal_is_met_from_the_inside_out() {
    let graph = pix2pix(8, 64, 256);
    let s = scores(&graph, &none(), FilterCriterion::Random);
    let goal: Goal = "params=60%".parse().unwrap();
    let limits = LadderOptions { max_ratio: 0.75, ..Default::default() };
    let p = planned(&graph, 0, Some(Cut { scores: &s, limits, from: 3, share: Share::Target(&goal) }));
    let share = p.after.parameters as f64 / p.before.parameters as f64;
    assert!(share <= 0.6 && share > 0.599, "{share}");
    let groups = open_groups(&graph).unwrap();
    let levels = group_levels(&graph, &groups).unwrap();
    let mut lost = [0.0_f64; 9];
    for e in &p.edits {
        let Edit::Keep { group, indices } = e else { panic!("{e:?}") };
        let g = groups.iter().position(|g| g.name == *group).unwrap();
        let level = levels[g].unwrap();
        lost[level] = lost[level].max(1.0 - indices.len() as f64 / groups[g].len as f64);
    }
    let outermost = lost.iter().position(|l| *l > 0.0).unwrap();
    assert!(outermost >= 3);
    assert!(lost[outermost + 1..].iter().all(|l| *l == 0.75), "{lost:?}");
}

#[test]
fn cut_and_shallow_networks_equal_masked_ones() {
    let graph = pix2pix(5, 4, 32);
    let (weights, x) = (seeded(&graph, 5), feeds(&graph, 6));
    let s = scores(&graph, &weights, FilterCriterion::L1);
    for (drop, from, ratio) in [(0, 3, 0.5), (0, 1, 0.75), (1, 2, 0.5), (2, 1, 0.25)] {
        let cut = Cut { scores: &s, limits: LadderOptions::default(), from, share: Share::Ratio(ratio) };
        let p = planned(&graph, drop, Some(cut));
        let pruned = run_cut(&graph, &weights, &x, &p.edits);
        // The shallow network by its own weights, then masked: dropping an operand is masking it, but for the norm.
        let (shallow, recipe) = apply(&graph, &drop_levels(&graph, drop).unwrap()).unwrap();
        let own = pomona_task::EditedWeights::new(&graph, &weights, (&shallow, &recipe), &Device::cpu());
        let groups = open_groups(&shallow).unwrap();
        let mut kept = std::collections::BTreeMap::new();
        for e in &p.edits {
            if let Edit::Keep { group, indices } = e {
                let g = groups.iter().position(|g| g.name == *group).unwrap();
                assert_eq!(groups[g].members[0].channel.len(), groups[g].len);
                kept.insert(g, indices.clone());
            }
        }
        let fed = pomona_exec::Feeds::from([(shallow.inputs[0].value, x.values().next().unwrap().clone())]);
        let masked = run_masked(&shallow, &own, &fed, &groups, &kept);
        assert!(!kept.is_empty() && gap(&masked, &pruned) < 1.0, "{drop} {from} {ratio}");
    }
}

#[test]
fn a_level_that_is_taken_out_is_a_masked_operand_without_its_norm() {
    let graph = pix2pix(4, 4, 32);
    let (weights, x) = (seeded(&graph, 5), feeds(&graph, 6));
    let edits = drop_levels(&graph, 1).unwrap();
    let pruned = run_cut(&graph, &weights, &x, &edits);
    // By hand: the new innermost value is the bare convolution, and what came from within is zero.
    let options = pomona_exec::Options::default();
    let value = |name: &str| graph.resolve(&ValueRef(name.to_owned())).unwrap();
    let bare =
        pomona_exec::evaluate(&graph, &weights, &x, &[value("down3.conv")], &options).unwrap().remove(0);
    let within = pomona_exec::Tensor::full(0.0, bare.shape(), &Device::cpu()).unwrap();
    let joined = pomona_exec::Tensor::concat(&[bare, within], 1).unwrap();
    let mut fed = x.clone();
    fed.insert(value("up4.cat"), joined);
    assert!(gap(&run(&graph, &weights, &fed), &pruned) < 1.0);
    assert!(gap(&run(&graph, &weights, &x), &pruned) > 10.0);
}

#[test]
fn the_sweep_goes_on_where_it_stopped_and_measures_more_for_larger_cuts() {
    let graph = pix2pix(5, 4, 32);
    let weights = seeded(&graph, 5);
    let s = scores(&graph, &weights, FilterCriterion::L1);
    let samples: Vec<Sample> = (0..2)
        .map(|seed| Sample::from([("x".to_owned(), feeds(&graph, seed).into_values().next().unwrap())]))
        .collect();
    let on = Sweep {
        graph: &graph,
        weights: &weights,
        scores: &s,
        samples: &samples,
        data: DataId { fingerprint: "d".into(), source: "noise".into() },
        device: &Device::cpu(),
    };
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole.json"), dir.path().join("parts.json"));
    let ratios = [0.25, 0.75];
    let found = sweep(&on, &ratios, Some(&whole), &mut |_, _| Ok(())).unwrap();
    // Five widths down and four up; the last way up makes the output.
    assert_eq!(found.rows.len(), 9 * 2);
    assert_eq!(found.layers()[0], ("down1.conv", Some(1)));
    let grows = found.rows.chunks(2).filter(|r| r[1].l1 > r[0].l1).count();
    assert!(grows >= 8, "{grows} of 9 layers hurt more when cut more");
    let sound = |r: &pomona_prune::SensitivityRow| r.ssim.is_some_and(|s| s < 1.0) && r.psnr.is_some();
    assert!(found.rows.iter().all(sound));
    let mut left = 5;
    let stopped = sweep(&on, &ratios, Some(&parts), &mut |_, _| {
        left -= 1;
        if left == 0 { Err(pomona_prune::PruneError::Unfit("stop".into())) } else { Ok(()) }
    });
    assert!(stopped.is_err());
    sweep(&on, &ratios, Some(&parts), &mut |_, _| Ok(())).unwrap();
    assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&parts).unwrap());
    let message = sweep(&on, &[0.5], Some(&parts), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(message.contains("another sweep"), "{message}");
}
