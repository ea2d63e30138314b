//! Labelled pictures: a folder for each class, or a table of files and labels.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::error::{Result, TaskError};

/// Folders within folders that are looked into.
const DEPTH: usize = 8;
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Files with the numbers of their classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    /// The files.
    pub files: Vec<PathBuf>,
    /// The class of each.
    pub labels: Vec<u32>,
    /// For people: the folder, and how files were drawn.
    pub source: String,
}

impl ImageSet {
    /// Pictures of a directory with a folder for each class, or of a `.csv` (also `labels.csv` in the directory) with a file
    /// and a label a line, file names relative to it.
    ///
    /// Classes have the numbers that the model's config gives their names (`label2id`); without it folders count from 0 in
    /// alphabetical order, and labels of a table are numbers.
    ///
    /// # Errors
    /// [`TaskError::Data`] where there are no pictures, or a label has no number.
    pub fn open(path: &Path, config: &Value) -> Result<ImageSet> {
        let table = if path.is_dir() { path.join("labels.csv") } else { path.to_owned() };
        if table.is_file() {
            return from_table(&table, config);
        }
        let mut classes = entries(path)?;
        classes.retain(|p| p.is_dir());
        let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
        let numbers = numbers(&classes, config);
        let (mut files, mut labels) = (Vec::new(), Vec::new());
        for (class, number) in classes.iter().zip(numbers) {
            let mut found = entries(class)?;
            found.retain(|p| is_picture(p));
            labels.extend(vec![number; found.len()]);
            files.extend(found);
        }
        if files.is_empty() {
            let nested = classes.first().map(|c| c.join("*").display().to_string()).unwrap_or_default();
            return Err(fail(format!(
                "has no pictures in its folders ({nested}): a folder of .jpg or .png files for each class was expected, or a \
                 labels.csv"
            )));
        }
        Ok(ImageSet { files, labels, source: name(path) })
    }

    /// All pictures of a directory and of the folders in it, or those of a `.csv`, without labels (all are 0).
    ///
    /// # Errors
    /// [`TaskError::Data`] where there are no pictures.
    pub fn unlabelled(path: &Path) -> Result<ImageSet> {
        if path.is_file() {
            return from_table(path, &Value::Null);
        }
        let mut files = Vec::new();
        let mut folders = vec![(path.to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in entries(&folder)? {
                match entry.is_dir() {
                    // A link may lead back up.
                    true if depth < DEPTH => folders.push((entry, depth + 1)),
                    true => {}
                    false if is_picture(&entry) => files.push(entry),
                    false => {}
                }
            }
        }
        if files.is_empty() {
            return Err(TaskError::Data {
                path: path.to_owned(),
                message: "has no .jpg or .png files, nor have the folders in it".to_owned(),
            });
        }
        files.sort();
        Ok(ImageSet { labels: vec![0; files.len()], files, source: name(path) })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// `count` of them, evenly spaced in the order of classes and names.
    pub fn even(&self, count: usize) -> ImageSet {
        let n = self.len();
        let count = count.min(n);
        self.pick((0..count).map(|k| k * n / count.max(1)), format!("{}, {count} evenly spaced", self.source))
    }

    /// `count` of them, drawn without replacement.
    pub fn drawn(&self, count: usize, seed: u64) -> ImageSet {
        let count = count.min(self.len());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut chosen = sample(&mut rng, self.len(), count).into_vec();
        chosen.sort_unstable();
        self.pick(chosen.into_iter(), format!("{}, {count} drawn with seed {seed}", self.source))
    }

    fn pick(&self, indices: impl Iterator<Item = usize>, source: String) -> ImageSet {
        let (files, labels) = indices.map(|i| (self.files[i].clone(), self.labels[i])).unzip();
        ImageSet { files, labels, source }
    }

    /// BLAKE3 of the names, sizes and labels: equal for equal pictures.
    pub fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for (file, label) in self.files.iter().zip(&self.labels) {
            let parent = file.parent().and_then(Path::file_name).unwrap_or_default();
            hash.update(parent.as_encoded_bytes());
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update(&std::fs::metadata(file).map_or(0, |m| m.len()).to_le_bytes());
            hash.update(&label.to_le_bytes());
        }
        hash.finalize().to_hex().to_string()
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// What a directory holds, sorted by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e: std::io::Error| TaskError::Data {
        path: dir.to_owned(),
        message: format!("cannot be listed ({e}): a directory with a folder for each class was expected"),
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

fn numbers(classes: &[PathBuf], config: &Value) -> Vec<u32> {
    let known: Option<Vec<u32>> = classes.iter().map(|c| known(config, &name(c))).collect();
    known.unwrap_or_else(|| (0..classes.len() as u32).collect())
}

fn from_table(path: &Path, config: &Value) -> Result<ImageSet> {
    let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
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
                files.push(dir.join(file));
                labels.push(n);
            }
            // The first line may name the columns.
            None if i == 0 && !is_picture(Path::new(file)) => {}
            None => {
                return Err(fail(format!(
                    "line {}: label \"{label}\" is not a number, and label2id of config.json has no such name",
                    i + 1
                )));
            }
        }
    }
    if files.is_empty() {
        return Err(fail("lists no pictures: a file and its label a line were expected".to_owned()));
    }
    Ok(ImageSet { files, labels, source: name(path) })
}
