//! Bundles: whole groups of a GroupNorm as the things that go.
//!
//! Equal shares of every norm group leave few widths where groups are narrow, none where a group is one channel. Whole groups
//! can go instead, one by one, and the statistics of those that stay do not change. Where several norms read a channel, their
//! groups go together.

use std::collections::{HashMap, HashSet};

use super::runs::{Constraints, parts_of};

/// Equal shares that leave fewer widths than this give way to whole norm groups, where these leave more.
const FEW: usize = 8;

/// The bundle of each channel, by its class, of all channels whose norm groups go whole; none for a channel that stays because
/// its norm group holds channels of several groups, or one that cannot go. `group_of`: the channel group of a class.
pub(super) fn bundles(
    constraints: &Constraints,
    groups: usize,
    group_of: impl Fn(u32) -> Option<usize>,
) -> HashMap<u32, Option<u32>> {
    if !constraints.equal.iter().any(|e| e.norm) {
        return HashMap::new();
    }
    let mut cluster: Vec<usize> = (0..groups).collect();
    let mut only_norms = vec![true; groups];
    for equal in &constraints.equal {
        let mut first = None;
        for g in equal.runs.iter().flatten().filter_map(|c| group_of(*c)) {
            only_norms[g] &= equal.norm;
            let (a, b) = (find(&cluster, *first.get_or_insert(g)), find(&cluster, g));
            cluster[a.max(b)] = a.min(b);
        }
    }
    let widths = equal_shares(constraints, &cluster, &group_of);
    let mut narrow: Vec<bool> = vec![true; groups];
    for g in 0..groups {
        narrow[find(&cluster, g)] &= only_norms[g];
    }
    let candidate = |g: usize| {
        let root = find(&cluster, g);
        narrow[root] && widths.get(&root).is_some_and(|n| *n < FEW)
    };
    let mut parent: HashMap<u32, u32> = HashMap::new();
    for run in constraints.equal.iter().filter(|e| e.norm).flat_map(|e| &e.runs) {
        let mut first = None;
        if run.iter().any(|c| group_of(*c).is_some_and(candidate)) {
            for c in run {
                let (a, b) = (top(&mut parent, *first.get_or_insert(*c)), top(&mut parent, *c));
                parent.insert(a.max(b), a.min(b));
            }
        }
    }
    let classes: Vec<u32> = parent.keys().copied().collect();
    let mut owners: HashMap<u32, HashSet<Option<usize>>> = HashMap::new();
    for c in &classes {
        let bundle = top(&mut parent, *c);
        owners.entry(bundle).or_default().insert(group_of(*c));
    }
    // Bundles of one group only: others would tie groups that else go their own ways.
    owners.retain(|_, of| of.len() == 1 && !of.contains(&None));
    let mut most: HashMap<usize, usize> = HashMap::new();
    for g in owners.values().flatten().flatten() {
        *most.entry(*g).or_default() += 1;
    }
    let finer: HashSet<usize> = most
        .iter()
        .filter(|(g, n)| widths.get(&find(&cluster, **g)).is_some_and(|w| *n > w))
        .map(|(g, _)| find(&cluster, *g))
        .collect();
    let mut out = HashMap::new();
    for c in classes {
        if group_of(c).is_some_and(|g| finer.contains(&find(&cluster, g))) {
            let bundle = top(&mut parent, c);
            out.insert(c, owners.contains_key(&bundle).then_some(bundle));
        }
    }
    out
}

/// How many widths equal shares leave each cluster, by its first group: the greatest common divisor of its cells' sizes.
fn equal_shares(
    constraints: &Constraints,
    cluster: &[usize],
    group_of: impl Fn(u32) -> Option<usize>,
) -> HashMap<usize, usize> {
    let parts = parts_of(constraints);
    // A cell is all channels of a group with the same runs.
    let mut cells: HashMap<(usize, Vec<(usize, usize)>), usize> = HashMap::new();
    for (class, marks) in parts {
        if let Some(g) = group_of(class) {
            *cells.entry((g, marks)).or_default() += 1;
        }
    }
    let mut widths: HashMap<usize, usize> = HashMap::new();
    for ((g, _), size) in cells {
        let of = widths.entry(find(cluster, g)).or_default();
        *of = gcd(*of, size);
    }
    widths
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn find(cluster: &[usize], mut g: usize) -> usize {
    while cluster[g] != g {
        g = cluster[g];
    }
    g
}

/// The lowest class of a bundle; a class that is new is its own.
fn top(parent: &mut HashMap<u32, u32>, class: u32) -> u32 {
    let mut at = class;
    while let Some(up) = parent.get(&at).copied().filter(|up| *up != at) {
        at = up;
    }
    parent.insert(class, at);
    at
}
