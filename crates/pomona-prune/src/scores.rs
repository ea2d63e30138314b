//! Score files: what was measured, on what, with which settings. Scoring is dear, so the file is kept, and an
//! interrupted run goes on from it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use pomona_graph::Graph;
use pomona_task::SampleLoss;
use serde::{Deserialize, Serialize};

use crate::criteria::Criterion;
use crate::error::{PruneError, Result};
use crate::unit::{Unit, UnitKind, units};

/// Version of the score format.
pub const SCORES_VERSION: u32 = 2;

/// Most bytes of a score file: losses of an unfinished run of hundreds of parts on thousands of samples.
const MAX_BYTES: u64 = 256 << 20;
/// No model has more blocks, however few of them were scored.
const MAX_BLOCKS: usize = 1 << 16;

/// A score file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// [`SCORES_VERSION`].
    pub version: u32,
    /// The program, with its version.
    pub tool: String,
    /// Fingerprint of the model.
    pub fingerprint: String,
    /// How it was scored.
    pub settings: Settings,
    /// Calibration data, where the criterion reads any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataId>,
    /// Perplexity of the whole model on the calibration data, where the criterion measures it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense: Option<f64>,
    /// Every part in the order in which data flows.
    pub parts: Vec<Part>,
    /// Removal by removal, where parts were scored again after each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Round>,
    /// Whether scoring came to its end; otherwise the same command goes on.
    pub complete: bool,
    /// Losses of finished groups of samples of an unfinished run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<Group>,
}

/// How parts are scored. A file made with other settings is not continued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What a part is worth.
    pub criterion: Criterion,
    /// Which parts.
    pub unit: UnitKind,
    /// Blocks at the beginning and at the end that are never removed.
    pub protect: [usize; 2],
    /// Number of removals with new scores after each; none for one pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterative: Option<usize>,
    /// Successive halving over samples, with at least this many parts seeing every sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<usize>,
    /// Windows of calibration text.
    pub samples: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Seed of whatever is random.
    pub seed: u64,
}

/// Identity of calibration data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataId {
    /// Hash of what the model sees.
    pub fingerprint: String,
    /// Where it came from.
    pub source: String,
}

/// A part with its score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its path.
    pub path: String,
    /// Index of its block, from 0.
    pub block: usize,
    /// Parameters that go with it.
    pub parameters: u64,
    /// Its score; lower goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// One removal of an iterative run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The part that went.
    pub removed: String,
    /// Its score in this round.
    pub score: f64,
}

/// Losses of a group of samples in an unfinished sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Paths of parts that were gone already.
    pub removed: Vec<String>,
    /// Paths of the candidates.
    pub candidates: Vec<String>,
    /// First sample and end.
    pub samples: [usize; 2],
    /// Sum and count of each sample with everything else in place.
    pub dense: Vec<(f64, usize)>,
    /// The same without each candidate.
    pub without: Vec<Vec<(f64, usize)>>,
}

/// JSON has no infinity. The largest number takes its place: either gives an infinite perplexity.
pub(crate) fn pack(losses: &[SampleLoss]) -> Vec<(f64, usize)> {
    losses.iter().map(|l| (l.sum.min(f64::MAX), l.count)).collect()
}

pub(crate) fn unpack(losses: &[(f64, usize)]) -> Vec<SampleLoss> {
    losses.iter().map(|&(sum, count)| SampleLoss { sum, count }).collect()
}

impl Scores {
    /// Reads a score file.
    pub fn read(path: &Path) -> Result<Scores> {
        let fail = |message: String| PruneError::Scores { path: path.to_owned(), message };
        let unread = |e: std::io::Error| fail(format!("cannot be read: {e}"));
        let size = std::fs::metadata(path).map_err(unread)?.len();
        if size > MAX_BYTES {
            return Err(fail(format!("has {size} bytes; a score file has at most {MAX_BYTES}")));
        }
        let text = std::fs::read_to_string(path).map_err(unread)?;
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let damaged = |e: serde_json::Error| fail(format!("is not a score file ({e}): score again"));
        let head: Head = serde_json::from_str(&text).map_err(damaged)?;
        if head.version != SCORES_VERSION {
            return Err(fail(format!(
                "has version {}; this program reads version {SCORES_VERSION}: score again",
                head.version
            )));
        }
        let scores: Scores = serde_json::from_str(&text).map_err(damaged)?;
        if scores.parts.iter().any(|p| p.score.is_some_and(|s| s.is_nan())) {
            return Err(fail("holds a score that is not a number: score again".to_owned()));
        }
        scores.consistent().map_err(|what| fail(format!("{what}: score again")))?;
        Ok(scores)
    }

