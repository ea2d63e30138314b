//! Pairs of pictures, what goes in and what should come out: side by side in one file, or in two folders under one name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::picture::Picture;
use crate::error::{Result, TaskError};
use crate::labelled::{Media, entries, fingerprint_of};

/// Names that the two folders may have.
const FOLDERS: [[&str; 2]; 2] = [["A", "B"], ["input", "target"]];

/// Where the two pictures of a pair are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// The halves of one file, left and right.
    Joined(PathBuf),
    /// Two files.
    Apart(PathBuf, PathBuf),
}

/// Pairs of pictures, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSet {
    pairs: Vec<Place>,
    /// Whether the second picture goes in and the first should come out.
    reversed: bool,
    /// For people.
    pub source: String,
}

impl PairSet {
    /// Pairs of a directory: of its folders `A` and `B` (or `input` and `target`), whose files are matched by their names
    /// without endings; without such folders every file holds a pair, the first picture in its left half. `reversed` goes
    /// from the second to the first.
    ///
    /// # Errors
    /// [`TaskError::Data`] where there are no pictures, or one has no partner.
    pub fn open(path: &Path, reversed: bool) -> Result<PairSet> {
        let folders = FOLDERS.map(|names| names.map(|n| path.join(n)));
        let found = folders.into_iter().find(|two| two.iter().all(|f| f.is_dir()));
        let pairs = match &found {
            Some([first, second]) => apart(first, second)?,
            None => {
                entries(path)?.into_iter().filter(|p| Media::Pictures.holds(p)).map(Place::Joined).collect()
            }
        };
        if pairs.is_empty() {
            return Err(TaskError::Data {
                path: path.to_owned(),
                message: "has no pairs of pictures: .jpg or .png files with two pictures side by side were expected, or \
                          folders A and B with files of the same names"
                    .to_owned(),
            });
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let way = if reversed { ", second to first" } else { "" };
        Ok(PairSet { source: format!("{name}, {} pairs{way}", pairs.len()), pairs, reversed })
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// What goes in and what should come out.
    ///
    /// # Errors
    /// [`TaskError::Data`] where there is no such pair, a file cannot be read, or the width of a joined one is odd.
    pub fn read(&self, i: usize) -> Result<[Picture; 2]> {
        let mut both = match self.pairs.get(i) {
            None => return Err(TaskError::Unfit(format!("pair {i} of {} was asked for", self.len()))),
            Some(Place::Apart(first, second)) => [Picture::read(first)?, Picture::read(second)?],
            Some(Place::Joined(path)) => {
                let whole = Picture::read(path)?;
                if whole.width % 2 == 1 {
                    return Err(TaskError::Data {
                        path: path.clone(),
                        message: format!(
                            "is {} pixels wide, which has no halves: two pictures side by side were expected",
                            whole.width
                        ),
                    });
                }
                let half = whole.width / 2;
                [0, half].map(|left| whole.columns(left..left + half))
            }
        };
        if self.reversed {
            both.reverse();
        }
        Ok(both)
    }

    /// The file, or the first of the two, for messages.
    pub fn path(&self, i: usize) -> Option<&Path> {
        self.pairs.get(i).map(|p| match p {
            Place::Joined(path) | Place::Apart(path, _) => path.as_path(),
        })
    }

    /// BLAKE3 of names and sizes: equal for equal pairs.
    pub fn fingerprint(&self) -> String {
        let files = self.pairs.iter().flat_map(|p| match p {
            Place::Joined(path) => vec![(path, 0)],
            Place::Apart(first, second) => vec![(first, 0), (second, 0)],
        });
        fingerprint_of(files, self.reversed)
    }
}

fn apart(first: &Path, second: &Path) -> Result<Vec<Place>> {
    let by_name = |folder: &Path| -> Result<BTreeMap<OsString, PathBuf>> {
        let mut out = BTreeMap::new();
        for path in entries(folder)?.into_iter().filter(|p| Media::Pictures.holds(p)) {
            let stem = path.file_stem().unwrap_or_default().to_owned();
            if let Some(other) = out.insert(stem, path.clone()) {
                let message = format!("and {} have one name: which is meant?", other.display());
                return Err(TaskError::Data { path, message });
            }
        }
        Ok(out)
    };
    let (a, mut b) = (by_name(first)?, by_name(second)?);
    let alone = |path: PathBuf, other: &Path| TaskError::Data {
        path,
        message: format!("has no partner of its name in {}", other.display()),
    };
    let mut out = Vec::with_capacity(a.len());
    for (stem, path) in a {
        match b.remove(&stem) {
            Some(partner) => out.push(Place::Apart(path, partner)),
            None => return Err(alone(path, second)),
        }
    }
    match b.into_values().next() {
        Some(path) => Err(alone(path, first)),
        None => Ok(out),
    }
}
