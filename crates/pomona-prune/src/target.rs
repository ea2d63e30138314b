//! Targets: upper bounds that a plan meets with the smallest change.

use std::fmt;
use std::str::FromStr;

/// What must remain, or how many parts go.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// Exactly this many parts go.
    Blocks(usize),
    /// Parameters that remain.
    Params(Amount),
    /// Multiply-accumulates (`full`) that remain.
    Macs(Amount),
    /// Bytes of weights that remain.
    Memory(Amount),
    /// Predicted seconds of one run on a device.
    Latency {
        /// Upper bound, seconds.
        seconds: f64,
        /// Name of the device.
        device: String,
    },
}

/// An absolute amount or a share of the dense model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Share, from 0 to 1.
    Share(f64),
    /// In the measure's own unit.
    Absolute(f64),
}

impl Amount {
    /// The bound for a model that measures `dense`.
    pub fn bound(self, dense: f64) -> f64 {
        match self {
            Amount::Share(s) => s * dense,
            Amount::Absolute(a) => a,
        }
    }
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let usage = || {
            format!(
                "`{s}` is not a target: blocks=6, params=80%, macs=70%, memory=300MB or latency=80ms@DEVICE"
            )
        };
        let (name, value) = s.split_once('=').ok_or_else(usage)?;
        match name {
            "blocks" => value.parse().map(Goal::Blocks).map_err(|_| usage()),
            "params" => amount(value, &COUNTS).map(Goal::Params).ok_or_else(usage),
            "macs" => amount(value, &COUNTS).map(Goal::Macs).ok_or_else(usage),
            "memory" => amount(value, &BYTES).map(Goal::Memory).ok_or_else(usage),
            "latency" => {
                let (time, device) = value.split_once('@').ok_or_else(usage)?;
                let seconds = match amount(time, &TIMES) {
                    Some(Amount::Absolute(t)) => t,
                    _ => return Err(usage()),
                };
                Ok(Goal::Latency { seconds, device: device.to_owned() })
            }
            _ => Err(usage()),
        }
    }
}

const COUNTS: [(&str, f64); 4] = [("k", 1e3), ("M", 1e6), ("G", 1e9), ("B", 1e9)];
const BYTES: [(&str, f64); 6] =
    [("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)];
const TIMES: [(&str, f64); 3] = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];

fn amount(text: &str, units: &[(&str, f64)]) -> Option<Amount> {
    let positive = |t: &str| t.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0);
    if let Some(percent) = text.strip_suffix('%') {
        return positive(percent).filter(|p| *p <= 100.0).map(|p| Amount::Share(p / 100.0));
    }
    for (suffix, factor) in units {
        if let Some(value) = text.strip_suffix(suffix).and_then(positive) {
            return Some(Amount::Absolute(value * factor));
        }
    }
    positive(text).map(Amount::Absolute)
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |name: &str, a: &Amount| match a {
            Amount::Share(s) => format!("{name}={}%", s * 100.0),
            Amount::Absolute(v) => format!("{name}={v}"),
        };
        match self {
            Goal::Blocks(n) => write!(f, "blocks={n}"),
            Goal::Params(a) => f.write_str(&show("params", a)),
            Goal::Macs(a) => f.write_str(&show("macs", a)),
            Goal::Memory(a) => f.write_str(&show("memory", a)),
            Goal::Latency { seconds, device } => write!(f, "latency={}ms@{device}", seconds * 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_bad_ones_say_what_works() {
        for (text, goal) in [
            ("blocks=6", Goal::Blocks(6)),
            ("params=80%", Goal::Params(Amount::Share(0.8))),
            ("params=100M", Goal::Params(Amount::Absolute(1e8))),
            ("macs=1.5G", Goal::Macs(Amount::Absolute(1.5e9))),
            ("memory=300MB", Goal::Memory(Amount::Absolute(3e8))),
            ("memory=1GiB", Goal::Memory(Amount::Absolute(1_073_741_824.0))),
            ("latency=80ms@rpi4", Goal::Latency { seconds: 0.08, device: "rpi4".to_owned() }),
        ] {
            assert_eq!(text.parse::<Goal>(), Ok(goal), "{text}");
        }
        for bad in [
            "",
            "blocks",
            "blocks=-1",
            "params=0%",
            "params=120%",
            "memory=x",
            "latency=80ms",
            "speed=2",
            "params=NaN",
        ] {
            assert!(bad.parse::<Goal>().is_err_and(|e| e.contains("params=80%")), "{bad}");
        }
    }
}
