//! Depth pruning: whole blocks, or their sublayers, in the order of a criterion (Shortened LLaMA, 2024).
//!
//! Scores are static by default: every part is scored in the whole model and the least important ones go at once. With
//! `iterative`, the rest is scored again after each removal. The first four and last two blocks stay by default.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use pomona_cost::{CostReport, Device as CostDevice};
use pomona_graph::{Edit, Graph, PLAN_VERSION, Plan, Target, apply};
use pomona_task::Weights;

pub use crate::budget::report;
use crate::budget::{bound, measure, shown};
use crate::criteria::{
    Criterion, Journal, block_influence, magnitude, perplexity, random, screened_perplexity, taylor,
};
use crate::error::{PruneError, Result};
use crate::scores::{
    DataId, Group, Keeper, Part, Round, SCORES_VERSION, Scores, Settings, is_protected, pack, unpack,
};
use crate::sweep::{Chain, SweepLosses};
use crate::target::Goal;
use crate::unit::{Unit, units};
use crate::work::WorkFiles;

/// Blocks at the beginning and end that the paper never removes.
pub const PROTECTED: [usize; 2] = [4, 2];

/// What a scoring run works on.
pub struct Scoring<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Its weights.
    pub weights: &'a dyn Weights,
    /// Calibration; none for data-free criteria.
    pub objective: Option<&'a dyn pomona_task::Objective>,
    /// Where it runs.
    pub device: &'a pomona_exec::Device,
    /// Fingerprint of the model.
    pub fingerprint: &'a str,
    /// The program, with its version.
    pub tool: &'a str,
    /// Samples that run together.
    pub group: usize,
    /// The state of an unfinished run is kept at most this often, and seldom enough to take little time.
    pub save_every: Duration,
}

/// Steps done and steps in all, for a progress bar; an error stops the run, which keeps what it has.
pub type Progress<'p> = dyn FnMut(usize, usize) -> Result<()> + 'p;

/// Scores parts. Where `out` holds an unfinished run with the same settings, model and data, it is continued.
pub fn score(
    on: &Scoring<'_>,
    settings: &Settings,
    out: Option<&Path>,
    progress: &mut Progress<'_>,
) -> Result<Scores> {
    let (units, blocks) = units(on.graph, settings.unit)?;
    let fresh = Scores {
        version: SCORES_VERSION,
        tool: on.tool.to_owned(),
        fingerprint: on.fingerprint.to_owned(),
        settings: settings.clone(),
        data: on.objective.map(|o| DataId { fingerprint: o.fingerprint(), source: o.source() }),
        dense: None,
        parts: units.iter().map(part).collect(),
        rounds: Vec::new(),
        complete: false,
        partial: Vec::new(),
    };
    let scores = match out.filter(|p| p.exists()) {
        Some(path) => continued(path, fresh)?,
        None => fresh,
    };
    let work = out.map(|path| WorkFiles::beside(path, identity(&scores), on.save_every));
    let mut keeper = Keeper { scores, path: out.map(Path::to_owned) };
    if !keeper.scores.complete {
        // Before any work: a place that cannot be written to is told at once.
        keeper.save()?;
        measure_parts(on, settings, &units, blocks, &mut keeper, work.as_ref(), progress)?;
        keeper.scores.complete = true;
        keeper.scores.partial.clear();
        keeper.save()?;
    }
    if let Some(work) = &work {
        work.clear();
    }
    Ok(keeper.scores)
}

/// What must be equal for the state of an interrupted run to be of use.
fn identity(scores: &Scores) -> String {
    let data = scores.data.as_ref().map(|d| &d.fingerprint);
    let all = (&scores.tool, &scores.fingerprint, &scores.settings, data, SCORES_VERSION);
    blake3::hash(format!("{all:?}").as_bytes()).to_hex().to_string()
}

fn measure_parts(
    on: &Scoring<'_>,
    settings: &Settings,
    units: &[Unit],
    blocks: usize,
    keeper: &mut Keeper,
    work: Option<&WorkFiles>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let free: Vec<usize> =
        (0..units.len()).filter(|j| !is_protected(units[*j].block, blocks, settings.protect)).collect();
    let rounds = settings.iterative.map_or(0, |n| n.min(free.len().saturating_sub(1)));
    let finished = keeper.scores.rounds.len().min(rounds);
    let mut run = Run { on, settings, units, keeper, work, progress, done: 0, total: 0 };
    run.total = run.steps(&free, rounds);
    run.done = if finished == 0 { 0 } else { run.steps(&free, finished) };
    if rounds == 0 { run.one_pass() } else { run.iterate(&free, rounds) }
}

