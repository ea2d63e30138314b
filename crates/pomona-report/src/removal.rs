//! Which modules a plan removes and what it cuts.

use pomona_graph::GraphDiff;

use crate::style::Style;
use crate::table::{Align, Table};
use crate::units::exact;

/// Tensors that are listed one by one.
const LISTED: usize = 12;

/// The removed modules with their class and parameters, and the tensors that become smaller. Empty where nothing changes.
pub fn removal(diff: &GraphDiff, style: Style) -> String {
    let mut out = String::new();
    if !diff.removed.is_empty() {
        let mut table =
            Table::new(&[("removed", Align::Left), ("class", Align::Left), ("parameters", Align::Right)]);
        for r in &diff.removed {
            table.row([r.path.clone(), r.class.clone(), exact(r.parameters)]);
        }
        let sum = diff.removed.iter().map(|r| r.parameters).sum();
        table.row(["together".to_owned(), String::new(), exact(sum)]);
        out += &table.render(style);
    }
    if !diff.changed.is_empty() {
        let mut table =
            Table::new(&[("cut", Align::Left), ("before", Align::Right), ("after", Align::Right)]);
        for c in diff.changed.iter().take(LISTED) {
            table.row([c.name.clone(), format!("{:?}", c.before), format!("{:?}", c.after)]);
        }
        out += &table.render(style);
        if diff.changed.len() > LISTED {
            out += &format!("and {} more tensors\n", diff.changed.len() - LISTED);
        }
    }
    out
}
