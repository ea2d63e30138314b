//! Criteria (what a part is worth), score files, and the methods that plan what goes.

mod budget;
pub mod criteria;
mod error;
mod filter_scores;
mod ladder;
mod levels;
pub mod methods;
mod ratios;
mod scores;
mod sensitivity;
mod streams;
mod sweep;
mod target;
mod unit;
mod work;

pub use budget::report;
pub use criteria::Criterion;
pub use error::{PruneError, Result};
pub use filter_scores::{FILTER_SCORES_VERSION, FilterScores, FilterSettings, GroupScores, ScoredUnit};
pub use ladder::{Fit, Ladder, LadderOptions, Order};
pub use levels::{drop_levels, group_levels};
pub use ratios::Ratios;
pub use scores::{DataId, Part, Round, SCORES_VERSION, Scores, Settings, is_protected};
pub use sensitivity::{
    SENSITIVITY_VERSION, Sample, Sensitivity, SensitivityRow, SensitivitySettings, Sweep, sweep,
};
pub use streams::STREAM;
pub use sweep::{Chain, SweepLosses};
pub use target::{Amount, Goal};
pub use unit::{Unit, UnitKind, units};
pub use work::WorkFiles;