fn part(unit: &Unit) -> Part {
    Part {
        path: unit.region.path.clone(),
        block: unit.block,
        parameters: unit.region.parameters,
        score: None,
    }
}

/// The file's scores where they belong to this work; the reason where they do not.
fn continued(path: &Path, fresh: Scores) -> Result<Scores> {
    let found = Scores::read(path)?;
    let fail = |what: &str| {
        let message = format!("was made {what}: choose another file, or remove it to score anew");
        Err(PruneError::Scores { path: path.to_owned(), message })
    };
    if found.fingerprint != fresh.fingerprint {
        return fail("for another model (its fingerprint differs)");
    }
    if found.settings != fresh.settings {
        return fail(&format!("with other settings ({})", differing(&found.settings, &fresh.settings)));
    }
    if found.data.as_ref().map(|d| &d.fingerprint) != fresh.data.as_ref().map(|d| &d.fingerprint) {
        return fail("on other calibration data");
    }
    if found.tool != fresh.tool {
        return fail(&format!("by another version ({}, this is {})", found.tool, fresh.tool));
    }
    Ok(found)
}

/// `protect [1,1], not [4,2]` for each setting that differs.
fn differing(found: &Settings, asked: &Settings) -> String {
    let map = |s: &Settings| match serde_json::to_value(s) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (found, asked) = (map(found), map(asked));
    let keys: std::collections::BTreeSet<&String> = found.keys().chain(asked.keys()).collect();
    let show = |v: Option<&serde_json::Value>| v.map_or("none".to_owned(), ToString::to_string);
    let all = keys.into_iter().filter(|k| found.get(*k) != asked.get(*k));
    all.map(|k| format!("{k} {}, not {}", show(found.get(k)), show(asked.get(k))))
        .collect::<Vec<_>>()
        .join("; ")
}

struct Run<'r, 'a, 'p> {
    on: &'r Scoring<'a>,
    settings: &'r Settings,
    units: &'r [Unit],
    keeper: &'r mut Keeper,
    work: Option<&'r WorkFiles>,
    progress: &'r mut Progress<'p>,
    done: usize,
    total: usize,
}

