//! How far each coupled group can be cut, rung by rung: nested sets of channels, the least important first, with equal shares
//! where operators need them and counts that run times like.

use std::collections::BTreeMap;

use pomona_graph::{ChannelGroup, Edit, Graph, glob, keep_edits};

use crate::error::{PruneError, Result};
use crate::filter_scores::FilterScores;

/// Limits of what goes.
#[derive(Clone, Debug, PartialEq)]
pub struct LadderOptions {
    /// Kept counts are multiples of this.
    pub round: usize,
    /// At most this share of a group goes; at least one channel stays in any case.
    pub max_ratio: f64,
    /// Groups that stay whole: a node's path, a module's path, a tensor's name, with `*` for any characters.
    pub protect: Vec<String>,
}

impl Default for LadderOptions {
    /// Any count, anything may go.
    fn default() -> Self {
        Self { round: 1, max_ratio: 1.0, protect: Vec::new() }
    }
}

/// How a given share becomes a number of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// The most that is no larger.
    #[default]
    AtMost,
    /// The nearest.
    Nearest,
}

/// Which channels go first, of all groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The same share of every group, as nearly as whole channels allow.
    #[default]
    Uniform,
    /// The lowest scores of the whole model, each divided by its group's mean.
    Global,
}

/// Groups tied by an operator, with the sets that can go.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Numbers of its groups.
    pub groups: Vec<usize>,
    /// Rungs: each removes what the one before did and more.
    pub rungs: Vec<Rung>,
}

/// A further cut of a cluster.
#[derive(Clone, Debug)]
pub struct Rung {
    /// Share of each group that is gone, this rung's channels among them.
    pub fraction: f64,
    /// Mean score of this rung's channels, each divided by its group's mean; never below the rung before.
    pub score: f64,
    /// Group and channel of what goes here.
    pub channels: Vec<(usize, u32)>,
}

/// The rungs of every cluster that may be cut.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// All groups that can be cut, scored or not.
    pub groups: Vec<ChannelGroup>,
    /// Clusters with at least one rung.
    pub clusters: Vec<Cluster>,
}

impl Ladder {
    /// Ranks the channels of each group by its scores.
    ///
    /// # Errors
    /// [`PruneError::Unfit`] where a protected name is in no group, or the scores have none of the groups.
    pub fn new(
        graph: &Graph,
        groups: Vec<ChannelGroup>,
        scores: &FilterScores,
        options: &LadderOptions,
    ) -> Result<Ladder> {
        let mut protected = vec![false; groups.len()];
        for pattern in &options.protect {
            let hit: Vec<usize> = (0..groups.len()).filter(|g| names(graph, &groups[*g], pattern)).collect();
            if hit.is_empty() {
                return Err(PruneError::Unfit(format!(
                    "`{pattern}` is in no group that can be cut: `pomona inspect --groups` lists them"
                )));
            }
            hit.into_iter().for_each(|g| protected[g] = true);
        }
        let mut clusters: BTreeMap<(usize, bool), Vec<usize>> = BTreeMap::new();
        for (i, g) in groups.iter().enumerate() {
            // Whole norm groups go whatever other groups lose.
            let cluster = if g.bundles.is_some() { (i, true) } else { (g.cluster, false) };
            clusters.entry(cluster).or_default().push(i);
        }
        let mut out = Vec::new();
        for members in clusters.into_values() {
            let scored: Option<Vec<&[f64]>> =
                members.iter().map(|g| scores.of(&groups[*g].name, groups[*g].len)).collect();
            if let Some(scored) = scored.filter(|_| members.iter().all(|g| !protected[*g])) {
                let rungs = match (members.as_slice(), scored.as_slice()) {
                    (&[g], &[scores]) if groups[g].bundles.is_some() => {
                        bundle_rungs(&groups[g], g, scores, options)
                    }
                    _ => rungs(&groups, &members, &scored, options),
                };
                if !rungs.is_empty() {
                    out.push(Cluster { groups: members, rungs });
                }
            }
        }
        if out.is_empty() {
            return Err(PruneError::Unfit(format!(
                "no group of `{}` may be cut: every one is protected, without a score or smaller than --round",
                graph.name
            )));
        }
        Ok(Ladder { groups, clusters: out })
    }

    /// Edits that leave each cluster cut up to this many rungs.
    pub fn edits(&self, graph: &Graph, heights: &[usize]) -> Vec<Edit> {
        keep_edits(graph, &self.groups, &self.kept(heights))
    }

    /// The channels that stay of each group that is cut.
    pub fn kept(&self, heights: &[usize]) -> BTreeMap<usize, Vec<u32>> {
        let mut stays: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
        for (cluster, height) in self.clusters.iter().zip(heights) {
            for (g, c) in cluster.rungs.iter().take(*height).flat_map(|r| &r.channels) {
                stays.entry(*g).or_insert_with(|| vec![true; self.groups[*g].len])[*c as usize] = false;
            }
        }
        let kept = |s: Vec<bool>| (0_u32..).zip(s).filter(|(_, s)| *s).map(|(c, _)| c).collect();
        stays.into_iter().map(|(g, s)| (g, kept(s))).collect()
    }

