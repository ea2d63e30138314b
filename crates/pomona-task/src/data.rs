//! Text for calibration and evaluation: line ranges of a file, and windows of tokens drawn from them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Result, TaskError};

/// `FILE` or `FILE:FROM-TO`: lines from 1, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextRange {
    /// The file.
    pub path: PathBuf,
    /// First and last line, from 1; the whole file without.
    pub lines: Option<(usize, usize)>,
}

impl FromStr for TextRange {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let whole = || TextRange { path: s.into(), lines: None };
        let Some((path, range)) = s.rsplit_once(':') else { return Ok(whole()) };
        let Some((from, to)) = range.split_once('-') else { return Ok(whole()) };
        let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) else { return Ok(whole()) };
        if from == 0 || to < from {
            return Err(format!("`{s}`: lines count from 1 and FROM is not after TO"));
        }
        Ok(TextRange { path: path.into(), lines: Some((from, to)) })
    }
}

impl TextRange {
    /// The lines of the range, without their ends. Refuses a file that is not UTF-8 and a range past its end.
    pub fn read(&self) -> Result<Vec<String>> {
        let fail = |message: String| TaskError::Data { path: self.path.clone(), message };
        let bytes = std::fs::read(&self.path).map_err(|e| fail(format!("cannot be read: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            fail(format!("is not UTF-8 text (byte {}): give a plain text file", e.utf8_error().valid_up_to()))
        })?;
        let all: Vec<&str> = text.lines().collect();
        let (from, to) = self.lines.unwrap_or((1, all.len().max(1)));
        if to > all.len() {
            return Err(fail(format!("has {} lines, {from}-{to} was asked for", all.len())));
        }
        Ok(all[from - 1..to].iter().map(|l| (*l).to_owned()).collect())
    }

    /// For people: the file's name and the lines.
    pub fn describe(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        match self.lines {
            Some((from, to)) => format!("{name}, lines {from}-{to}"),
            None => name.into_owned(),
        }
    }
}

/// Windows of token ids, all of one length, with where they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Token ids, one window each.
    pub ids: Vec<Vec<u32>>,
    /// BLAKE3 of the ids: two runs with this equal saw the same text.
    pub fingerprint: String,
    /// For people: file and lines, or how it was generated.
    pub source: String,
}

impl Windows {
    /// Windows with their fingerprint.
    pub fn new(ids: Vec<Vec<u32>>, source: String) -> Self {
        let mut hash = blake3::Hasher::new();
        for window in &ids {
            hash.update(&(window.len() as u64).to_le_bytes());
            for id in window {
                hash.update(&id.to_le_bytes());
            }
        }
        Self { ids, fingerprint: hash.finalize().to_hex().to_string(), source }
    }
}

/// Calibration as in Shortened LLaMA: `count` lines that hold at least `length` tokens, drawn without replacement, and a
/// random window of each. Where too few single lines are long enough, windows of the joined text take their place.
pub fn sample_windows(
    text: &TextRange,
    count: usize,
    length: usize,
    seed: u64,
    encode: &dyn Fn(&str) -> Result<Vec<u32>>,
) -> Result<Windows> {
    let lines = text.read()?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.shuffle(&mut rng);
    let mut ids = Vec::with_capacity(count);
    for i in order {
        if ids.len() == count {
            break;
        }
        // A token is rarely longer than its share of bytes; lines that cannot reach the length are not tokenized.
        if lines[i].len() < length {
            continue;
        }
        let tokens = encode(&lines[i])?;
        if tokens.len() >= length {
            let start = rng.random_range(0..=tokens.len() - length);
            ids.push(tokens[start..start + length].to_vec());
        }
    }
    if ids.len() < count {
        let tokens = encode(&lines.join("\n"))?;
        let mut starts: Vec<usize> = (0..tokens.len() / length).map(|k| k * length).collect();
        if starts.len() < count {
            return Err(too_short(&text.path, tokens.len(), count, length));
        }
        starts.shuffle(&mut rng);
        ids = starts[..count].iter().map(|&s| tokens[s..s + length].to_vec()).collect();
    }
    Ok(Windows::new(ids, text.describe()))
}

/// Evaluation: the joined text cut into windows of `length`, `count` of them evenly spaced (all without a count).
pub fn even_windows(
    text: &TextRange,
    count: Option<usize>,
    length: usize,
    encode: &dyn Fn(&str) -> Result<Vec<u32>>,
) -> Result<Windows> {
    let tokens = encode(&text.read()?.join("\n"))?;
    let available = tokens.len() / length.max(1);
    let wanted = count.unwrap_or(available);
    if length < 2 || wanted == 0 || available < wanted {
        return Err(too_short(&text.path, tokens.len(), wanted.max(1), length));
    }
    let ids = (0..wanted).map(|k| k * available / wanted * length).map(|s| tokens[s..s + length].to_vec());
    Ok(Windows::new(ids.collect(), text.describe()))
}

fn too_short(path: &Path, tokens: usize, count: usize, length: usize) -> TaskError {
    TaskError::Data {
        path: path.to_owned(),
        message: format!(
            "holds {tokens} tokens, too few for {count} windows of {length}: give more text, fewer samples or fewer tokens"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write;

    fn bytes(s: &str) -> Result<Vec<u32>> {
        Ok(s.bytes().map(u32::from).collect())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut f = tempfile::NamedTempFile::new().unwrap();
        f.write_all(text.as_bytes()).unwrap();
        f
    }

    #[test]
    fn a_range_is_read_with_both_ends() {
        let f = file("one\ntwo\nthree\nfour\n");
        let range: TextRange = format!("{}:2-3", f.path().display()).parse().unwrap();
        assert_eq!(range.read().unwrap(), ["two", "three"]);
        let past: TextRange = format!("{}:3-9", f.path().display()).parse().unwrap();
        assert!(past.read().unwrap_err().to_string().contains("has 4 lines"));
        assert!("x:0-4".parse::<TextRange>().is_err());
        assert!("x:5-4".parse::<TextRange>().is_err());
    }

    #[test]
    fn samples_are_seeded_windows_of_single_lines() {
        let long: Vec<String> = (0..20).map(|i| format!("{}", char::from(b'a' + i)).repeat(50)).collect();
        let f = file(&long.join("\n"));
        let range = TextRange { path: f.path().to_owned(), lines: None };
        let a = sample_windows(&range, 5, 16, 7, &bytes).unwrap();
        assert_eq!(a, sample_windows(&range, 5, 16, 7, &bytes).unwrap());
        assert_ne!(a.ids, sample_windows(&range, 5, 16, 8, &bytes).unwrap().ids);
        let mut firsts: Vec<u32> = a.ids.iter().map(|w| w[0]).collect();
        assert!(a.ids.iter().all(|w| w.len() == 16 && w.iter().all(|t| *t == w[0])), "one line each");
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 5, "without replacement");
    }

    #[test]
    fn evaluation_windows_do_not_overlap_and_spread() {
        let f = file(&(0..100).map(|i| char::from(b'!' + i % 90)).collect::<String>());
        let range = TextRange { path: f.path().to_owned(), lines: None };
        let all = even_windows(&range, None, 10, &bytes).unwrap();
        assert_eq!(all.ids.len(), 10);
        let some = even_windows(&range, Some(5), 10, &bytes).unwrap();
        assert_eq!(some.ids, [0, 2, 4, 6, 8].map(|i| all.ids[i].clone()));
        let short = even_windows(&range, Some(11), 10, &bytes).unwrap_err().to_string();
        assert!(short.contains("100 tokens"), "{short}");
    }
}
