//! Labelled files of pictures or sounds: a folder for each class, or a table of files and labels.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::error::{Result, TaskError};
use crate::limited::text_limited;

/// Largest table of files and labels.
const MAX_TABLE: u64 = 1 << 30;
/// Folders within folders that are looked into.
const DEPTH: usize = 8;

/// What files hold, told by the endings of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// JPEG and PNG files.
    Pictures,
    /// WAV and FLAC files.
    Sounds,
}

impl Media {
    fn endings(self) -> &'static [&'static str] {
        match self {
            Media::Pictures => &["jpg", "jpeg", "png"],
            Media::Sounds => &["wav", "flac"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Media::Pictures => "pictures",
            Media::Sounds => "sounds",
        }
    }

    /// `.jpg, .jpeg or .png`
    fn listed(self) -> String {
        let dotted: Vec<String> = self.endings().iter().map(|e| format!(".{e}")).collect();
        match dotted.split_last() {
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        }
    }

    /// Whether a file's name has one of the endings.
    pub fn holds(self, path: &Path) -> bool {
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
        ending.is_some_and(|e| self.endings().contains(&e.as_str()))
    }
}

/// Files with the numbers of their classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledFiles {
    /// The files.
    pub files: Vec<PathBuf>,
    /// The class of each.
    pub labels: Vec<u32>,
    /// Names and numbers of the folders' classes; none for a table, and for files without labels.
    pub classes: Vec<(String, u32)>,
    /// For people: the folder, and how files were drawn.
    pub source: String,
}

impl LabelledFiles {
    /// Files of a directory with a folder for each class, or of a `.csv` (also `labels.csv` in the directory) with a file
    /// and a label a line, file names relative to it.
    ///
    /// Classes have the numbers that the model's config gives their names (`label2id`); without it folders count from 0 in
    /// alphabetical order, and labels of a table are numbers.
    ///
    /// # Errors
    /// [`TaskError::Data`] where there are no such files, or a label has no number.
    pub fn open(path: &Path, config: &Value, media: Media) -> Result<LabelledFiles> {
        let table = if path.is_dir() { path.join("labels.csv") } else { path.to_owned() };
        if table.is_file() {
            return from_table(&table, config, media);
        }
        let classes = folders(path, media)?;
        let numbers = numbers(path, &classes, config)?;
        Ok(numbered(path, classes, numbers))
    }

    /// As [`LabelledFiles::open`], with the numbers that other files' folders of the same names have.
    ///
    /// # Errors
    /// [`TaskError::Data`] as [`LabelledFiles::open`], and where a folder has a name that is not among them.
    pub fn open_as(
        path: &Path,
        known: &[(String, u32)],
        config: &Value,
        media: Media,
    ) -> Result<LabelledFiles> {
        if known.is_empty() || path.is_file() || path.join("labels.csv").is_file() {
            return LabelledFiles::open(path, config, media);
        }
        let classes = folders(path, media)?;
        let number = |(class, _): &Class| {
            known.iter().find(|(name, _)| name == class).map(|(_, n)| *n).ok_or_else(|| TaskError::Data {
                path: path.to_owned(),
                message: format!("has the folder {class}, a class that the training data do not have"),
            })
        };
        let numbers = classes.iter().map(number).collect::<Result<_>>()?;
        Ok(numbered(path, classes, numbers))
    }

    /// Fails where a label is none of a network's classes.
    ///
    /// # Errors
    /// [`TaskError::Unfit`], with both numbers.
    pub fn check(&self, classes: Option<i64>) -> Result<()> {
        self.check_some(0..self.len(), classes)
    }

    /// As [`LabelledFiles::check`], of some files.
    pub(crate) fn check_some(&self, some: Range<usize>, classes: Option<i64>) -> Result<()> {
        let largest = self.labels[some].iter().max().copied().unwrap_or(0);
        match classes.filter(|c| i64::from(largest) >= *c) {
            None => Ok(()),
            Some(classes) => Err(TaskError::Unfit(format!(
                "{} has label {largest}, and the model tells {classes} classes apart: do data and model belong together?",
                self.source
            ))),
        }
    }

