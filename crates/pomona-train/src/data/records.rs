//! Training text from files: plain text, or JSON records in the usual layouts, one a line or in a list.

use std::path::Path;

use pomona_task::{TaskError, TextRange};
use rayon::prelude::*;
use serde_json::Value;

use crate::error::Result;

/// Tokenizes a text, with what stands before a sequence or without.
pub type Encode<'a> = dyn Fn(&str, bool) -> Result<Vec<u32>> + Sync + 'a;

/// Makes a prompt and its response of messages, each a role and what it says.
pub type Chat<'a> = dyn Fn(&[(String, String)]) -> Result<Pair> + 'a;

/// Bytes of plain text that are tokenized as one.
const PIECE: usize = 64 << 10;

/// How records are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Layout {
    /// By the file's name and the keys of its first record.
    #[default]
    Auto,
    /// The file is text.
    Text,
    /// `{"text": ...}`.
    Documents,
    /// `{"instruction": ..., "input": ..., "output": ...}`.
    Alpaca,
    /// `{"prompt": ..., "completion": ...}`.
    Prompts,
    /// `{"messages": [{"role": ..., "content": ...}, ...]}`.
    Chat,
}

impl std::str::FromStr for Layout {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        Ok(match s {
            "auto" => Layout::Auto,
            "text" => Layout::Text,
            "documents" => Layout::Documents,
            "alpaca" => Layout::Alpaca,
            "prompts" => Layout::Prompts,
            "chat" => Layout::Chat,
            _ => {
                return Err(format!("`{s}`: auto, text, documents, alpaca, prompts or chat was expected"));
            }
        })
    }
}

/// A prompt and the response that is learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What stands before.
    pub prompt: String,
    /// What is predicted.
    pub response: String,
    /// Whether the tokenizer puts its beginning before the prompt; a chat template has it already.
    pub begins: bool,
}

/// What files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Documents.
    Texts(Vec<String>),
    /// Prompts with responses.
    Pairs(Vec<Pair>),
}

/// Reads a file. `chat` renders messages up to the last, and the last, as a prompt and its response.
///
/// # Errors
/// Where it cannot be read, and where a record is not what the layout says: with its line.
pub fn read_records(range: &TextRange, layout: Layout, chat: &Chat<'_>) -> Result<Records> {
    let name = range.path.to_string_lossy().to_lowercase();
    let json = name.ends_with(".jsonl") || name.ends_with(".json") || name.ends_with(".ndjson");
    if layout == Layout::Text || (layout == Layout::Auto && !json) {
        return Ok(Records::Texts(vec![range.read()?.join("\n")]));
    }
    let records = parse(range)?;
    let layout = match (layout, records.first()) {
        (Layout::Auto, Some((line, first))) => layout_of(first).ok_or_else(|| {
            let keys: Vec<&String> = first.as_object().map(|o| o.keys().collect()).unwrap_or_default();
            fault(
                &range.path,
                *line,
                format!("has the keys {keys:?}; text, instruction and output, prompt and completion, or messages was expected"),
            )
        })?,
        (layout, _) => layout,
    };
    let mut texts = Vec::new();
    let mut pairs = Vec::new();
    for (line, record) in &records {
        let field = |key: &str| -> Result<&str> {
            let found = record.get(key).and_then(Value::as_str);
            found.ok_or_else(|| fault(&range.path, *line, format!("has no text under `{key}`")))
        };
        match layout {
            Layout::Auto | Layout::Text => {}
            Layout::Documents => texts.push(field("text")?.to_owned()),
            Layout::Alpaca => {
                let input = record.get("input").and_then(Value::as_str).unwrap_or("");
                pairs.push(Pair {
                    prompt: alpaca(field("instruction")?, input),
                    response: field("output")?.to_owned(),
                    begins: true,
                });
            }
            Layout::Prompts => {
                let response = if record.get("completion").is_some() { "completion" } else { "response" };
                pairs.push(Pair {
                    prompt: field("prompt")?.to_owned(),
                    response: field(response)?.to_owned(),
                    begins: true,
                });
            }
            Layout::Chat => {
                let messages = record.get("messages").and_then(Value::as_array);
                let pick = |m: &Value, key: &str| m.get(key)?.as_str().map(str::to_owned);
                let messages: Option<Vec<(String, String)>> = messages
                    .filter(|m| !m.is_empty())
                    .and_then(|m| m.iter().map(|m| Some((pick(m, "role")?, pick(m, "content")?))).collect());
                let messages = messages.ok_or_else(|| {
                    fault(&range.path, *line, "has no `messages` with `role` and `content`".to_owned())
                })?;
                pairs.push(chat(&messages)?);
            }
        }
    }
    Ok(if pairs.is_empty() { Records::Texts(texts) } else { Records::Pairs(pairs) })
}

fn fault(path: &Path, line: usize, message: String) -> crate::TrainError {
    TaskError::Data { path: path.to_owned(), message: format!("record {line} {message}") }.into()
}

/// Records with their numbers: lines, or items of a list, from 1.
fn parse(range: &TextRange) -> Result<Vec<(usize, Value)>> {
    let lines = range.read()?;
    let first = range.lines.map_or(1, |(from, _)| from);
    if range.lines.is_none()
        && lines.iter().find(|l| !l.trim().is_empty()).is_some_and(|l| l.trim_start().starts_with('['))
    {
        let text = lines.join("\n");
        let list: Vec<Value> = serde_json::from_str(&text).map_err(|e| TaskError::Data {
            path: range.path.clone(),
            message: format!("is no JSON list: {e}"),
        })?;
        return Ok(list.into_iter().enumerate().map(|(i, v)| (i + 1, v)).collect());
    }
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let value: Value = serde_json::from_str(line).map_err(|e| TaskError::Data {
            path: range.path.clone(),
            message: format!("line {} is no JSON: {e}", first + i),
        })?;
        out.push((first + i, value));
    }
    if out.is_empty() {
        let message = "has no records".to_owned();
        return Err(TaskError::Data { path: range.path.clone(), message }.into());
    }
    Ok(out)
}

