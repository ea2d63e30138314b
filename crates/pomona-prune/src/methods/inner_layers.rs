//! Cut Inner Layers: a structured pruning strategy for efficient U-Net GANs (Kim et al., 2022, arXiv 2206.14658).
//!
//! Layers near the bottleneck hold most parameters and hardly matter; outer ones are sensitive. So the filters of inner levels
//! are cut, or the innermost levels are taken out, or both. [`crate::sweep`] measures how sensitive each layer is.
//!
//! The paper's text does not say: the filters' criterion (any of `criteria/filters`, L1 by default), whether sensitivity is
//! measured before retraining (here it is), what a level is (here a resolution: an encoder's filters at a resolution and the
//! decoder's filters that are made at it).

use pomona_cost::Device as CostDevice;
use pomona_graph::{Edit, Graph, Plan, apply};

use crate::budget::report;
use crate::error::{PruneError, Result};
use crate::filter_scores::FilterScores;
use crate::ladder::{Cluster, Fit, Ladder, LadderOptions, Rung};
use crate::levels::{drop_levels, group_levels};
use crate::methods::filters::{Asked, Stamp, finish, open_groups, removed_lines, to_target};
use crate::target::Goal;

/// What a plan is made for.
pub struct Planning<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// How many of the innermost levels are taken out.
    pub drop: usize,
    /// Which filters of the levels that stay are cut.
    pub cut: Option<Cut<'a>>,
    /// The device of a latency goal.
    pub device: Option<&'a CostDevice>,
    /// Fingerprint of the model.
    pub fingerprint: &'a str,
    /// The component, where a pipeline has several.
    pub component: Option<&'a str>,
    /// The program, with its version.
    pub tool: &'a str,
}

/// Filters of inner levels.
pub struct Cut<'a> {
    /// Scores of the filters.
    pub scores: &'a FilterScores,
    /// Limits; `max_ratio` is the share that a level loses at most on the way to a goal.
    pub limits: LadderOptions,
    /// The outermost level that is cut; all further in are cut too.
    pub from: usize,
    /// How much.
    pub share: Share<'a>,
}

/// How much is cut.
pub enum Share<'a> {
    /// This share of every group of the levels.
    Ratio(f64),
    /// As little as meets a goal: the innermost level first, as far as the limits allow, then the next one out.
    Target(&'a Goal),
}

/// Plans what goes.
///
/// # Errors
/// [`PruneError::Unfit`] where the network has no such levels, or the goal cannot be met.
pub fn plan(on: &Planning<'_>) -> Result<Plan> {
    let dense = report(on.graph)?;
    let mut edits = drop_levels(on.graph, on.drop)?;
    let (shallow, _) = apply(on.graph, &edits)?;
    let mut words = Vec::new();
    let mut removed = Vec::new();
    if on.drop > 0 {
        words.push(format!("{} innermost levels out", on.drop));
        removed = levels_gone(on.graph, &shallow);
    }
    let mut goal = None;
    if let Some(cut) = &on.cut {
        let groups = open_groups(&shallow)?;
        let levels = group_levels(&shallow, &groups)?;
        let deepest = levels.iter().flatten().max().copied().unwrap_or(0);
        if cut.from > deepest {
            return Err(PruneError::Unfit(format!(
                "level {} was asked for; the innermost one with filters is {deepest}, counting from 0 at the resolution of the \
                 input",
                cut.from
            )));
        }
        let ladder = Ladder::new(&shallow, groups, cut.scores, &cut.limits)?;
        let level = |c: &Cluster| c.groups.iter().map(|g| levels[*g]).min().flatten();
        let inside = |c: &Cluster| level(c).is_some_and(|l| l >= cut.from);
        let heights = match &cut.share {
            Share::Ratio(r) => {
                words.push(format!("{}% of levels {} to {deepest}", r * 100.0, cut.from));
                ladder.heights(Fit::AtMost, |c| if inside(c) { *r } else { 0.0 })
            }
            Share::Target(target) => {
                words.push(format!("{target} from levels {} to {deepest}", cut.from));
                goal = Some(*target);
                let inner = Ladder {
                    groups: ladder.groups.clone(),
                    clusters: ladder.clusters.iter().filter(|c| inside(c)).cloned().collect(),
                };
                let key = |c: &Cluster, r: &Rung| (-(level(c).unwrap_or(0) as f64), r.fraction);
                let found = to_target(&shallow, &inner, (target, on.device, &dense), key)?;
                let mut found = found.into_iter();
                ladder
                    .clusters
                    .iter()
                    .map(|c| if inside(c) { found.next().unwrap_or(0) } else { 0 })
                    .collect()
            }
        };
        edits.extend::<Vec<Edit>>(ladder.edits(&shallow, &heights));
        removed.extend(removed_lines(&ladder, &heights));
    }
    let asked = Asked { words: words.join(", "), goal, device: on.device };
    let stamp = Stamp {
        tool: on.tool,
        fingerprint: on.fingerprint,
        component: on.component,
        method: "inner-layers",
        criterion: on.cut.as_ref().map(|c| c.scores.settings.criterion.name()),
        removed,
    };
    finish(on.graph, &dense, edits, asked, stamp)
}

/// Layers with weights that are no longer there.
fn levels_gone(before: &Graph, after: &Graph) -> Vec<String> {
    let weighted = before.nodes.iter().filter(|n| !n.weights.is_empty());
    weighted.map(|n| n.path.clone()).filter(|p| after.find_node(p).is_none()).collect()
}
