//! Parts that methods may remove, as a table.

use pomona_cost::CostReport;

use crate::style::Style;
use crate::table::{Align, Table};
use crate::units::{bytes, operations, parameters, share};

/// A line a part: what it holds, what it costs and whether it can go.
pub fn block_table(report: &CostReport, style: Style) -> String {
    let mut table = Table::new(&[
        ("block", Align::Left),
        ("class", Align::Left),
        ("parameters", Align::Right),
        ("share", Align::Right),
        ("weights", Align::Right),
        ("MACs", Align::Right),
        ("removable", Align::Left),
    ]);
    for b in &report.blocks {
        table.row([
            b.path.clone(),
            b.class.clone().unwrap_or_default(),
            parameters(b.parameters),
            share(b.parameters, report.parameters),
            bytes(b.weight_bytes),
            operations(b.macs),
            if b.removable { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.render(style)
}