    /// Each cluster cut by its share.
    pub fn heights(&self, fit: Fit, ratio: impl Fn(&Cluster) -> f64) -> Vec<usize> {
        let of = |c: &Cluster| {
            let wanted = ratio(c);
            let below = c.rungs.iter().take_while(|r| r.fraction <= wanted + 1e-9).count();
            let at = |n: usize| if n == 0 { 0.0 } else { c.rungs[n - 1].fraction };
            let nearer = below < c.rungs.len() && at(below + 1) - wanted <= wanted - at(below);
            below + usize::from(fit == Fit::Nearest && nearer)
        };
        self.clusters.iter().map(of).collect()
    }

    /// The smallest cut, in the order of `key`, that `meets`: a binary search over rungs, which only ever cut more. Rungs of
    /// one key go together. None where not even all of them do.
    pub fn smallest(
        &self,
        key: impl Fn(&Cluster, &Rung) -> (f64, f64),
        meets: &mut dyn FnMut(&[usize]) -> Result<bool>,
    ) -> Result<Option<Vec<usize>>> {
        let mut all: Vec<((f64, f64), usize, usize)> = Vec::new();
        for (c, cluster) in self.clusters.iter().enumerate() {
            let mut before = (f64::NEG_INFINITY, f64::NEG_INFINITY);
            for (r, rung) in cluster.rungs.iter().enumerate() {
                let k = key(cluster, rung);
                // A rung waits for the one below it.
                before = if (k.0, k.1) < before { before } else { k };
                all.push((before, c, r + 1));
            }
        }
        all.sort_by(|a, b| {
            a.0.0.total_cmp(&b.0.0).then(a.0.1.total_cmp(&b.0.1)).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2))
        });
        let mut stops = vec![0];
        for i in 1..=all.len() {
            let same = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() < 1e-12 && (a.1 - b.1).abs() < 1e-12;
            if i == all.len() || !same(all[i].0, all[i - 1].0) {
                stops.push(i);
            }
        }
        let heights = |n: usize| {
            let mut h = vec![0; self.clusters.len()];
            all.iter().take(n).for_each(|(_, c, r)| h[*c] = h[*c].max(*r));
            h
        };
        let (mut low, mut high) = (0, stops.len() - 1);
        if !meets(&heights(stops[high]))? {
            return Ok(None);
        }
        while low < high {
            let middle = low.midpoint(high);
            if meets(&heights(stops[middle]))? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(Some(heights(stops[high])))
    }
}

/// Every share of the cluster's cells that is a whole number in each and rounds as asked.
fn rungs(
    groups: &[ChannelGroup],
    members: &[usize],
    scores: &[&[f64]],
    options: &LadderOptions,
) -> Vec<Rung> {
    // Channels of each cell, least important first; of equals the later one goes first.
    let mut cells: Vec<(usize, Vec<(u32, f64)>)> = Vec::new();
    for (&g, scores) in members.iter().zip(scores) {
        let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        let scale = if mean.abs() > 0.0 { 1.0 / mean.abs() } else { 1.0 };
        let mut of: BTreeMap<u32, Vec<(u32, f64)>> = BTreeMap::new();
        for (c, cell) in groups[g].cells.iter().enumerate() {
            of.entry(*cell).or_default().push((c as u32, scores[c] * scale));
        }
        for mut channels in of.into_values() {
            channels.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
            cells.push((g, channels));
        }
    }
    let parts = cells.iter().fold(0, |n, (_, c)| gcd(n, c.len()));
    let round = options.round.max(1);
    let fits = |t: usize| {
        members.iter().all(|g| (groups[*g].len / parts.max(1) * (parts - t)).is_multiple_of(round))
    };
    let mut out: Vec<Rung> = Vec::new();
    let mut below = 0;
    for t in 1..parts {
        let fraction = t as f64 / parts as f64;
        if fraction > options.max_ratio + 1e-9 {
            break;
        }
        if !fits(t) {
            continue;
        }
        let mut channels = Vec::new();
        let mut sum = 0.0;
        for (g, ranked) in &cells {
            let per = ranked.len() / parts;
            for (c, score) in &ranked[below * per..t * per] {
                channels.push((*g, *c));
                sum += score;
            }
        }
        let score = sum / channels.len().max(1) as f64;
        let floor = out.last().map_or(f64::NEG_INFINITY, |r| r.score);
        out.push(Rung { fraction, score: score.max(floor), channels });
        below = t;
    }
    out
}