    /// What a file that was changed by hand may break.
    fn consistent(&self) -> std::result::Result<(), String> {
        let known: HashSet<&str> = self.parts.iter().map(|p| p.path.as_str()).collect();
        if self.parts.is_empty() || known.len() != self.parts.len() {
            return Err("names no parts, or one twice".to_owned());
        }
        if let Some(p) = self.parts.iter().find(|p| p.block >= self.parts.len().max(MAX_BLOCKS)) {
            return Err(format!("says that `{}` is in block {}", p.path, p.block));
        }
        let blocks = self.parts.iter().map(|p| p.block + 1).max().unwrap_or(0);
        if self.settings.protect.iter().any(|n| *n > blocks) {
            return Err(format!("protects {:?} of {blocks} blocks", self.settings.protect));
        }
        if self.complete && self.rounds.is_empty() && self.parts.iter().all(|p| p.score.is_none()) {
            return Err("is complete and has no score".to_owned());
        }
        let mut removed = HashSet::new();
        for round in &self.rounds {
            if !known.contains(round.removed.as_str()) || !removed.insert(&round.removed) {
                return Err(format!("removes `{}`, which is no part or was removed before", round.removed));
            }
        }
        let whole = |g: &Group| g.samples[0] <= g.samples[1] && g.without.len() == g.candidates.len();
        if !self.partial.iter().all(whole) {
            return Err("has a group of losses that does not fit its samples and candidates".to_owned());
        }
        Ok(())
    }

    /// Refuses scores whose parts are not those of the model.
    pub fn check_parts(&self, path: &Path, graph: &Graph) -> Result<()> {
        let (units, _) = units(graph, self.settings.unit)?;
        let differs = |(p, u): &(&Part, &Unit)| {
            p.path != u.region.path || p.block != u.block || p.parameters != u.region.parameters
        };
        let message = match self.parts.iter().zip(&units).find(differs) {
            None if self.parts.len() == units.len() => return Ok(()),
            None => format!("scores {} parts; the model has {}: score again", self.parts.len(), units.len()),
            Some((p, u)) => {
                format!("scores `{}` where the model has `{}`: score again", p.path, u.region.path)
            }
        };
        Err(PruneError::Scores { path: path.to_owned(), message })
    }

    /// The file's text.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| PruneError::Unfit(e.to_string()))?;
        Ok(text + "\n")
    }

    /// Writes the file so that a reader sees the old one or the new.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(pomona_store::write_atomic(path, self.to_json()?.as_bytes())?)
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

    /// Paths that may go, least important first. Parts of protected blocks are left out.
    pub fn order(&self, protect: [usize; 2]) -> Vec<String> {
        if !self.rounds.is_empty() {
            return self.rounds.iter().map(|r| r.removed.clone()).collect();
        }
        let blocks = self.parts.iter().map(|p| p.block + 1).max().unwrap_or(0);
        let free = |p: &&Part| !is_protected(p.block, blocks, protect);
        let mut ranked: Vec<&Part> = self.parts.iter().filter(|p| p.score.is_some()).filter(free).collect();
        let score = |p: &Part| p.score.unwrap_or(f64::INFINITY);
        ranked.sort_by(|a, b| score(a).total_cmp(&score(b)));
        ranked.into_iter().map(|p| p.path.clone()).collect()
    }
}

/// Whether a block is one of the first or last that are never removed.
pub fn is_protected(block: usize, blocks: usize, [first, last]: [usize; 2]) -> bool {
    block < first || block.saturating_add(last) >= blocks
}

/// A score file under way: saved after every group of samples.
pub(crate) struct Keeper {
    pub scores: Scores,
    pub path: Option<PathBuf>,
}

impl Keeper {
    pub fn save(&self) -> Result<()> {
        match &self.path {
            Some(path) => self.scores.write(path),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn scores(values: &[f64]) -> Scores {
        let part =
            |(i, s): (usize, &f64)| Part { path: format!("b.{i}"), block: i, parameters: 1, score: Some(*s) };
        Scores {
            version: SCORES_VERSION,
            tool: "t".into(),
            fingerprint: "f".into(),
            settings: Settings {
                criterion: Criterion::Perplexity,
                unit: UnitKind::Block,
                protect: [1, 1],
                iterative: None,
                screen: None,
                samples: 2,
                tokens: 4,
                seed: 0,
            },
            data: None,
            dense: Some(0.1 + 0.2),
            parts: values.iter().enumerate().map(part).collect(),
            rounds: vec![],
            complete: true,
            partial: vec![],
        }
    }

    #[test]
    fn order_is_by_score_then_position_without_protected_blocks() {
        let s = scores(&[0.0, 5.0, 3.0, 3.0, 9.0, 1.0]);
        assert_eq!(s.order([1, 1]), ["b.2", "b.3", "b.1", "b.4"]);
        assert_eq!(s.order([0, 0])[0], "b.0");
    }

    #[test]
    fn files_come_back_equal_and_bad_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.json");
        let s = scores(&[1.0, 2.0]);
        s.write(&path).unwrap();
        assert_eq!(Scores::read(&path).unwrap(), s);
        let text = s.to_json().unwrap();
        for bad in [&text[..text.len() / 2], "{}", "", &text.replace("\"version\": 2", "\"version\": 9")] {
            std::fs::write(&path, bad).unwrap();
            let message = Scores::read(&path).unwrap_err().to_string();
            assert!(message.contains("scores.json") && message.contains("score"), "{message}");
        }
        assert!(s.check(&path, false).unwrap_err().to_string().contains("another model"));
    }
}
