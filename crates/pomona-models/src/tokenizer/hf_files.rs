//! The tokenizer files of a Hugging Face directory.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::{Result, file_error, io_error};
use super::{Source, Tokenizer};

/// Files that make up a tokenizer in a Hugging Face directory.
const NAMES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "vocab.txt",
];
/// Larger files are no tokenizer's.
const MAX_BYTES: u64 = 256 << 20;

pub(super) fn hf_files(t: &Tokenizer) -> Result<Vec<(String, Vec<u8>)>> {
    match &t.source {
        Source::Directory(directory) => copies(directory),
        Source::Gguf => built(t),
    }
}

fn copies(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for name in NAMES {
        let path = directory.join(name);
        if !path.exists() {
            continue;
        }
        let size = fs::metadata(&path).map_err(|e| io_error(&path, e))?.len();
        if size > MAX_BYTES {
            return Err(file_error(
                path.display().to_string(),
                format!("has {size} bytes; at most {MAX_BYTES} are copied"),
            ));
        }
        files.push((name.to_owned(), fs::read(&path).map_err(|e| io_error(&path, e))?));
    }
    Ok(files)
}

fn built(t: &Tokenizer) -> Result<Vec<(String, Vec<u8>)>> {
    let definition = t.definition()?;
    let special = named(t);
    let mut config = Map::new();
    config.insert("added_tokens_decoder".to_owned(), decoder(&definition["added_tokens"]));
    if t.special.add_bos {
        config.insert("add_bos_token".to_owned(), json!(true));
    }
    if t.special.add_eos {
        config.insert("add_eos_token".to_owned(), json!(true));
    }
    if let Some(template) = &t.chat_template {
        config.insert("chat_template".to_owned(), json!(template));
    }
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    config.insert("model_input_names".to_owned(), json!(["input_ids", "attention_mask"]));
    if let Some(length) = t.model_max_length {
        config.insert("model_max_length".to_owned(), json!(length));
    }
    // The class that takes tokenizer.json as it is: the model's own class would build its own pre-tokenizer.
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.extend(special.clone());
    Ok(vec![
        ("tokenizer.json".to_owned(), pretty(&definition)),
        ("tokenizer_config.json".to_owned(), pretty(&Value::Object(config))),
        ("special_tokens_map.json".to_owned(), pretty(&Value::Object(special))),
    ])
}

/// `bos_token` and its like, by their names in transformers.
pub(super) fn named(t: &Tokenizer) -> Map<String, Value> {
    let s = &t.special;
    let roles = [
        ("bos_token", s.bos),
        ("eos_token", s.eos.first().copied()),
        ("unk_token", s.unknown),
        ("pad_token", s.padding),
    ];
    roles.into_iter().filter_map(|(name, id)| Some((name.to_owned(), json!(t.token(id)?)))).collect()
}

/// `added_tokens_decoder` of tokenizer_config.json: the added tokens by id.
fn decoder(added: &Value) -> Value {
    let mut by_id = Map::new();
    for token in added.as_array().into_iter().flatten() {
        let mut entry = token.as_object().cloned().unwrap_or_default();
        if let Some(id) = entry.remove("id") {
            by_id.insert(id.to_string(), Value::Object(entry));
        }
    }
    Value::Object(by_id)
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    text
}
