//! Terminal tables and JSON of what was counted and measured. Functions from data to text; printing is the caller's.

mod blocks;
mod chart;
mod compare;
mod devices;
mod groups;
mod inspect;
mod json;
mod modules;
mod removal;
mod style;
mod table;
pub mod units;

pub use blocks::block_table;
pub use chart::{Line, LineChart, line_chart};
pub use compare::{Measure, compare, compare_costs};
pub use devices::device_table;
pub use groups::{group_table, group_text, is_never_cut};
pub use inspect::{InspectOptions, inspect, latency_table};
pub use json::to_json;
pub use modules::{Repeats, TreeOptions, module_table};
pub use removal::removal;
pub use style::Style;
pub use table::{Align, Table};
