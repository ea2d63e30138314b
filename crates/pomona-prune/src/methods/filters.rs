//! Filter pruning on coupled axis groups: the classical criteria (`criteria/filters`), with everything that a filter goes
//! with found from the graph.
//!
//! A plan cuts the same share of every group, or what is least important in the whole model, or given ratios of given
//! groups. A target is an upper bound: the plan is the smallest cut, in its order, that meets it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pomona_cost::{CostReport, Device as CostDevice};
use pomona_graph::{
    ChannelGroup, ChannelKind, Edit, Graph, HeadGroup, PLAN_VERSION, Plan, Target, apply, channel_groups,
    coupled_groups, head_groups, no_heads,
};
use pomona_task::{Objective, Weights};

use crate::budget::{bound, measure, report, shown};
pub(crate) use crate::criteria::filters::weights_of;
use crate::criteria::filters::{
    Aggregate, AttentionScores, FilterCriterion, GradientSums, Measure, Norm, aggregate, bn_scale,
    geometric_median, norms, taylor,
};
use crate::criteria::random;
use crate::error::{PruneError, Result};
use crate::filter_scores::{
    FILTER_SCORES_VERSION, FilterScores, FilterSettings, GroupScores, ScoredUnit, continued,
};
use crate::ladder::{Cluster, Fit, Ladder, LadderOptions, Order, names_whole};
use crate::methods::depth::Progress;
use crate::methods::snp::Attentions;
use crate::scores::DataId;
use crate::target::Goal;
use crate::work::WorkFiles;

/// What a scoring run works on.
pub struct Scoring<'a> {
    /// The graph; symbols that an axis group crosses must be bound.
    pub graph: &'a Graph,
    /// Its weights.
    pub weights: &'a dyn Weights,
    /// Calibration; none for data-free criteria.
    pub objective: Option<&'a dyn Objective>,
    /// Where it runs.
    pub device: &'a pomona_exec::Device,
    /// Fingerprint of the model.
    pub fingerprint: &'a str,
    /// The component, where a pipeline has several.
    pub component: Option<&'a str>,
    /// The program, with its version.
    pub tool: &'a str,
    /// Samples that run together.
    pub at_once: usize,
    /// The state of an unfinished run is kept at most this often.
    pub save_every: Duration,
}

/// Scores every channel of every group that can be cut. Where `out` holds an unfinished run with the same settings, model
/// and data, it is continued.
///
/// # Errors
/// [`PruneError::Unfit`] where nothing can be cut or measured; [`PruneError::Scores`] where the file holds other work.
pub fn score(
    on: &Scoring<'_>,
    settings: &FilterSettings,
    out: Option<&Path>,
    progress: &mut Progress<'_>,
) -> Result<FilterScores> {
    let (groups, heads) = groups_of(on.graph, settings.unit)?;
    let fresh = FilterScores {
        filters_version: FILTER_SCORES_VERSION,
        tool: on.tool.to_owned(),
        fingerprint: on.fingerprint.to_owned(),
        component: on.component.map(str::to_owned),
        settings: settings.clone(),
        data: on.objective.map(|o| DataId { fingerprint: o.fingerprint(), source: o.source() }),
        groups: Vec::new(),
        complete: false,
    };
    let path: Option<PathBuf> = out.map(Path::to_owned);
    let mut scores = continued(path.as_ref(), fresh)?;
    if scores.complete {
        return Ok(scores);
    }
    let save = |scores: &FilterScores| path.as_ref().map_or(Ok(()), |p| scores.write(p));
    // Before any work: a place that cannot be written to is told at once.
    save(&scores)?;
    let identity = (&scores.tool, &scores.fingerprint, &scores.component, settings, &scores.data);
    let identity = blake3::hash(format!("{identity:?}").as_bytes()).to_hex().to_string();
    let work = path.as_ref().map(|p| WorkFiles::beside(p, identity, on.save_every));
    let samples = on.objective.map_or(0, Objective::samples);
    let total = groups.len() + samples;
    let missing = |what: &str| {
        PruneError::Unfit(format!("criterion {} needs calibration data{what}", settings.criterion.name()))
    };
    let run = (on.device, on.at_once);
    let mut step = |done| progress(done, total);
    let gradients = match on.objective {
        Some(objective) if settings.criterion.needs_loss() => {
            Some(GradientSums::new(on.graph, &groups, on.weights, objective, run, work.as_ref(), &mut step)?)
        }
        None if settings.criterion.needs_loss() => return Err(missing(" with a loss")),
        _ => None,
    };
    let attention = match on.objective {
        Some(objective) if reads_logits(settings.criterion, &groups) => {
            let gamma = settings.gamma.unwrap_or_default();
            Some(AttentionScores::new(on.graph, on.weights, objective, run, gamma, work.as_ref(), &mut step)?)
        }
        None if reads_logits(settings.criterion, &groups) => {
            return Err(missing(": the logits are those of samples"));
        }
        _ => None,
    };
    let found = Found { gradients, attention, attentions: Attentions::new(on.graph, &groups, heads)? };
    let mut saved = Instant::now();
    for (i, group) in groups.iter().enumerate().skip(scores.groups.len()) {
        let found = score_group(on, settings, (i, group), &found)?;
        if let Some(c) = found.iter().position(|s| !s.is_finite()) {
            return Err(PruneError::Unfit(format!(
                "channel {c} of `{}` scores {}: the weights or the data give no finite number; `pomona verify` finds \
                 damaged tensors",
                group.name, found[c]
            )));
        }
        scores.groups.push(GroupScores { name: group.name.clone(), scores: found });
        on.weights.release();
        if saved.elapsed() >= on.save_every {
            save(&scores)?;
            saved = Instant::now();
        }
        progress(samples + i + 1, total)?;
    }
    if scores.groups.iter().all(|g| g.scores.is_empty()) {
        let lacks = match settings.criterion {
            FilterCriterion::BnScale => "BatchNorm with a scale",
            FilterCriterion::Attention => "queries and keys that can be cut",
            _ => "layer of this kind",
        };
        return Err(PruneError::Unfit(format!(
            "criterion {} finds nothing to measure in `{}`: it has no {lacks}; l1 needs none",
            settings.criterion.name(),
            on.graph.name
        )));
    }
    scores.complete = true;
    save(&scores)?;
    if let Some(work) = &work {
        work.clear();
    }
    Ok(scores)
}

