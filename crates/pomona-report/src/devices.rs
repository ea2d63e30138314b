//! Known devices as a table.

use pomona_cost::Device;

use crate::style::Style;
use crate::table::{Align, Table};
use crate::units::{operations, seconds};

/// A line a device; rates in operations per second, then where the numbers come from.
pub fn device_table(devices: &[Device], style: Style) -> String {
    let mut table = Table::new(&[
        ("device", Align::Left),
        ("", Align::Left),
        ("f32/s", Align::Right),
        ("f16/s", Align::Right),
        ("i8/s", Align::Right),
        ("memory/s", Align::Right),
        ("launch", Align::Right),
    ]);
    for d in devices {
        let rate = |name: &str| d.peak_flops.get(name).map_or("-".to_owned(), |r| operations(*r as u64));
        table.row([
            d.name.clone(),
            d.title.clone(),
            rate("f32"),
            rate("f16"),
            rate("i8"),
            crate::units::bytes(d.memory_bandwidth as u64),
            d.launch_seconds.map_or("?".to_owned(), seconds),
        ]);
    }
    let mut out = table.render(style) + "\n";
    for d in devices {
        out += &style.dim(&format!(
            "{}: {}",
            crate::table::printable(&d.name),
            crate::table::printable(&d.source)
        ));
        out.push('\n');
    }
    out
}