    /// All such files of a directory and of the folders in it, or those of a `.csv`, without labels (all are 0).
    ///
    /// # Errors
    /// [`TaskError::Data`] where there are none.
    pub fn unlabelled(path: &Path, media: Media) -> Result<LabelledFiles> {
        if path.is_file() {
            return from_table(path, &Value::Null, media);
        }
        let mut files = Vec::new();
        let mut folders = vec![(path.to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in entries(&folder)? {
                match entry.is_dir() {
                    // A link may lead back up.
                    true if depth < DEPTH => folders.push((entry, depth + 1)),
                    true => {}
                    false if media.holds(&entry) => files.push(entry),
                    false => {}
                }
            }
        }
        if files.is_empty() {
            return Err(TaskError::Data {
                path: path.to_owned(),
                message: format!("has no {} files, nor have the folders in it", media.listed()),
            });
        }
        files.sort();
        Ok(LabelledFiles { labels: vec![0; files.len()], files, classes: Vec::new(), source: name(path) })
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// `count` of them, evenly spaced in the order of classes and names.
    pub fn even(&self, count: usize) -> LabelledFiles {
        let n = self.len();
        let count = count.min(n);
        self.pick((0..count).map(|k| k * n / count.max(1)), format!("{}, {count} evenly spaced", self.source))
    }

    /// `count` of them, drawn without replacement.
    pub fn drawn(&self, count: usize, seed: u64) -> LabelledFiles {
        let count = count.min(self.len());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut chosen = sample(&mut rng, self.len(), count).into_vec();
        chosen.sort_unstable();
        self.pick(chosen.into_iter(), format!("{}, {count} drawn with seed {seed}", self.source))
    }

    fn pick(&self, indices: impl Iterator<Item = usize>, source: String) -> LabelledFiles {
        let (files, labels) = indices.map(|i| (self.files[i].clone(), self.labels[i])).unzip();
        LabelledFiles { files, labels, classes: self.classes.clone(), source }
    }

    /// BLAKE3 of the names, sizes and labels: equal for equal files.
    pub fn fingerprint(&self) -> String {
        fingerprint_of(self.files.iter().zip(self.labels.iter().copied()), false)
    }
}

/// BLAKE3 of the names of files and of their folders, their sizes, a number of each, and whether they are turned round.
pub(crate) fn fingerprint_of<'a>(files: impl Iterator<Item = (&'a PathBuf, u32)>, turned: bool) -> String {
    let mut hash = blake3::Hasher::new();
    for (file, number) in files {
        let parent = file.parent().and_then(Path::file_name).unwrap_or_default();
        for part in [parent, file.file_name().unwrap_or_default()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_encoded_bytes());
        }
        hash.update(&std::fs::metadata(file).map_or(0, |m| m.len()).to_le_bytes());
        hash.update(&number.to_le_bytes());
    }
    if turned {
        hash.update(b"turned");
    }
    hash.finalize().to_hex().to_string()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What a directory holds, sorted by name.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e: std::io::Error| TaskError::Data {
        path: dir.to_owned(),
        message: format!("cannot be listed ({e}): a directory was expected"),
    };
    let found: std::io::Result<Vec<PathBuf>> =
        std::fs::read_dir(dir).map_err(fail)?.map(|e| e.map(|e| e.path())).collect();
    let mut found = found.map_err(fail)?;
    found.sort();
    Ok(found)
}

/// The number that a config has for a label's name, whatever the case.
fn known(config: &Value, label: &str) -> Option<u32> {
    let table = config.get("label2id")?.as_object()?;
    let (_, id) = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(label))?;
    id.as_u64().and_then(|n| u32::try_from(n).ok())
}

/// A folder's name, and the files in it.
type Class = (String, Vec<PathBuf>);

/// The folders of a directory that hold such files.
fn folders(path: &Path, media: Media) -> Result<Vec<Class>> {
    let mut out = Vec::new();
    let mut nested = String::new();
    for class in entries(path)?.into_iter().filter(|p| p.is_dir()) {
        let mut found = entries(&class)?;
        found.retain(|p| media.holds(p));
        if found.is_empty() {
            nested = class.join("*").display().to_string();
        } else {
            out.push((name(&class), found));
        }
    }
    if out.is_empty() {
        let message = format!(
            "has no {} in its folders ({nested}): a folder of {} files for each class was expected, or a labels.csv",
            media.name(),
            media.listed()
        );
        return Err(TaskError::Data { path: path.to_owned(), message });
    }
    Ok(out)
}

fn numbered(path: &Path, classes: Vec<Class>, numbers: Vec<u32>) -> LabelledFiles {
    let (mut files, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for ((class, own), number) in classes.into_iter().zip(numbers) {
        labels.extend(vec![number; own.len()]);
        files.extend(own);
        names.push((class, number));
    }
    LabelledFiles { files, labels, classes: names, source: name(path) }
}

fn numbers(path: &Path, classes: &[Class], config: &Value) -> Result<Vec<u32>> {
    let found: Vec<Option<u32>> = classes.iter().map(|(class, _)| known(config, class)).collect();
    if found.iter().all(Option::is_none) {
        return Ok((0..classes.len() as u32).collect());
    }
    let strangers = classes.iter().zip(&found).filter(|(_, n)| n.is_none());
    let strangers: Vec<&str> = strangers.map(|((class, _), _)| class.as_str()).collect();
    if strangers.is_empty() {
        return Ok(found.into_iter().flatten().collect());
    }
    let message = format!(
        "has the folders {}, which are no classes of the model, beside others that are: label2id of its config names them",
        strangers.join(", ")
    );
    Err(TaskError::Data { path: path.to_owned(), message })
}

fn from_table(path: &Path, config: &Value, media: Media) -> Result<LabelledFiles> {
    let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
    let text = text_limited(path, MAX_TABLE)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let Some((file, label)) = line.rsplit_once([',', '\t']) else {
            return Err(fail(format!("line {}: has no comma; a file and its label were expected", i + 1)));
        };
        let (file, label) = (file.trim().trim_matches('"'), label.trim().trim_matches('"'));
        let number = label.parse::<u32>().ok().or_else(|| known(config, label));
        match number {
            Some(n) => {
                let file = dir.join(file);
                if !file.is_file() {
                    return Err(fail(format!("line {}: {} is not there", i + 1, file.display())));
                }
                files.push(file);
                labels.push(n);
            }
            // The first line may name the columns.
            None if i == 0 && !media.holds(Path::new(file)) => {}
            None => {
                return Err(fail(format!(
                    "line {}: label \"{label}\" is not a number, and label2id of config.json has no such name",
                    i + 1
                )));
            }
        }
    }
    if files.is_empty() {
        return Err(fail(format!("lists no {}: a file and its label a line were expected", media.name())));
    }
    Ok(LabelledFiles { files, labels, classes: Vec::new(), source: name(path) })
}
