//! Time on a device: for each operator the larger of computing and moving bytes, and a term for each launched operator.
//!
//! The term is not small change. Decoding LLaMA-7B on an H100 takes 0.58 ms a block where its weights need 0.12 ms
//! (arXiv 2402.02834, table 2): depth counts there, neither parameters nor MACs do. A prediction is the time that the
//! device's numbers allow; kernels that do not reach them take longer.

use serde::{Deserialize, Serialize};

use crate::device::{Device, Dispatch};
use crate::error::Result;
use crate::report::{CostReport, OperatorCost};

/// What sets the time of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Bytes.
    Memory,
    /// Launching.
    Launch,
}

/// Time of one operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorLatency {
    /// Path of its node.
    pub path: String,
    /// By how many seconds it puts off the end of the run.
    pub seconds: f64,
    /// What sets it.
    pub bound: Bound,
}

/// Time of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Name of the device.
    pub device: String,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// The device's launch time is not known, or operators had no count: it takes longer.
    pub lower_bound: bool,
    /// Launched operators.
    pub launches: u64,
    /// Seconds by what bounds them: their sum is `seconds`.
    pub compute_seconds: f64,
    /// See [`Latency::compute_seconds`].
    pub memory_seconds: f64,
    /// See [`Latency::compute_seconds`].
    pub launch_seconds: f64,
    /// Each launched operator, in order.
    pub operators: Vec<OperatorLatency>,
}

/// Predicts the time of the run that the report counts, in the report's element type. An error where the device has no
/// rate for that type.
pub fn roofline(report: &CostReport, device: &Device) -> Result<Latency> {
    let products = device.rate(&report.activation_dtype)?;
    // Element-wise work runs outside of the matrix units.
    let others = device.rate("f32").unwrap_or(products);
    let launch = device.launch_seconds.unwrap_or(0.0);
    let mut out = Latency {
        device: device.name.clone(),
        seconds: 0.0,
        lower_bound: device.launch_seconds.is_none() || !report.uncounted.is_empty(),
        launches: 0,
        compute_seconds: 0.0,
        memory_seconds: 0.0,
        launch_seconds: 0.0,
        operators: Vec::new(),
    };
    let mut host = 0.0_f64;
    for op in report.operators.iter().filter(|o| o.launched) {
        let compute = op.product_flops() / products + op.other_ops as f64 / others;
        let memory = moved(op, device) as f64 / device.memory_bandwidth;
        let work = compute.max(memory);
        host += launch;
        let start = match device.dispatch {
            Dispatch::Blocking => out.seconds + launch,
            Dispatch::Queued => out.seconds.max(host),
        };
        let waited = start - out.seconds;
        let bound = if waited > work {
            Bound::Launch
        } else if compute >= memory {
            Bound::Compute
        } else {
            Bound::Memory
        };
        let busy = if compute >= memory { &mut out.compute_seconds } else { &mut out.memory_seconds };
        *busy += work;
        out.launch_seconds += waited;
        out.launches += 1;
        out.seconds = start + work;
        out.operators.push(OperatorLatency { path: op.path.clone(), seconds: waited + work, bound });
    }
    Ok(out)
}

/// Bytes that go over the memory bus: weights always; activations unless they stay in the cache.
fn moved(op: &OperatorCost, device: &Device) -> u64 {
    let activations = op.traffic.read.saturating_add(op.traffic.written);
    match device.cache_bytes {
        Some(cache) if activations <= cache => op.traffic.weights,
        _ => op.traffic.weights.saturating_add(activations),
    }
}
