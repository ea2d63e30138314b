//! Score files of filters: a vector a coupled group. Kept, because a new target needs only a new plan.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::criteria::filters::{Aggregate, FilterCriterion, Gamma};
use crate::error::{PruneError, Result};
use crate::scores::DataId;

/// Version of the format.
pub const FILTER_SCORES_VERSION: u32 = 1;

/// A score file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterScores {
    /// [`FILTER_SCORES_VERSION`].
    pub filters_version: u32,
    /// The program, with its version.
    pub tool: String,
    /// Fingerprint of the model.
    pub fingerprint: String,
    /// The component that was scored, where a pipeline has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// How it was scored.
    pub settings: FilterSettings,
    /// Calibration data, where the criterion reads any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataId>,
    /// The groups that are scored, in the graph's order.
    pub groups: Vec<GroupScores>,
    /// Whether scoring came to its end; otherwise the same command goes on.
    pub complete: bool,
}

/// How filters are scored. A file made with other settings is not continued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSettings {
    /// What a channel is worth.
    pub criterion: FilterCriterion,
    /// How its measures in several tensors become one score.
    pub aggregate: Aggregate,
    /// Calibration samples.
    pub samples: usize,
    /// Seed of whatever is random.
    pub seed: u64,
    /// What is scored.
    #[serde(default, skip_serializing_if = "ScoredUnit::is_channels")]
    pub unit: ScoredUnit,
    /// The leading components of the logits, where the criterion reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<Gamma>,
}

/// The smallest thing that has a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoredUnit {
    /// A channel of a coupled group.
    #[default]
    Channels,
    /// A head of an attention's keys, with its values and the queries that share it.
    Heads,
}

impl ScoredUnit {
    fn is_channels(&self) -> bool {
        *self == Self::Channels
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Channels => "channels",
            Self::Heads => "heads",
        }
    }
}

/// Scores of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupScores {
    /// Name, as `keep` edits use it.
    pub name: String,
    /// A score a channel; empty where the criterion has nothing to measure, and the group stays whole.
    pub scores: Vec<f64>,
}

impl FilterScores {
    /// Reads a score file.
    pub fn read(path: &Path) -> Result<FilterScores> {
        let fail = |message: String| PruneError::Scores { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let damaged = |e: serde_json::Error| {
            fail(format!("is not a score file of filters ({e}): `pomona score --method filters` makes one"))
        };
        #[derive(Deserialize)]
        struct Head {
            filters_version: u32,
        }
        let head: Head = serde_json::from_str(&text).map_err(damaged)?;
        if head.filters_version != FILTER_SCORES_VERSION {
            return Err(fail(format!(
                "has version {}; this program reads version {FILTER_SCORES_VERSION}: score again",
                head.filters_version
            )));
        }
        let scores: FilterScores = serde_json::from_str(&text).map_err(damaged)?;
        let finite = |g: &GroupScores| g.scores.iter().all(|s| s.is_finite());
        match scores.groups.iter().find(|g| !finite(g)) {
            Some(g) => Err(fail(format!("`{}` has a score that is not a number: score again", g.name))),
            None => Ok(scores),
        }
    }

    /// The file's text.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string(self).map_err(|e| PruneError::Unfit(e.to_string()))?;
        // A line a group: files are compared and kept in git.
        Ok(text.replace("{\"name\":", "\n{\"name\":") + "\n")
    }

    /// Writes the file so that a reader sees the old one or the new.
    pub fn write(&self, path: &Path) -> Result<()> {
        let fail = |message: String| PruneError::Scores { path: path.to_owned(), message };
        pomona_store::write_atomic(path, self.to_json()?.as_bytes()).map_err(|e| fail(e.to_string()))
    }

    /// Refuses scores of another model, and scores that are not finished.
    pub fn check(&self, path: &Path, matches: bool) -> Result<()> {
        let fail =
            |message: &str| Err(PruneError::Scores { path: path.to_owned(), message: message.to_owned() });
        if !matches {
            return fail("was made for another model (its fingerprint differs): score this model");
        }
        if !self.complete {
            return fail("is not finished: run the same `pomona score` again, it goes on where it stopped");
        }
        Ok(())
    }

    /// The scores of a group.
    pub fn of(&self, name: &str, channels: usize) -> Option<&[f64]> {
        let group = self.groups.iter().find(|g| g.name == name)?;
        (group.scores.len() == channels).then_some(group.scores.as_slice())
    }
}

/// The unfinished file of the same work, or the fresh one; an error where it holds something else.
pub(crate) fn continued(path: Option<&PathBuf>, fresh: FilterScores) -> Result<FilterScores> {
    let Some(path) = path.filter(|p| p.exists()) else { return Ok(fresh) };
    let found = FilterScores::read(path)?;
    let differs = [
        (found.fingerprint != fresh.fingerprint || found.component != fresh.component, "model"),
        (found.settings != fresh.settings, "settings"),
        (
            found.data.as_ref().map(|d| &d.fingerprint) != fresh.data.as_ref().map(|d| &d.fingerprint),
            "calibration data",
        ),
        (found.tool != fresh.tool, "program version"),
    ];
    match differs.into_iter().find(|(differs, _)| *differs) {
        Some((_, what)) => Err(PruneError::Scores {
            path: path.clone(),
            message: format!(
                "holds scores with other {what}: choose another file, or remove it to score anew"
            ),
        }),
        None => Ok(found),
    }
}
