//! What a race ran on, for the documents: figures of one machine are not those of another.

use serde_json::{Value, json};

/// Processor times of all cores since the system began, in ticks: all of them, and those that a host gave to others.
#[derive(Clone, Copy)]
pub struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    /// Those so far; none where the system does not say.
    pub fn now() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let fields = text.lines().next()?.split_whitespace().skip(1);
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in them.
        let fields: Vec<u64> = fields.take(8).map_while(|f| f.parse().ok()).collect();
        Some(Self { all: fields.iter().sum(), stolen: *fields.get(7)? })
    }

    /// Share of the time since then that a host gave to others.
    pub fn stolen_since(self) -> Option<f64> {
        let now = Self::now()?;
        Some((now.stolen - self.stolen) as f64 / (now.all - self.all).max(1) as f64)
    }
}

/// The processor, its cores and the widest instructions that kernels use on it.
pub fn describe() -> Value {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, m)| m.trim().to_owned()));
    json!({
        "processor": model,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "instructions": pomona_exec::instructions(),
    })
}