/// The rungs of a group whose norm groups go whole: one more of them each, where the channels left round as asked.
fn bundle_rungs(group: &ChannelGroup, number: usize, scores: &[f64], options: &LadderOptions) -> Vec<Rung> {
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    let scale = if mean.abs() > 0.0 { 1.0 / mean.abs() } else { 1.0 };
    let mut of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (c, bundle) in (0_u32..).zip(group.bundles.iter().flatten()) {
        if let Some(b) = bundle {
            of.entry(*b).or_default().push(c);
        }
    }
    let score = |channels: &[u32]| {
        channels.iter().map(|c| scores[*c as usize] * scale).sum::<f64>() / channels.len().max(1) as f64
    };
    let mut ranked: Vec<(f64, Vec<u32>)> = of.into_values().map(|c| (score(&c), c)).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    let (mut out, mut gone, mut waiting): (Vec<Rung>, usize, Vec<(usize, u32)>) = (Vec::new(), 0, Vec::new());
    let mut sum = 0.0;
    for (score, channels) in ranked {
        gone += channels.len();
        sum += score * channels.len() as f64;
        waiting.extend(channels.into_iter().map(|c| (number, c)));
        let fraction = gone as f64 / group.len as f64;
        if gone == group.len || fraction > options.max_ratio + 1e-9 {
            break;
        }
        if (group.len - gone).is_multiple_of(options.round.max(1)) {
            let floor = out.last().map_or(f64::NEG_INFINITY, |r| r.score);
            let score = (sum / waiting.len().max(1) as f64).max(floor);
            out.push(Rung { fraction, score, channels: std::mem::take(&mut waiting) });
            sum = 0.0;
        }
    }
    out
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// `qk`, `v`, `ffn`, `stream`, `filters` and `heads` name all groups of a kind.
fn of_kind(group: &ChannelGroup, pattern: &str) -> bool {
    group.kind.name() == pattern
}

/// Whether a pattern names a group: by its kind, label or name, a tensor, the node that makes it, or a module around that node.
pub fn names(graph: &Graph, group: &ChannelGroup, pattern: &str) -> bool {
    let hit = |name: &str| {
        glob(pattern, name) || name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'))
    };
    hit(&group.name)
        || of_kind(group, pattern)
        || hit(&group.label)
        || group.makers(graph).any(|(_, path)| hit(path))
        || group.members.iter().any(|m| glob(pattern, &graph.tensor(m.tensor).name))
}

/// Whether a pattern is about a group as a whole: by its kind, label or name, a tensor, or all nodes that make it. `*.mlp.*` names what is
/// within the blocks, not the stream that they share.
pub fn names_whole(graph: &Graph, group: &ChannelGroup, pattern: &str) -> bool {
    let under = |path: &str| {
        glob(pattern, path) || path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'))
    };
    let mut makers = group.makers(graph).peekable();
    (makers.peek().is_some() && makers.all(|(_, path)| under(path)))
        || glob(pattern, &group.name)
        || of_kind(group, pattern)
        || (!group.label.is_empty() && under(&group.label))
        || group.members.iter().any(|m| !pattern.contains('*') && graph.tensor(m.tensor).name == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_paths() {
        for (pattern, name, yes) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*.conv1", "layer1.0.conv1", true),
            ("*.conv1", "layer1.0.conv2", false),
            ("l*.0.*1", "layer1.0.conv1", true),
            ("*", "x", true),
        ] {
            assert_eq!(glob(pattern, name), yes, "{pattern} {name}");
        }
    }

    fn group(cluster: usize, cells: &[u32]) -> ChannelGroup {
        ChannelGroup {
            name: format!("g{cluster}"),
            len: cells.len(),
            members: vec![],
            cells: cells.to_vec(),
            bundles: None,
            cluster,
            kind: pomona_graph::ChannelKind::Inner,
            label: String::new(),
        }
    }

    #[test]
    fn whole_norm_groups_go_one_by_one_and_counts_round() {
        let bundles = Some(vec![Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), None, None]);
        let g = ChannelGroup { bundles, ..group(3, &[0; 8]) };
        let scores = [9.0, 1.0, 2.0, 2.0, 3.0, 3.0, 0.0, 0.0];
        let gone = |options: &LadderOptions| -> Vec<Vec<u32>> {
            let rungs = bundle_rungs(&g, 3, &scores, options);
            rungs.iter().map(|r| r.channels.iter().map(|c| c.1).collect()).collect()
        };
        assert_eq!(gone(&LadderOptions::default()), [vec![2, 3], vec![4, 5], vec![0, 1]]);
        assert_eq!(gone(&LadderOptions { round: 4, ..Default::default() }), [vec![2, 3, 4, 5]]);
        assert_eq!(gone(&LadderOptions { max_ratio: 0.3, ..Default::default() }), [vec![2, 3]]);
    }

    #[test]
    fn cells_lose_equal_shares_and_counts_round() {
        let groups = [group(0, &[0, 0, 0, 0, 1, 1, 1, 1])];
        let scores: &[f64] = &[4.0, 3.0, 2.0, 1.0, 5.0, 6.0, 7.0, 8.0];
        let found = rungs(&groups, &[0], &[scores], &LadderOptions::default());
        let first: Vec<u32> = found[0].channels.iter().map(|c| c.1).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(first, [3, 4]);
        assert_eq!(found[0].fraction, 0.25);
        let rounded = rungs(&groups, &[0], &[scores], &LadderOptions { round: 4, ..Default::default() });
        assert_eq!(rounded.len(), 1);
        assert_eq!(rounded[0].channels.len(), 4);
        let capped = rungs(&groups, &[0], &[scores], &LadderOptions { max_ratio: 0.5, ..Default::default() });
        assert_eq!(capped.len(), 2);
    }
}
