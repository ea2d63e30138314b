//! Before and after, side by side.

use pomona_cost::CostReport;
use pomona_graph::Cost;

use crate::style::Style;
use crate::table::{Align, Table};
use crate::units::{bytes, change, exact, operations, share};

/// A measured or predicted line of a comparison, beside the counted ones.
#[derive(Clone, Debug)]
pub struct Measure {
    /// What it is (`perplexity`, `tokens/s`).
    pub name: String,
    /// Before, as it is to be read.
    pub before: String,
    /// After.
    pub after: String,
    /// The change in words, where there is one.
    pub change: String,
}

/// Parameters, MACs and bytes of two reports, then the given measures.
pub fn compare(before: &CostReport, after: &CostReport, measures: &[Measure], style: Style) -> String {
    let mut table = new_table();
    costs(&mut table, &before.summary(), &after.summary());
    let (a, b) = (&before.peak_activations, &after.peak_activations);
    table.row([
        "peak activations",
        &bytes(a.bytes),
        &bytes(b.bytes),
        &share(b.bytes, a.bytes),
        &change(a.bytes, b.bytes),
    ]);
    let (a, b) = (before.state_bytes.per_token, after.state_bytes.per_token);
    if a.max(b) > 0 {
        table.row(["cache a token", &bytes(a), &bytes(b), &share(b, a), &change(a, b)]);
    }
    let (a, b) = (before.blocks.len() as u64, after.blocks.len() as u64);
    if a != b {
        table.row(["blocks", &exact(a), &exact(b), &share(b, a), &change(a, b)]);
    }
    add(&mut table, measures);
    table.render(style)
}

/// The same from the costs that a plan carries.
pub fn compare_costs(before: &Cost, after: &Cost, measures: &[Measure], style: Style) -> String {
    let mut table = new_table();
    costs(&mut table, before, after);
    add(&mut table, measures);
    table.render(style)
}

fn new_table() -> Table {
    Table::new(&[
        ("", Align::Left),
        ("before", Align::Right),
        ("after", Align::Right),
        ("remains", Align::Right),
        ("change", Align::Right),
    ])
}

fn costs(table: &mut Table, a: &Cost, b: &Cost) {
    let mut line = |name: &str, show: fn(u64) -> String, a: u64, b: u64| {
        table.row([name, &show(a), &show(b), &share(b, a), &change(a, b)]);
    };
    line("parameters", exact, a.parameters, b.parameters);
    line("weights", bytes, a.weight_bytes, b.weight_bytes);
    // None are known of a model without a computation; nobody should read that as none at all.
    if a.macs > 0 {
        line("MACs", operations, a.macs, b.macs);
    }
}

fn add(table: &mut Table, measures: &[Measure]) {
    for m in measures {
        table.row([&m.name, &m.before, &m.after, "", &m.change].map(|s: &str| s.to_owned()));
    }
}
