//! Criteria (what a part is worth), score files, and the methods that plan what goes.

pub mod criteria;
mod error;
pub mod methods;
mod scores;
mod sweep;
mod target;
mod unit;
mod work;

pub use criteria::Criterion;
pub use error::{PruneError, Result};
pub use scores::{DataId, Part, Round, SCORES_VERSION, Scores, Settings, is_protected};
pub use sweep::{Chain, SweepLosses};
pub use target::{Amount, Goal};
pub use unit::{Unit, UnitKind, units};
pub use work::WorkFiles;
