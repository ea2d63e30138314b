//! Criteria: what a part is worth. Lower scores go first.

mod block_influence;
pub mod filters;
mod magnitude;
mod perplexity;
mod random;
mod taylor;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use block_influence::block_influence;
pub use magnitude::magnitude;
pub use perplexity::{Journal, Perplexities, perplexity, screened_perplexity};
pub use random::random;
pub use taylor::taylor;

/// A criterion by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// Perplexity of the model without the part.
    Perplexity,
    /// Sum of |weight x gradient|.
    Taylor,
    /// Sum of |weight|.
    Magnitude,
    /// 1 - cosine of the part's input and output.
    BlockInfluence,
    /// A seeded random order: the control.
    Random,
}

impl Criterion {
    /// Every criterion.
    pub const ALL: [Criterion; 5] =
        [Self::Perplexity, Self::Taylor, Self::Magnitude, Self::BlockInfluence, Self::Random];

    /// Name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Perplexity => "perplexity",
            Self::Taylor => "taylor",
            Self::Magnitude => "magnitude",
            Self::BlockInfluence => "block-influence",
            Self::Random => "random",
        }
    }

    /// Whether it runs the model on data.
    pub fn needs_data(self) -> bool {
        matches!(self, Self::Perplexity | Self::Taylor | Self::BlockInfluence)
    }
}

impl FromStr for Criterion {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let s = if matches!(s, "l1") { "magnitude" } else { s };
        Self::ALL.into_iter().find(|c| c.name() == s).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|c| c.name()).collect();
            format!("unknown criterion `{s}`: one of {}", names.join(", "))
        })
    }
}