fn layout_of(record: &Value) -> Option<Layout> {
    let has = |key: &str| record.get(key).is_some();
    match () {
        _ if has("messages") => Some(Layout::Chat),
        _ if has("instruction") && has("output") => Some(Layout::Alpaca),
        _ if has("prompt") && (has("completion") || has("response")) => Some(Layout::Prompts),
        _ if has("text") => Some(Layout::Documents),
        _ => None,
    }
}

/// The prompt of Stanford Alpaca, which Alpaca-LoRA and Shortened LLaMA train with.
fn alpaca(instruction: &str, input: &str) -> String {
    let (with, part) = match input.is_empty() {
        true => ("", String::new()),
        false => (", paired with an input that provides further context", format!("### Input:\n{input}\n\n")),
    };
    format!(
        "Below is an instruction that describes a task{with}. Write a response that appropriately completes the \
         request.\n\n### Instruction:\n{instruction}\n\n{part}### Response:\n"
    )
}

impl Records {
    /// Documents as one stream of tokens, each after the tokenizer's beginning and before its end, where it has them.
    ///
    /// # Errors
    /// Where a text cannot be tokenized.
    pub fn stream(texts: &[String], end: Option<u32>, encode: &Encode<'_>) -> Result<Vec<u32>> {
        let pieces: Vec<(bool, bool, &str)> = texts
            .iter()
            .flat_map(|text| {
                let cut = cut(text);
                let last = cut.len().saturating_sub(1);
                cut.into_iter().enumerate().map(move |(i, piece)| (i == 0, i == last, piece))
            })
            .collect();
        let tokens: Result<Vec<Vec<u32>>> = pieces
            .par_iter()
            .map(|(first, last, piece)| {
                let mut ids = encode(piece, *first)?;
                ids.extend(end.filter(|_| *last));
                Ok(ids)
            })
            .collect();
        Ok(tokens?.concat())
    }
}

/// A long text in pieces that begin at the last line break before a word: no pre-tokenizer joins across that place.
fn cut(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let bytes = text.as_bytes();
    let mut at = PIECE;
    while at + 1 < bytes.len() {
        let found = (at..bytes.len() - 1).find(|i| bytes[*i] == b'\n' && !bytes[i + 1].is_ascii_whitespace());
        let Some(end) = found else { break };
        out.push(&text[start..end]);
        start = end;
        at = end + PIECE;
    }
    out.push(&text[start..]);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(name: &str, content: &str) -> Result<Records> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let chat = |m: &[(String, String)]| {
            let (last, before) = m.split_last().unwrap();
            let prompt = before.iter().map(|(r, c)| format!("{r}:{c};")).collect();
            Ok(Pair { prompt, response: last.1.clone(), begins: false })
        };
        read_records(&TextRange { path, lines: None }, Layout::Auto, &chat)
    }

    #[test]
    fn layouts_are_told_by_their_keys() {
        assert_eq!(read("a.txt", "one\ntwo").unwrap(), Records::Texts(vec!["one\ntwo".to_owned()]));
        let texts = read("a.jsonl", "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\n").unwrap();
        assert_eq!(texts, Records::Texts(vec!["one".to_owned(), "two".to_owned()]));
        let pairs = |r: Records| match r {
            Records::Pairs(p) => p,
            Records::Texts(t) => unreachable!("{t:?}"),
        };
        let alpaca = pairs(
            read("a.json", r#"[{"instruction": "Add.", "input": "1 2", "output": "3"}, {"instruction": "Hi", "output": "Ho"}]"#)
                .unwrap(),
        );
        assert!(
            alpaca[0].prompt.contains("further context") && alpaca[0].prompt.contains("### Input:\n1 2\n")
        );
        assert!(alpaca[1].prompt.ends_with("### Instruction:\nHi\n\n### Response:\n"));
        assert_eq!(alpaca[0].response, "3");
        let chat = pairs(
            read(
                "c.jsonl",
                r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
            )
            .unwrap(),
        );
        assert_eq!(
            (chat[0].prompt.as_str(), chat[0].response.as_str(), chat[0].begins),
            ("user:a;", "b", false)
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (name, content, part) in [
            ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": ", "line 2 is no JSON"),
            ("a.jsonl", "{\"text\": \"one\"}\n\n{\"txt\": 1}", "record 3 has no text under `text`"),
            ("a.jsonl", "{\"body\": 1}", "[\"body\"]"),
            ("a.json", "[1, ", "is no JSON list"),
            ("a.jsonl", "\n", "has no records"),
        ] {
            let message = read(name, content).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(part), "{message}");
        }
    }

    #[test]
    fn pieces_join_to_the_text() {
        let text = "some words on a line\n\nand more  \n of them\n".repeat(5000);
        let pieces = cut(&text);
        assert!(pieces.len() > 2);
        assert_eq!(pieces.concat(), text);
        assert!(pieces[1..].iter().all(|p| p.starts_with('\n') && !p[1..].starts_with(char::is_whitespace)));
    }
}
