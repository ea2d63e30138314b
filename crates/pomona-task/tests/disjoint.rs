//! Evaluation never reads what calibration or training reads: no 64-token window is shared between the halves of the text,
//! whatever the protocol, and no thirteen words between questions and texts.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use pomona_models::{open, tokenizer::Tokenizer};
use pomona_task::choice::read_questions;
use pomona_task::{Protocol, Result, TaskError, TextRange, sample_windows};

const WINDOW: usize = 64;
const WORDS: usize = 13;

fn data() -> Option<PathBuf> {
    let data = std::env::var_os("POMONA_DATA").map(PathBuf::from);
    if data.is_none() {
        println!("skipped: POMONA_DATA names the text");
    }
    data
}

#[test]
fn calibration_and_evaluation_share_no_window() {
    let (Some(data), Some(model)) = (data(), std::env::var_os("POMONA_SMOLLM2")) else {
        println!("skipped: POMONA_SMOLLM2 names the tokenizer");
        return;
    };
    let path = data.join("text/wikitext-2/valid.txt");
    let model = open(Path::new(&model)).unwrap();
    let tokenizer = Tokenizer::from_gguf(model.checkpoint().unwrap().gguf_metadata()).unwrap();
    let encode = |text: &str| -> Result<Vec<u32>> {
        tokenizer.encode(text, true).map_err(|e| TaskError::Unfit(e.to_string()))
    };
    let half = |lines| TextRange { path: path.clone(), lines: Some(lines) };
    let calibration = sample_windows(&half((1, 1880)), 10, 128, 1234, &encode).unwrap();
    let seen: HashSet<&[u32]> = calibration.ids.iter().flat_map(|w| w.windows(WINDOW)).collect();
    assert!(seen.len() > 600, "the calibration has its windows");
    for protocol in [
        Protocol::Segments { length: 512 },
        Protocol::Segments { length: 128 },
        Protocol::Sliding { length: 512, stride: 128 },
        Protocol::Full { length: 8192 },
    ] {
        let cut = protocol.cut(&half((1881, 3760)), None, None, &encode).unwrap();
        let shared =
            cut.stretches.iter().flat_map(|s| s.ids.windows(WINDOW)).filter(|w| seen.contains(w)).count();
        assert_eq!(shared, 0, "{}", protocol.name());
    }
}

/// Hashes of all runs of words; the form of a text (case, marks) counts for nothing.
fn runs(text: &str) -> HashSet<u64> {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|w| w.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>())
        .filter(|w| !w.is_empty())
        .collect();
    let hash = |run: &[String]| {
        let mut hasher = DefaultHasher::new();
        run.hash(&mut hasher);
        hasher.finish()
    };
    words.windows(WORDS).map(hash).collect()
}

#[test]
fn questions_stand_in_no_text() {
    let Some(data) = data() else { return };
    let mut seen = HashSet::new();
    let valid = TextRange { path: data.join("text/wikitext-2/valid.txt"), lines: Some((1, 1880)) };
    seen.extend(runs(&valid.read().unwrap().join("\n")));
    for name in ["darwin", "bronte", "dubois"] {
        seen.extend(runs(&std::fs::read_to_string(data.join(format!("text/train/{name}.txt"))).unwrap()));
    }
    assert!(seen.len() > 1_000_000, "the texts have their words");
    for set in ["ARC-Easy", "ARC-Challenge", "social_i_qa", "boolq"] {
        let range = TextRange { path: data.join(format!("tasks/{set}/test.json")), lines: None };
        let questions = read_questions(&range, None, None).unwrap();
        let shared: Vec<usize> = questions
            .all
            .iter()
            .filter(|q| !runs(&format!("{} {}", q.text, q.options.join(" "))).is_disjoint(&seen))
            .map(|q| q.line)
            .collect();
        assert!(shared.is_empty(), "{set}: {shared:?}");
        println!("{set}: {} questions", questions.all.len());
    }
}

/// A window of 64 tokens has 64 bytes at least.
#[test]
fn training_and_evaluation_share_no_window() {
    let Some(data) = data() else { return };
    let text = std::fs::read_to_string(data.join("text/wikitext-2/valid.txt")).unwrap();
    let half = text.lines().skip(1880).collect::<Vec<_>>().join("\n");
    let seen: HashSet<&[u8]> = half.as_bytes().windows(WINDOW).collect();
    assert!(seen.len() > 500_000);
    for entry in std::fs::read_dir(data.join("text/train")).unwrap() {
        let path = entry.unwrap().path();
        let train = std::fs::read(&path).unwrap();
        let shared = train.windows(WINDOW).find(|w| seen.contains(*w));
        assert!(shared.is_none(), "{}: {:?}", path.display(), shared.map(String::from_utf8_lossy));
    }
}
