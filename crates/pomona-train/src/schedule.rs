//! The step size over a run.

use serde::{Deserialize, Serialize};

/// What the rate does after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Stays.
    Constant,
    /// Falls in a straight line.
    Linear,
    /// Falls along half a cosine.
    Cosine,
}

/// How long the rate rises from nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// This many steps.
    Steps(u64),
    /// This share of the run.
    Share(f64),
}

/// Step sizes: a linear rise, then a decay to a share of the peak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The peak.
    pub rate: f64,
    /// After the warm-up.
    pub decay: Decay,
    /// Before it.
    pub warmup: Warmup,
    /// Share of the peak at the end.
    pub floor: f64,
}

/// Where a run stands: steps, or time where only that limits it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Position {
    /// Steps done, of all.
    Steps {
        /// Done before this one.
        done: u64,
        /// All.
        of: u64,
    },
    /// Seconds spent, of all, and the steps that they were spent on.
    Seconds {
        /// Steps done before this one.
        done: u64,
        /// Share of the time that is spent.
        spent: f64,
    },
}

impl Schedule {
    /// The rate of the next step. The first step of a warm-up of n has a share of 1/n, so that none is wasted; the decay begins
    /// with the step after.
    pub fn at(&self, position: Position) -> f64 {
        let (warm, along) = match position {
            Position::Steps { done, of } => {
                let warmup = match self.warmup {
                    Warmup::Steps(n) => n,
                    Warmup::Share(s) => (s.clamp(0.0, 1.0) * of as f64).round() as u64,
                };
                let warm = if done < warmup { (done + 1) as f64 / warmup as f64 } else { 1.0 };
                (warm, done.saturating_sub(warmup) as f64 / of.saturating_sub(warmup).max(1) as f64)
            }
            Position::Seconds { done, spent } => match self.warmup {
                Warmup::Steps(n) if done < n => ((done + 1) as f64 / n as f64, 0.0),
                Warmup::Steps(_) => (1.0, spent),
                Warmup::Share(s) if spent < s => ((spent / s).max(0.01), 0.0),
                Warmup::Share(s) => (1.0, (spent - s) / (1.0 - s).max(f64::MIN_POSITIVE)),
            },
        };
        let left = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - along,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * along.clamp(0.0, 1.0)).cos()),
        };
        self.rate * warm * (self.floor + (1.0 - self.floor) * left.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(decay: Decay, warmup: Warmup, floor: f64) -> Vec<f64> {
        let s = Schedule { rate: 2.0, decay, warmup, floor };
        (0..8).map(|done| (s.at(Position::Steps { done, of: 8 }) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn the_rate_rises_and_falls() {
        assert_eq!(rates(Decay::Constant, Warmup::Steps(4), 0.0), [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(rates(Decay::Linear, Warmup::Share(0.5), 0.0), [0.5, 1.0, 1.5, 2.0, 2.0, 1.5, 1.0, 0.5]);
        assert_eq!(rates(Decay::Linear, Warmup::Steps(0), 0.5)[7], 1.125);
        assert_eq!(rates(Decay::Cosine, Warmup::Steps(0), 0.0)[4], 1.0);
        let s = Schedule { rate: 1.0, decay: Decay::Linear, warmup: Warmup::Share(0.2), floor: 0.0 };
        assert_eq!(s.at(Position::Seconds { done: 9, spent: 0.1 }), 0.5);
        assert!((s.at(Position::Seconds { done: 9, spent: 0.6 }) - 0.5).abs() < 1e-12);
    }
}