/// The groups that can be cut and have more than one channel.
pub fn open_groups(graph: &Graph) -> Result<Vec<ChannelGroup>> {
    Ok(groups_of(graph, ScoredUnit::Channels)?.0)
}

/// The groups of a unit; of heads also what they are made of.
pub fn groups_of(graph: &Graph, unit: ScoredUnit) -> Result<(Vec<ChannelGroup>, Vec<HeadGroup>)> {
    let (groups, heads) = match unit {
        ScoredUnit::Channels => (channel_groups(graph)?, Vec::new()),
        ScoredUnit::Heads => {
            let heads = head_groups(graph)?;
            (heads.iter().map(|h| h.group.clone()).collect(), heads)
        }
    };
    if groups.is_empty() {
        return Err(PruneError::Unfit(match unit {
            ScoredUnit::Channels => nothing_to_cut(graph)?,
            ScoredUnit::Heads => {
                format!("`{}` has no head that can go: {}", graph.name, no_heads(graph)?)
            }
        }));
    }
    Ok((groups, heads))
}

/// Whether a criterion runs the model to see the logits of these groups.
pub fn reads_logits(criterion: FilterCriterion, groups: &[ChannelGroup]) -> bool {
    let kinds = [ChannelKind::QueryKey, ChannelKind::Heads];
    criterion.needs_logits() && groups.iter().any(|g| kinds.contains(&g.kind))
}

/// What was found out about the whole network before its groups are scored.
struct Found {
    gradients: Option<GradientSums>,
    attention: Option<AttentionScores>,
    attentions: Attentions,
}

/// Why no group can be cut: the reasons, most frequent first, each with a tensor.
fn nothing_to_cut(graph: &Graph) -> Result<String> {
    let mut reasons: Vec<(String, String, usize)> = Vec::new();
    for group in coupled_groups(graph)? {
        let Some(why) = group.locked.filter(|w| !w.starts_with("it is an axis of the kernel")) else {
            continue;
        };
        match reasons.iter_mut().find(|(r, ..)| *r == why) {
            Some((.., n)) => *n += 1,
            None => reasons.push((why, group.name, 1)),
        }
    }
    reasons.sort_by_key(|r| std::cmp::Reverse(r.2));
    let listed: Vec<String> =
        reasons.iter().take(3).map(|(why, name, _)| format!("`{name}`: {why}")).collect();
    let why = match listed.is_empty() {
        true => "it has no weights".to_owned(),
        false => listed.join("; "),
    };
    Ok(format!(
        "`{}` has no axis group that can be cut: {why}. `pomona inspect --groups` lists all",
        graph.name
    ))
}