impl Run<'_, '_, '_> {
    /// Part executions of the whole run, as far as they can be told before it.
    fn steps(&self, free: &[usize], rounds: usize) -> usize {
        let samples = self.on.objective.map_or(1, pomona_task::Objective::samples);
        let groups = samples.div_ceil(self.on.group.max(1));
        let n = self.units.len();
        let pass = |left: usize, candidates: usize| match self.settings.criterion {
            Criterion::Perplexity => groups * (candidates * left / 2 + left),
            Criterion::Taylor => 3 * left,
            Criterion::BlockInfluence => groups * left,
            Criterion::Magnitude | Criterion::Random => candidates,
        };
        if rounds == 0 { pass(n, n) } else { (0..rounds).map(|r| pass(n - r, free.len() - r)).sum() }
    }

    fn scores_of(&mut self, removed: &[bool], candidates: &[usize]) -> Result<(Option<f64>, Vec<f64>)> {
        let (group, settings) = (self.on.group, self.settings.clone());
        let (on, units) = (self.on, self.units);
        if settings.criterion == Criterion::Random {
            let all = random(units.len(), settings.seed);
            return Ok((None, candidates.iter().map(|j| all[*j]).collect()));
        }
        if settings.criterion == Criterion::Magnitude {
            return Ok((None, self.magnitudes(candidates)?));
        }
        let objective = on.objective.ok_or_else(|| {
            PruneError::Unfit(format!("criterion {} needs calibration data", settings.criterion.name()))
        })?;
        let chain = Chain {
            graph: on.graph,
            weights: on.weights,
            objective,
            device: on.device,
            units,
            work: self.work,
        };
        match settings.criterion {
            Criterion::Perplexity => {
                let mut journal = Sweeps { run: self, removed };
                let found = match settings.screen {
                    Some(keep) => screened_perplexity(&chain, removed, candidates, keep, &mut journal)?,
                    None => perplexity(&chain, removed, candidates, group, &mut journal)?,
                };
                Ok((Some(found.dense), found.without))
            }
            Criterion::Taylor => {
                Ok((None, taylor(&chain, removed, candidates, group, &mut |n| self.step(n))?))
            }
            _ => {
                let mut journal = Sweeps { run: self, removed };
                Ok((None, block_influence(&chain, removed, candidates, group, &mut journal)?))
            }
        }
    }

    /// Magnitudes depend on nothing else: what an interrupted run or an earlier round measured stays.
    fn magnitudes(&mut self, candidates: &[usize]) -> Result<Vec<f64>> {
        let mut found = Vec::with_capacity(candidates.len());
        let mut saved = Instant::now();
        for &j in candidates {
            if self.keeper.scores.parts[j].score.is_none() {
                let score: f64 =
                    magnitude(self.units, self.on.weights, &[j], &mut |_| Ok(()))?.into_iter().sum();
                self.keeper.scores.parts[j].score = Some(finite(&self.units[j].region.path, score)?);
                if saved.elapsed() >= self.on.save_every {
                    self.keeper.save()?;
                    saved = Instant::now();
                }
            }
            found.extend(self.keeper.scores.parts[j].score);
            self.step(1)?;
        }
        Ok(found)
    }

    fn step(&mut self, n: usize) -> Result<()> {
        self.done += n;
        (self.progress)(self.done, self.total.max(self.done))
    }

    fn one_pass(&mut self) -> Result<()> {
        let candidates: Vec<usize> = (0..self.units.len()).collect();
        let (dense, found) = self.scores_of(&vec![false; self.units.len()], &candidates)?;
        self.keeper.scores.dense = dense.map(|d| d.min(f64::MAX));
        for (part, score) in self.keeper.scores.parts.iter_mut().zip(&found) {
            part.score = Some(finite(&part.path, *score)?);
        }
        Ok(())
    }

    fn iterate(&mut self, free: &[usize], rounds: usize) -> Result<()> {
        let mut removed = vec![false; self.units.len()];
        for round in &self.keeper.scores.rounds {
            if let Some(j) = self.units.iter().position(|u| u.region.path == round.removed) {
                removed[j] = true;
            }
        }
        while self.keeper.scores.rounds.len() < rounds {
            let candidates: Vec<usize> = free.iter().copied().filter(|j| !removed[*j]).collect();
            let (dense, found) = self.scores_of(&removed, &candidates)?;
            let first = self.keeper.scores.rounds.is_empty();
            if first {
                self.keeper.scores.dense = dense.map(|d| d.min(f64::MAX));
            }
            let mut best: Option<(usize, f64)> = None;
            for (j, score) in candidates.iter().zip(found) {
                let path = &self.units[*j].region.path;
                let score = finite(path, score)?;
                if first {
                    self.keeper.scores.parts[*j].score = Some(score);
                }
                if best.is_none_or(|(_, b)| score < b) {
                    best = Some((*j, score));
                }
            }
            let Some((j, score)) = best else { break };
            removed[j] = true;
            let removed = self.units[j].region.path.clone();
            self.keeper.scores.rounds.push(Round { removed, score });
            self.keeper.scores.partial.clear();
            self.keeper.save()?;
        }
        Ok(())
    }

    fn paths(&self, which: impl Iterator<Item = usize>) -> Vec<String> {
        which.map(|j| self.units[j].region.path.clone()).collect()
    }
}

/// An infinite perplexity is a score (the part must stay); a NaN means that something is broken.
fn finite(path: &str, score: f64) -> Result<f64> {
    if score.is_nan() {
        return Err(PruneError::Unfit(format!(
            "`{path}` scores NaN: the weights or the calibration data give no finite loss; `pomona verify` finds damaged \
             tensors"
        )));
    }
    Ok(score.min(f64::MAX))
}

struct Sweeps<'s, 'r, 'a, 'p> {
    run: &'s mut Run<'r, 'a, 'p>,
    removed: &'s [bool],
}

impl Sweeps<'_, '_, '_, '_> {
    fn key(&self, samples: &Range<usize>, candidates: &[usize]) -> (Vec<String>, Vec<String>, [usize; 2]) {
        let gone = (0..self.removed.len()).filter(|j| self.removed[*j]);
        (self.run.paths(gone), self.run.paths(candidates.iter().copied()), [samples.start, samples.end])
    }
}

impl Journal for Sweeps<'_, '_, '_, '_> {
    fn known(&self, samples: &Range<usize>, candidates: &[usize]) -> Option<SweepLosses> {
        let (removed, candidates, samples) = self.key(samples, candidates);
        let same = |g: &&Group| g.removed == removed && g.candidates == candidates && g.samples == samples;
        let found = self.run.keeper.scores.partial.iter().find(same)?;
        Some(SweepLosses {
            dense: unpack(&found.dense),
            without: found.without.iter().map(|w| unpack(w)).collect(),
        })
    }

