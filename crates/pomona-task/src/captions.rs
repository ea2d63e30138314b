//! Pictures with captions: a metadata.jsonl in their folder, or a text file beside each.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::{Result, TaskError};
use crate::labelled::{Media, entries};
use crate::limited::text_limited;

/// The table that Hugging Face's image folders have.
const TABLE: &str = "metadata.jsonl";
/// Largest table, and largest caption in a file of its own.
const MAX_TABLE: u64 = 1 << 30;
const MAX_CAPTION: u64 = 1 << 20;

/// Pictures, each with what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionSet {
    /// The files.
    pub files: Vec<PathBuf>,
    /// What each shows.
    pub captions: Vec<String>,
    /// For people.
    pub source: String,
}

impl CaptionSet {
    /// Of a folder with a `metadata.jsonl` (a line `{"file_name": ..., "text": ...}` a picture, names relative to the folder), or
    /// in which `NAME.txt` stands beside every `NAME.jpg` or `NAME.png`.
    ///
    /// # Errors
    /// [`TaskError::Data`] where there are no pictures, one has no caption, or a line of the table is not understood.
    pub fn open(folder: &Path) -> Result<CaptionSet> {
        let table = folder.join(TABLE);
        let (files, captions) = if table.is_file() { listed(folder, &table)? } else { beside(folder)? };
        if files.is_empty() {
            let message = format!(
                "has no pictures with captions: a {TABLE}, or a .txt file beside each picture, was expected"
            );
            return Err(TaskError::Data { path: folder.to_owned(), message });
        }
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
        Ok(CaptionSet { source: format!("{name}, {} pictures with captions", files.len()), files, captions })
    }

    /// BLAKE3 of names, sizes and captions.
    pub fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(crate::labelled::fingerprint_of(self.files.iter().map(|f| (f, 0)), false).as_bytes());
        for caption in &self.captions {
            hash.update(&(caption.len() as u64).to_le_bytes());
            hash.update(caption.as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }
}

type Both = (Vec<PathBuf>, Vec<String>);

fn listed(folder: &Path, table: &Path) -> Result<Both> {
    let (mut files, mut captions) = (Vec::new(), Vec::new());
    for (i, line) in text_limited(table, MAX_TABLE)?.lines().enumerate().filter(|(_, l)| !l.trim().is_empty())
    {
        let fail = |what: &str| TaskError::Data {
            path: table.to_owned(),
            message: format!("line {}: {what}; {{\"file_name\": ..., \"text\": ...}} was expected", i + 1),
        };
        let value: Value = serde_json::from_str(line).map_err(|e| fail(&e.to_string()))?;
        let get = |key: &str| value.get(key).and_then(Value::as_str);
        let name = get("file_name").ok_or_else(|| fail("has no `file_name`"))?;
        let caption = get("text").or_else(|| get("caption")).ok_or_else(|| fail("has no `text`"))?;
        if !Path::new(name).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(fail(&format!("{name} leads out of the folder")));
        }
        let path = folder.join(name);
        if !path.is_file() {
            return Err(fail(&format!("{name} is not in the folder")));
        }
        files.push(path);
        captions.push(caption.to_owned());
    }
    Ok((files, captions))
}

fn beside(folder: &Path) -> Result<Both> {
    let (mut files, mut captions) = (Vec::new(), Vec::new());
    for path in entries(folder)?.into_iter().filter(|p| Media::Pictures.holds(p)) {
        let caption = path.with_extension("txt");
        if !caption.is_file() {
            return Err(TaskError::Data {
                path,
                message: format!("has no caption: neither {TABLE} nor a .txt file of its name is beside it"),
            });
        }
        captions.push(text_limited(&caption, MAX_CAPTION)?.trim().to_owned());
        files.push(path);
    }
    Ok((files, captions))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn captions_come_from_a_table_or_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let says = || CaptionSet::open(dir.path()).unwrap_err().to_string();
        assert!(says().contains("has no pictures with captions"));
        put("b.png", "x");
        put("a.JPG", "x");
        put("a.txt", " a cat\n");
        assert!(says().contains("b.png: has no caption"));
        put("b.txt", "a dog");
        let found = CaptionSet::open(dir.path()).unwrap();
        assert_eq!(found.captions, ["a cat", "a dog"]);
        put("metadata.jsonl", "{\"file_name\": \"b.png\", \"text\": \"a wolf\"}\n\n");
        let listed = CaptionSet::open(dir.path()).unwrap();
        assert_eq!((listed.captions.as_slice(), listed.files.len()), (["a wolf".to_owned()].as_slice(), 1));
        assert_ne!(found.fingerprint(), listed.fingerprint());
        put("metadata.jsonl", "{\"file_name\": \"c.png\", \"text\": \"a fox\"}");
        assert!(says().contains("metadata.jsonl: line 1: c.png is not in the folder"));
        for out in ["../b.png", "/etc/passwd", "a/../../b.png"] {
            put("metadata.jsonl", &format!("{{\"file_name\": \"{out}\", \"text\": \"a fox\"}}"));
            assert!(says().contains("leads out of the folder"), "{out}");
        }
        put("metadata.jsonl", "{\"file_name\": \"b.png\"}");
        assert!(says().contains("line 1: has no `text`"));
        put("metadata.jsonl", "[");
        assert!(says().contains("line 1: "));
    }
}