fn score_group(
    on: &Scoring<'_>,
    settings: &FilterSettings,
    (number, group): (usize, &ChannelGroup),
    known: &Found,
) -> Result<Vec<f64>> {
    let (graph, weights, how) = (on.graph, on.weights, settings.aggregate);
    let measures: Vec<Measure> = match settings.criterion {
        FilterCriterion::L1 | FilterCriterion::Reverse => norms(graph, group, weights, Norm::L1)?,
        // The norm of everything that is added, or of each tensor that votes.
        FilterCriterion::L2 if how == Aggregate::Normalised => norms(graph, group, weights, Norm::L2)?,
        FilterCriterion::L2 => norms(graph, group, weights, Norm::L2Squared)?,
        FilterCriterion::GeometricMedian => geometric_median(graph, group, weights)?,
        FilterCriterion::BnScale => bn_scale(graph, group, weights)?,
        FilterCriterion::Attention
        | FilterCriterion::Redundancy
        | FilterCriterion::Snp
        | FilterCriterion::SnpReverse => {
            let attention = known.attention.as_ref();
            known.attentions.measures(graph, (number, group), settings.criterion, attention, weights)?
        }
        FilterCriterion::Taylor => match &known.gradients {
            Some(g) => taylor(graph, group, weights, g)?,
            None => Vec::new(),
        },
        FilterCriterion::Random => return Ok(random(group.len, settings.seed ^ name_hash(&group.name))),
    };
    if measures.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = aggregate(how, &measures, group.len);
    match settings.criterion {
        FilterCriterion::L2 if how != Aggregate::Normalised => found.iter_mut().for_each(|s| *s = s.sqrt()),
        FilterCriterion::Reverse | FilterCriterion::SnpReverse => found.iter_mut().for_each(|s| *s = -*s),
        _ => {}
    }
    Ok(found)
}

/// A group's own random order, whatever other groups there are.
fn name_hash(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

/// What a plan is made for.
pub struct Planning<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Scores of its filters.
    pub scores: &'a FilterScores,
    /// Limits.
    pub limits: LadderOptions,
    /// What goes.
    pub choice: Choice<'a>,
    /// How a given share becomes a number.
    pub fit: Fit,
    /// The method's name, as plans record it.
    pub method: &'a str,
    /// The device of a latency goal.
    pub device: Option<&'a CostDevice>,
    /// Fingerprint of the model.
    pub fingerprint: &'a str,
    /// The component, where a pipeline has several.
    pub component: Option<&'a str>,
    /// The program, with its version.
    pub tool: &'a str,
}

