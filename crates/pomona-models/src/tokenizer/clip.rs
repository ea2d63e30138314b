//! CLIP's tokenizer from merges.txt and vocab.json, as Stable Diffusion pipelines carry it: lower-cased words cut by byte
//! pairs, the last piece of a word marked.
//!
//! Source: Radford et al., arXiv:2103.00020, and the `CLIPTokenizer` of transformers.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::{Result, file_error};
use super::load::{MAX_FILE_BYTES, read};
use super::vocabulary::MAX_TOKENS;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// Marks the last piece of a word.
const SUFFIX: &str = "</w>";
/// Merges that CLIP uses of a longer list: 49,152 tokens without the two control tokens and the 512 single bytes.
const MERGES: usize = 49_152 - 256 - 2;
/// What is a word: contractions, letters, one digit, anything else but space.
const WORD: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Names of the control tokens where the directory's config names none.
pub(super) fn names() -> Value {
    json!({"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END})
}

/// The tokenizer.json of a directory with CLIP's merges.txt, and vocab.json where it is there. None where there is no
/// merges.txt, or where its vocabulary is not CLIP's (GPT-2's files have the same names).
pub(super) fn definition(directory: &Path) -> Result<Option<Value>> {
    let path = directory.join("merges.txt");
    if !path.exists() {
        return Ok(None);
    }
    let origin = path.display().to_string();
    let text =
        String::from_utf8(read(&path, MAX_FILE_BYTES)?).map_err(|_| file_error(&origin, "is not UTF-8"))?;
    let merges = merges(&origin, &text)?;
    let vocab = match directory.join("vocab.json") {
        file if file.exists() => {
            let bytes = read(&file, MAX_FILE_BYTES)?;
            let parsed = serde_json::from_slice(&bytes);
            parsed.map_err(|e| file_error(file.display().to_string(), format!("is not a vocabulary: {e}")))?
        }
        _ => vocabulary(&merges),
    };
    let id = |token: &str| vocab.get(token).and_then(Value::as_u64);
    let (Some(start), Some(end)) = (id(START), id(END)) else { return Ok(None) };
    let control = |id: u64, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    Ok(Some(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [control(start, START), control(end, END)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORD}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [END, end], "cls": [START, start],
            "trim_offsets": false, "add_prefix_space": false},
        // The mark of a word's end is a space in the text, the last one none.
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            {"type": "Replace", "pattern": {"String": SUFFIX}, "content": " "},
            {"type": "Strip", "content": " ", "start": 0, "stop": 1},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
            "end_of_word_suffix": SUFFIX, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges.iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>()},
    })))
}

/// Pairs of the file behind its first line, which names a version.
fn merges<'a>(origin: &str, text: &'a str) -> Result<Vec<(&'a str, &'a str)>> {
    let mut out = Vec::new();
    let lines = text.lines().enumerate().filter(|(i, l)| !(l.is_empty() || *i == 0 && versioned(l)));
    for (i, line) in lines.take(MERGES) {
        let pair = line.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(' '));
        let wrong = || file_error(origin, format!("line {}: two pieces and a space were expected", i + 1));
        out.push(pair.ok_or_else(wrong)?);
    }
    debug_assert!(out.len() <= MAX_TOKENS, "the list is bounded above");
    Ok(out)
}

fn versioned(line: &str) -> bool {
    line.starts_with('#') || line.contains("version") || line.split(' ').count() != 2
}

/// CLIP's order: single bytes, single bytes that end a word, merges, control tokens.
fn vocabulary(merges: &[(&str, &str)]) -> Map<String, Value> {
    let bytes: Vec<char> = byte_characters();
    let singles = bytes.iter().map(char::to_string);
    let ends = bytes.iter().map(|c| format!("{c}{SUFFIX}"));
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let control = [START, END].map(str::to_owned);
    let all = singles.chain(ends).chain(merged).chain(control);
    all.enumerate().map(|(i, token)| (token, json!(i))).collect()
}

/// The character that stands for each byte, printable bytes first, in the order of GPT-2's table.
fn byte_characters() -> Vec<char> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let shown = (0..=255_u8).filter(printable).map(char::from);
    let others = (0..=255_u8).filter(|b| !printable(b)).count() as u32;
    shown.chain((0..others).filter_map(|n| char::from_u32(256 + n))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_byte_has_a_character() {
        let mut all = byte_characters();
        assert_eq!((all.len(), all[0], all[255]), (256, '!', '\u{143}'));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn damaged_merges_are_named() {
        for (text, wanted) in [("#version: 0.2\na b\nab\n", "line 3"), ("#version\na b c\n", "line 2")] {
            assert!(merges("merges.txt", text).unwrap_err().to_string().contains(wanted), "{text}");
        }
        assert_eq!(merges("merges.txt", "\"a\" - version: 0.2 - x\ni n</w>\n").unwrap(), [("i", "n</w>")]);
        assert_eq!(merges("merges.txt", "i n</w>\n").unwrap(), [("i", "n</w>")]);
    }
}
