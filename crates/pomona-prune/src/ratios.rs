//! Ratio files: the share that goes of each group, by kind and block, as published lists give them.
//!
//! JSON: `qk`, `v`, `ffn`, `filters`, `stream` and `heads` hold a share for all groups of the kind or a list with one for each in
//! the model's order; `groups` holds shares by name; `source` is for people. What is not named stays whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pomona_graph::{ChannelGroup, ChannelKind};
use serde::Deserialize;

use crate::error::{PruneError, Result};

/// A file of shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratios {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    source: String,
    qk: Option<Shares>,
    v: Option<Shares>,
    ffn: Option<Shares>,
    filters: Option<Shares>,
    stream: Option<Shares>,
    heads: Option<Shares>,
    #[serde(default)]
    groups: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Shares {
    All(f64),
    Each(Vec<f64>),
}

impl Ratios {
    /// Reads a file.
    ///
    /// # Errors
    /// [`PruneError::Scores`] where it is no such file, or a share is not from 0 up to 1.
    pub fn read(path: &Path) -> Result<Ratios> {
        let fail = |message: String| PruneError::Scores { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let content: Content = serde_json::from_str(&text).map_err(|e| {
            fail(format!(
                "is not a file of ratios ({e}): an object with qk, v, ffn, filters, stream, heads (a share, or a list with one \
                 for each) or groups (shares by name) was expected"
            ))
        })?;
        let found = Ratios { path: path.to_owned(), content };
        let all = found.kinds().into_iter().flat_map(|(_, s)| match s {
            Some(Shares::All(one)) => vec![*one],
            Some(Shares::Each(list)) => list.clone(),
            None => Vec::new(),
        });
        let bad = all.chain(found.content.groups.values().copied()).find(|s| !(0.0..1.0).contains(s));
        match bad {
            Some(bad) => Err(fail(format!("holds the share {bad}: from 0 up to 1, what goes, was expected"))),
            None => Ok(found),
        }
    }

    /// The file, and what it says about its source.
    pub fn words(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let source = &self.content.source;
        if source.is_empty() { format!("ratios of {name}") } else { format!("ratios of {name} ({source})") }
    }

    fn kinds(&self) -> [(ChannelKind, Option<&Shares>); 6] {
        let c = &self.content;
        [
            (ChannelKind::QueryKey, c.qk.as_ref()),
            (ChannelKind::Value, c.v.as_ref()),
            (ChannelKind::Inner, c.ffn.as_ref()),
            (ChannelKind::Filters, c.filters.as_ref()),
            (ChannelKind::Stream, c.stream.as_ref()),
            (ChannelKind::Heads, c.heads.as_ref()),
        ]
    }

    /// Shares by the names of these groups, as `--ratio` takes them.
    ///
    /// # Errors
    /// [`PruneError::Scores`] where a list has not one share for each group of its kind, or there is none.
    pub fn of(&self, groups: &[ChannelGroup]) -> Result<Vec<(String, f64)>> {
        let mut out = Vec::new();
        for (kind, shares) in self.kinds() {
            let names: Vec<&String> = groups.iter().filter(|g| g.kind == kind).map(|g| &g.name).collect();
            let count = match shares {
                None => continue,
                Some(Shares::All(one)) => {
                    out.extend(names.iter().map(|n| ((*n).clone(), *one)));
                    1
                }
                Some(Shares::Each(list)) => {
                    out.extend(names.iter().zip(list).map(|(n, s)| ((*n).clone(), *s)));
                    list.len()
                }
            };
            let all = matches!(shares, Some(Shares::All(_))) && !names.is_empty();
            if !all && count != names.len() {
                return Err(PruneError::Scores {
                    path: self.path.clone(),
                    message: format!(
                        "has {count} ratios of `{}`; the model has {} such groups that can be cut: `pomona inspect --groups` \
                         lists them",
                        kind.name(),
                        names.len()
                    ),
                });
            }
        }
        out.extend(self.content.groups.iter().map(|(n, s)| (n.clone(), *s)));
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn kinds_lists_and_names_are_read_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let group = |name: &str, kind| ChannelGroup {
            name: name.to_owned(),
            len: 4,
            members: vec![],
            cells: vec![0; 4],
            bundles: None,
            cluster: 0,
            kind,
            label: String::new(),
        };
        let groups =
            [group("s", ChannelKind::Stream), group("a", ChannelKind::Inner), group("b", ChannelKind::Inner)];
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Ratios::read(&path).and_then(|r| r.of(&groups)).map_err(|e| e.to_string())
        };
        let pairs =
            |list: &[(&str, f64)]| list.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect::<Vec<_>>();
        assert_eq!(
            read(r#"{"ffn": [0, 0.5], "stream": 0.25, "groups": {"x.*": 0.1}}"#).unwrap(),
            pairs(&[("a", 0.0), ("b", 0.5), ("s", 0.25), ("x.*", 0.1)])
        );
        assert_eq!(read(r#"{"ffn": 0.5}"#).unwrap(), pairs(&[("a", 0.5), ("b", 0.5)]));
        for (bad, says) in [
            (r#"{"ffn": [0.5]}"#, "has 1 ratios of `ffn`; the model has 2"),
            (r#"{"qk": 0.5}"#, "the model has 0"),
            (r#"{"ffn": 1}"#, "the share 1"),
            (r#"{"ffn": -0.1}"#, "the share -0.1"),
            (r#"{"fnn": 0.5}"#, "unknown field `fnn`"),
            ("[", "is not a file of ratios"),
        ] {
            let message = read(bad).unwrap_err();
            assert!(message.contains(says), "{bad}: {message}");
        }
    }
}
