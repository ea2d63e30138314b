//! Devices: the few numbers that a roofline needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{CostError, Result};

/// A device as a row of the table, of a user's file, or as measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Short name, as `--device` takes it.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Peak floating-point (or integer) operations per second by element type, dense; a multiply-accumulate is two.
    pub peak_flops: BTreeMap<String, f64>,
    /// Bytes per second between the device and its memory.
    pub memory_bandwidth: f64,
    /// Last-level cache in bytes: activations of an operator that fit in it cost no memory time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// Seconds that launching one operator takes, whatever its size. Without it no time is counted for launches and
    /// predictions are lower bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_seconds: Option<f64>,
    /// Whether launching overlaps with computing.
    #[serde(default)]
    pub dispatch: Dispatch,
    /// Where the numbers come from.
    pub source: String,
}

/// How launches and computation relate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dispatch {
    /// The processor that launches also computes: the times add up.
    #[default]
    Blocking,
    /// A host fills a queue that the device empties: the slower of the two sets the pace.
    Queued,
}

impl Device {
    /// Peak rate for an element type. A 16-bit float without a rate of its own is computed in f32, as run times do.
    pub fn rate(&self, dtype: &str) -> Result<f64> {
        let fallback: &[&str] = match dtype {
            "bf16" | "f16" => &["f16", "f32"],
            _ => &[],
        };
        let names = std::iter::once(dtype).chain(fallback.iter().copied());
        names.filter_map(|n| self.peak_flops.get(n)).next().copied().ok_or_else(|| CostError::NoRate {
            device: self.name.clone(),
            dtype: dtype.to_owned(),
            known: self.peak_flops.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Refuses numbers that no device has: zero, negative, or not finite.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(CostError::BadDevice { device: self.name.clone(), message });
        let positive = |v: f64| v.is_finite() && v > 0.0;
        if self.peak_flops.is_empty() {
            return refuse("`peak_flops` is empty: give at least one rate, such as \"f32\": 5e10".to_owned());
        }
        for (dtype, rate) in &self.peak_flops {
            if !positive(*rate) {
                return refuse(format!(
                    "peak_flops.{dtype} is {rate}; expected operations per second above 0"
                ));
            }
        }
        if !positive(self.memory_bandwidth) {
            return refuse(format!(
                "memory_bandwidth is {}; expected bytes per second above 0",
                self.memory_bandwidth
            ));
        }
        match self.launch_seconds {
            Some(t) if !(t.is_finite() && t >= 0.0) => {
                refuse(format!("launch_seconds is {t}; expected seconds, 0 or more"))
            }
            _ => Ok(()),
        }
    }
}
