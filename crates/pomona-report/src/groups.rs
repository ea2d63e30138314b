//! Coupled axis groups: what can be cut, by what, and why the rest cannot.

use pomona_graph::{CoupledGroup, Granularity, Side};

use crate::style::Style;
use crate::table::{Align, Table};
use crate::units::exact;

/// Paths and tensors of a group that are listed one by one.
const LISTED: usize = 8;

/// The groups that can be cut, then those that stay whole with the reason. Axes of kernels, which every convolution has,
/// and those of size 1 are only counted.
pub fn group_table(groups: &[CoupledGroup], style: Style) -> String {
    let mut open = Table::new(&[
        ("group that can be cut", Align::Left),
        ("size", Align::Right),
        ("goes by", Align::Left),
        ("tensors", Align::Right),
        ("parameters each", Align::Right),
    ]);
    for g in groups.iter().filter(|g| g.locked.is_none()) {
        open.row([
            g.name.clone(),
            exact(g.len as u64),
            goes_by(g),
            exact(g.members.len() as u64),
            exact(g.parameters),
        ]);
    }
    let mut whole =
        Table::new(&[("group that stays whole", Align::Left), ("size", Align::Right), ("why", Align::Left)]);
    let mut kernels = 0;
    for g in groups {
        match &g.locked {
            Some(_) if is_never_cut(g) => kernels += 1,
            Some(why) => whole.row([g.name.clone(), exact(g.len as u64), why.clone()]),
            None => {}
        }
    }
    let mut out = if open.is_empty() { "no group can be cut\n".to_owned() } else { open.render(style) };
    if !whole.is_empty() {
        out += &format!("\n{}", whole.render(style));
    }
    if kernels > 0 {
        out += &format!("and {kernels} axes of kernels and of size 1, which are never cut\n");
    }
    out
}

/// One group: its members, what ties them, what goes with a cut, and why it cannot be cut where that is so.
pub fn group_text(group: &CoupledGroup) -> String {
    let size = exact(group.len as u64);
    let mut out = match &group.locked {
        Some(why) => format!("`{}`, {size} indices, cannot be cut: {why}.\n", group.name),
        None => format!("`{}`, {size} channels, can be cut by {}.\n", group.name, goes_by(group)),
    };
    for (side, words) in
        [(Side::Makes, "made by"), (Side::Norm, "scaled or shifted by"), (Side::Reads, "read by")]
    {
        let of: Vec<String> = group
            .members
            .iter()
            .filter(|m| m.side == side && group.members.len() > 1)
            .map(|m| match m.indices == m.of {
                true => format!("{}:{}", m.tensor, m.axis),
                false => format!("{}:{} ({} of {})", m.tensor, m.axis, m.indices, m.of),
            })
            .collect();
        if !of.is_empty() {
            out += &format!("  {words} {}\n", listed(&of));
        }
    }
    if !group.through.is_empty() {
        out += &format!("  tied through {}\n", listed(&group.through));
    }
    if group.locked.is_none() {
        if !group.tied.is_empty() {
            let how = match group.granularity {
                Granularity::Head { .. } => "a head goes with that of",
                _ => "keeps the same share as",
            };
            out += &format!("  {how} {}\n", listed(&group.tied));
        }
        let takes = match group.granularity {
            Granularity::Channel => "a channel takes".to_owned(),
            Granularity::GroupOfChannels { parts } => format!("a channel of each of the {parts} parts takes"),
            Granularity::NormGroup { .. } => "a norm group takes".to_owned(),
            Granularity::Head { .. } => "a head takes".to_owned(),
        };
        out += &format!("  {takes} {} parameters along\n", exact(group.parameters));
    }
    out
}

fn goes_by(group: &CoupledGroup) -> String {
    match group.granularity {
        Granularity::Channel => "channel".to_owned(),
        Granularity::GroupOfChannels { parts } => format!("channel, as many in each of {parts} parts"),
        Granularity::NormGroup { bundles, stay } => {
            let width = (group.len - stay) / bundles.max(1);
            let of = if width == 1 { String::new() } else { format!(" of {width}") };
            let rest = if stay > 0 { format!(", {stay} stay") } else { String::new() };
            format!("norm group, {bundles}{of}{rest}")
        }
        Granularity::Head { heads } => format!("head, {heads} of {}", group.len / heads.max(1)),
    }
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    names[..names.len() - more].join(", ") + &rest
}

/// Whether a group is an axis that no model can lose: of a kernel, or of size 1.
pub fn is_never_cut(group: &CoupledGroup) -> bool {
    let starts = ["it is an axis of the kernel", "each group has one channel", "it is a single index"];
    group.locked.as_ref().is_some_and(|why| starts.iter().any(|s| why.starts_with(s)))
}
