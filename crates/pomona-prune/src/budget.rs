//! What a goal measures of a graph, and whether it is met.

use pomona_cost::{CostOptions, CostReport, Device as CostDevice, cost, default_bindings, roofline};
use pomona_graph::Graph;

use crate::error::{PruneError, Result};
use crate::target::Goal;

/// Cost of a graph at its default input.
pub fn report(graph: &Graph) -> Result<CostReport> {
    let bound = graph.bind(&default_bindings(graph))?;
    Ok(cost(&bound, &CostOptions::default())?)
}

/// A goal's measure, in its own unit.
pub(crate) fn measure(goal: &Goal, report: &CostReport, device: Option<&CostDevice>) -> Result<f64> {
    Ok(match goal {
        Goal::Blocks(_) => 0.0,
        Goal::Params(_) => report.parameters as f64,
        Goal::Macs(_) => report.macs.full as f64,
        Goal::Memory(_) => report.weight_bytes as f64,
        Goal::Latency { device: name, .. } => {
            let device = device.ok_or_else(|| PruneError::Unfit(format!("device `{name}` is not known")))?;
            roofline(report, device)?.seconds
        }
    })
}

/// The upper bound that a goal sets for a model of this dense cost.
pub(crate) fn bound(goal: &Goal, dense: &CostReport, device: Option<&CostDevice>) -> Result<f64> {
    let whole = measure(goal, dense, device)?;
    Ok(match goal {
        Goal::Params(a) | Goal::Macs(a) | Goal::Memory(a) => a.bound(whole),
        Goal::Latency { seconds, .. } => *seconds,
        Goal::Blocks(_) => 0.0,
    })
}

/// A measured value with its share of the dense model's.
pub(crate) fn shown(
    goal: &Goal,
    value: f64,
    dense: &CostReport,
    device: Option<&CostDevice>,
) -> Result<String> {
    let share = 100.0 * value / measure(goal, dense, device)?.max(f64::MIN_POSITIVE);
    Ok(match goal {
        Goal::Latency { .. } => format!("{:.3} ms ({share:.2} %)", value * 1e3),
        _ => format!("{value:.0} ({share:.2} %)"),
    })
}
