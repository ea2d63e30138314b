//! What a neural network costs: parameters, multiply-accumulates, bytes, peak activations and time on a device.
//!
//! Everything is worked out from a bound graph, without weights. An operator that has no count is named in the report and
//! left out of the sums; it is never guessed.

mod blocks;
mod cost;
mod count;
mod defaults;
mod device;
mod device_table;
mod dtype;
mod error;
mod liveness;
mod measure;
mod report;
mod roofline;
mod state;
mod tree;

pub use blocks::BlockSpec;
pub use cost::{CostOptions, cost};
pub use count::{OpCost, Shapes, macs};
pub use defaults::{decode_bindings, default_bindings};
pub use device::{Device, Dispatch};
pub use device_table::{THIS_MACHINE, builtin_devices, find_device, load_device, save_device};
pub use dtype::{Encoding, encoding, is_float, stored_bytes};
pub use error::{CostError, Result};
pub use measure::{MeasureOptions, Probes, measure_device, triad_bandwidth};
pub use report::{
    BlockCost, CostReport, InputShape, Macs, ModuleCost, OperatorCost, Peak, StateBytes, Traffic, Uncounted,
};
pub use roofline::{Bound, Latency, OperatorLatency, roofline};
