//! What `inspect` prints.

use pomona_cost::{CostReport, Latency, Uncounted};

use crate::modules::{TreeOptions, module_table};
use crate::style::Style;
use crate::table::{Align, Table, printable};
use crate::units::{bytes, exact, operations, seconds};

/// What stands beside the report.
#[derive(Clone, Debug, Default)]
pub struct InspectOptions {
    /// The tree.
    pub tree: TreeOptions,
    /// Predictions, each with what it is for (`prefill, 128 tokens`).
    pub latencies: Vec<(String, Latency)>,
    /// Emphasis.
    pub style: Style,
}

/// Uncounted operators that are listed one by one.
const LISTED: usize = 20;

/// The whole text: sums, tree, parts, predictions, and what could not be counted.
pub fn inspect(report: &CostReport, options: &InspectOptions) -> String {
    let style = options.style;
    let mut out = style.bold(&printable(&report.architecture)) + "\n";
    for (name, value) in sums(report) {
        out += &format!("  {name:<18}{value}\n");
    }
    out.push('\n');
    out += &module_table(report, &options.tree, style);
    if !report.blocks.is_empty() {
        let removable = report.blocks.iter().filter(|b| b.removable).count();
        out += &format!("\n{} blocks, {removable} removable\n", report.blocks.len());
    }
    if !options.latencies.is_empty() {
        out.push('\n');
        out += &latency_table(&options.latencies, style);
    }
    if !report.uncounted.is_empty() {
        out.push('\n');
        out += &uncounted_table(&report.uncounted, style);
    }
    out
}

fn sums(r: &CostReport) -> Vec<(&'static str, String)> {
    let shape = |s: &[u64]| s.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let inputs: Vec<String> =
        r.inputs.iter().map(|i| format!("{} [{}]", printable(&i.name), shape(&i.shape))).collect();
    let mut out = vec![("parameters", exact(r.parameters)), ("weights", bytes(r.weight_bytes))];
    if !r.operators.is_empty() {
        out.push(("input", inputs.join(", ")));
        out.push(("MACs", format!("{} (thop {})", operations(r.macs.full), operations(r.macs.thop))));
        out.push(("other operations", operations(r.other_ops)));
        let at = if r.peak_activations.at.is_empty() { "the input" } else { &r.peak_activations.at };
        out.push((
            "peak activations",
            format!("{} in {} at {}", bytes(r.peak_activations.bytes), r.activation_dtype, printable(at)),
        ));
    }
    if r.state_bytes.per_token > 0 {
        out.push(("cache a token", bytes(r.state_bytes.per_token)));
    }
    if r.state_bytes.fixed > 0 {
        out.push(("state", bytes(r.state_bytes.fixed)));
    }
    out
}

/// Predictions, one a line, with what the time is spent on.
pub fn latency_table(latencies: &[(String, Latency)], style: Style) -> String {
    let mut table = Table::new(&[
        ("run", Align::Left),
        ("device", Align::Left),
        ("predicted", Align::Right),
        ("arithmetic", Align::Right),
        ("memory", Align::Right),
        ("launches", Align::Right),
        ("", Align::Left),
    ]);
    for (run, t) in latencies {
        table.row([
            run.clone(),
            t.device.clone(),
            seconds(t.seconds),
            seconds(t.compute_seconds),
            seconds(t.memory_seconds),
            seconds(t.launch_seconds),
            if t.lower_bound { "lower bound".to_owned() } else { String::new() },
        ]);
    }
    table.render(style)
}

fn uncounted_table(uncounted: &[Uncounted], style: Style) -> String {
    let mut table = Table::new(&[("not counted", Align::Left), ("", Align::Left), ("why", Align::Left)]);
    for u in uncounted.iter().take(LISTED) {
        table.row([&u.path, &u.operator, &u.reason].map(String::as_str));
    }
    let more = uncounted.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!("and {more} more (all in --json)\n") } else { String::new() };
    table.render(style) + &rest
}