/// What goes.
pub enum Choice<'a> {
    /// As little as meets a goal.
    Target(&'a Goal, Order),
    /// Shares of groups by name, the last match of a group counts; `*` names all. With the words for them, where they are many.
    Ratios(&'a [(String, f64)], Option<String>),
}

/// Plans a cut.
///
/// # Errors
/// [`PruneError::Unfit`] where the goal cannot be met, with what can; where a pattern names nothing.
pub fn plan(on: &Planning<'_>) -> Result<Plan> {
    let (groups, _) = groups_of(on.graph, on.scores.settings.unit)?;
    let unknown = |g: &&ChannelGroup| !on.scores.groups.iter().any(|s| s.name == g.name);
    if let Some(g) = groups.iter().find(unknown) {
        return Err(PruneError::Unfit(format!(
            "the scores do not have the group `{}`: another version of the program made them; score again",
            g.name
        )));
    }
    let ladder = Ladder::new(on.graph, groups, on.scores, &on.limits)?;
    let dense = report(on.graph)?;
    let heights = match &on.choice {
        Choice::Ratios(list, _) => by_ratio(on.graph, &ladder, list, on.fit)?,
        Choice::Target(Goal::Blocks(_), _) => {
            return Err(PruneError::Unfit(
                "filters are cut to params=, macs=, memory= or latency=; blocks= is for --method depth"
                    .to_owned(),
            ));
        }
        Choice::Target(goal, order) => {
            let key = |_: &Cluster, r: &crate::ladder::Rung| match order {
                // Of equal shares the one that costs least goes first, so that a goal is met closely.
                Order::Uniform => (r.fraction, r.score),
                Order::Global => (r.score, 0.0),
            };
            to_target(on.graph, &ladder, (goal, on.device, &dense), key)?
        }
    };
    let edits = ladder.edits(on.graph, &heights);
    let asked = match &on.choice {
        Choice::Target(goal, _) => goal.to_string(),
        Choice::Ratios(_, Some(words)) => words.clone(),
        Choice::Ratios(list, None) => {
            let one = |(name, r): &(String, f64)| format!("{name}={:.4}%", r * 100.0).replace(".0000", "");
            format!("ratio {}", list.iter().map(one).collect::<Vec<_>>().join(", "))
        }
    };
    let goal = match &on.choice {
        Choice::Target(goal, _) => Some(*goal),
        Choice::Ratios(..) => None,
    };
    let asked = Asked { words: asked, goal, device: on.device };
    let stamp = Stamp {
        tool: on.tool,
        fingerprint: on.fingerprint,
        component: on.component,
        method: on.method,
        criterion: Some(on.scores.settings.criterion.name()),
        removed: removed_lines(&ladder, &heights),
    };
    finish(on.graph, &dense, edits, asked, stamp)
}

/// Heights by the ratios that name the groups; a cluster with several takes the smallest.
fn by_ratio(graph: &Graph, ladder: &Ladder, list: &[(String, f64)], fit: Fit) -> Result<Vec<usize>> {
    for (pattern, _) in list {
        if pattern != "*" && !ladder.groups.iter().any(|g| names_whole(graph, g, pattern)) {
            return Err(PruneError::Unfit(format!(
                "`{pattern}` names no whole group that can be cut: all layers that make a group must match, or its name"
            )));
        }
    }
    let of = |g: usize| {
        let hit = list.iter().rev().find(|(p, _)| p == "*" || names_whole(graph, &ladder.groups[g], p));
        hit.map_or(0.0, |(_, r)| *r)
    };
    Ok(ladder.heights(fit, |c| c.groups.iter().map(|g| of(*g)).fold(1.0, f64::min)))
}

/// The smallest cut, in the order of `key`, that meets a goal.
pub(crate) fn to_target(
    graph: &Graph,
    ladder: &Ladder,
    (goal, device, dense): (&Goal, Option<&CostDevice>, &CostReport),
    key: impl Fn(&Cluster, &crate::ladder::Rung) -> (f64, f64),
) -> Result<Vec<usize>> {
    let most = bound(goal, dense, device)?;
    let mut least = f64::INFINITY;
    let mut meets = |heights: &[usize]| {
        let (cut, _) = apply(graph, &ladder.edits(graph, heights))?;
        let reached = measure(goal, &report(&cut)?, device)?;
        least = least.min(reached);
        Ok(reached <= most)
    };
    match ladder.smallest(key, &mut meets)? {
        Some(heights) => Ok(heights),
        None => Err(PruneError::Unfit(format!(
            "{goal} cannot be reached: with everything cut that may go, {} is left; protect less, round to less, allow a larger \
             --max-ratio, or choose a larger target",
            shown(goal, least, dense, device)?
        ))),
    }
}

/// Who makes a plan, for whom.
pub(crate) struct Stamp<'a> {
    pub tool: &'a str,
    pub fingerprint: &'a str,
    pub component: Option<&'a str>,
    pub method: &'a str,
    pub criterion: Option<&'a str>,
    pub removed: Vec<String>,
}

/// What a plan was asked for: words, and the goal where it is one.
pub(crate) struct Asked<'a> {
    pub words: String,
    pub goal: Option<&'a Goal>,
    pub device: Option<&'a CostDevice>,
}

/// The plan of edits, with what it reaches.
pub(crate) fn finish(
    graph: &Graph,
    dense: &CostReport,
    edits: Vec<Edit>,
    asked: Asked<'_>,
    stamp: Stamp<'_>,
) -> Result<Plan> {
    let (cut, _) = apply(graph, &edits)?;
    let after = report(&cut)?;
    let reached = match asked.goal {
        Some(goal) => shown(goal, measure(goal, &after, asked.device)?, dense, asked.device)?,
        None => {
            let share = 100.0 * after.parameters as f64 / (dense.parameters as f64).max(1.0);
            format!("{} parameters ({share:.2} %)", after.parameters)
        }
    };
    Ok(Plan {
        version: PLAN_VERSION,
        tool: stamp.tool.to_owned(),
        fingerprint: stamp.fingerprint.to_owned(),
        component: stamp.component.map(str::to_owned),
        method: stamp.method.to_owned(),
        criterion: stamp.criterion.map(str::to_owned),
        target: Some(Target { asked: asked.words, reached }),
        removed: stamp.removed,
        before: dense.summary(),
        after: after.summary(),
        edits,
    })
}

/// What goes of each group, for people.
pub(crate) fn removed_lines(ladder: &Ladder, heights: &[usize]) -> Vec<String> {
    let line = |(g, kept): (usize, Vec<u32>)| {
        let group = &ladder.groups[g];
        // Where projections are joint, the tensor's name does not say which part.
        let name = match group.kind {
            ChannelKind::QueryKey | ChannelKind::Value => &group.label,
            _ => &group.name,
        };
        format!("{name} {} of {}", group.len - kept.len(), group.len)
    };
    ladder.kept(heights).into_iter().map(line).collect()
}