    fn keep(&mut self, samples: &Range<usize>, candidates: &[usize], losses: &SweepLosses) -> Result<()> {
        if let Some(at) = losses.without.iter().position(|l| l.iter().any(|l| l.sum.is_nan())) {
            finite(&self.run.units[candidates[at]].region.path, f64::NAN)?;
        }
        let (removed, candidates, samples) = self.key(samples, candidates);
        let without = losses.without.iter().map(|w| pack(w)).collect();
        let group = Group { removed, candidates, samples, dense: pack(&losses.dense), without };
        self.run.keeper.scores.partial.push(group);
        self.run.keeper.save()
    }

    fn advance(&mut self, steps: usize) -> Result<()> {
        self.run.step(steps)
    }
}

/// What a plan is made for.
pub struct Planning<'a> {
    /// The graph, symbolic or bound.
    pub graph: &'a Graph,
    /// Scores of its parts.
    pub scores: &'a Scores,
    /// Blocks at either end that stay.
    pub protect: [usize; 2],
    /// What to reach.
    pub goal: &'a Goal,
    /// The device of a latency goal.
    pub device: Option<&'a CostDevice>,
    /// Fingerprint of the model.
    pub fingerprint: &'a str,
    /// The program, with its version.
    pub tool: &'a str,
}

/// The smallest number of parts, in the order of the scores, whose removal meets the goal.
pub fn plan(on: &Planning<'_>) -> Result<Plan> {
    let (units, _) = units(on.graph, on.scores.settings.unit)?;
    let order = on.scores.order(on.protect);
    let dense = report(on.graph)?;
    let most = order.len().min(units.len().saturating_sub(1));
    let at = |k: usize| -> Result<(Vec<Edit>, CostReport)> {
        let edits = removal(&units, &order[..k])?;
        let (graph, _) = apply(on.graph, &edits)?;
        Ok((edits, report(&graph)?))
    };
    let k = match on.goal {
        Goal::Blocks(n) if *n > most => return Err(too_few(on, most, &format!("{n} parts were asked for"))),
        Goal::Blocks(n) => *n,
        Goal::Macs(_) | Goal::Latency { .. } if on.graph.nodes.is_empty() => {
            return Err(PruneError::Unfit(format!(
                "{}: the computation of an opaque model is not known: aim at blocks, params or memory",
                on.goal
            )));
        }
        goal => {
            let bound = bound(goal, &dense, on.device)?;
            let mut k = 0;
            // Each part removed lowers every measure, so the first number that meets the goal is the smallest change.
            while measure(goal, &at(k)?.1, on.device)? > bound {
                k += 1;
                if k > most {
                    let best = measure(goal, &at(most)?.1, on.device)?;
                    return Err(too_few(
                        on,
                        most,
                        &format!("that leaves {}", shown(goal, best, &dense, on.device)?),
                    ));
                }
            }
            k
        }
    };
    let (edits, after) = at(k)?;
    let reached = match on.goal {
        Goal::Blocks(_) => format!("{k} of {}", units.len()),
        goal => shown(goal, measure(goal, &after, on.device)?, &dense, on.device)?,
    };
    Ok(Plan {
        version: PLAN_VERSION,
        tool: on.tool.to_owned(),
        fingerprint: on.fingerprint.to_owned(),
        component: None,
        method: "depth".to_owned(),
        criterion: Some(on.scores.settings.criterion.name().to_owned()),
        target: Some(Target { asked: on.goal.to_string(), reached }),
        removed: order[..k].to_vec(),
        before: dense.summary(),
        after: after.summary(),
        edits,
    })
}

/// Edits that remove parts, the last in the data's flow first: the value that each bypass reads is still there.
fn removal(units: &[Unit], paths: &[String]) -> Result<Vec<Edit>> {
    if let Some(path) = paths.iter().find(|p| !units.iter().any(|u| u.region.path == **p)) {
        return Err(PruneError::Unfit(format!(
            "the scores name `{path}`, which is no removable part of this model"
        )));
    }
    let gone = units.iter().rev().filter(|u| paths.contains(&u.region.path));
    Ok(gone.flat_map(|u| u.region.edits()).collect())
}

fn too_few(on: &Planning<'_>, most: usize, what: &str) -> PruneError {
    let hint = if on.scores.rounds.is_empty() {
        "protect fewer blocks (--protect), or choose a larger target"
    } else {
        "score with more removals (--iterative N), or choose a larger target"
    };
    PruneError::Unfit(format!("{} cannot be reached: {most} parts may go, and {what}; {hint}", on.goal))
}
