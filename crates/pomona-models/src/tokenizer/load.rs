//! Opening tokenizers: files with their neighbours, and GGUF metadata.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pomona_store::GgufValue;
use serde_json::Value;

use super::error::{Result, file_error, io_error};
use super::vocabulary::{self, MAX_TOKEN_BYTES, MAX_TOKENS};
use super::{Source, SpecialTokens, Tokenizer, clip, from_gguf as build, guarded};

/// Largest tokenizer file; the largest published ones have about 35 MB.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;
/// Largest of the small files beside it.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Tokens that llama.cpp takes for the end of a turn by their spelling, whatever the metadata says.
const ENDS: [&str; 9] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "<|end_of_text|>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

pub(super) fn from_gguf(metadata: &[(String, GgufValue)]) -> Result<Tokenizer> {
    let v = vocabulary::read(metadata)?;
    let built = build::build(&v)?;
    let origin = "GGUF metadata".to_owned();
    let inner = parse(&origin, built.json.to_string().as_bytes())?;
    let mut eos: Vec<u32> = v.eos.into_iter().chain(v.other_ends.iter().copied()).collect();
    let control = |id: &u32| {
        matches!(v.types[*id as usize], vocabulary::TokenType::Control | vocabulary::TokenType::UserDefined)
    };
    eos.extend(ENDS.iter().filter_map(|end| inner.token_to_id(end)).filter(control));
    let special = SpecialTokens {
        bos: v.bos,
        eos: unique(eos),
        unknown: v.unknown,
        padding: v.padding,
        add_bos: built.add_bos,
        add_eos: built.add_eos,
    };
    Ok(Tokenizer {
        inner,
        json: built.json.to_string(),
        origin,
        source: Source::Gguf,
        special,
        chat_template: v.chat_template,
        model_max_length: v.context_length,
    })
}

pub(super) fn from_file(path: &Path) -> Result<Tokenizer> {
    let bytes = read(path, MAX_FILE_BYTES)?;
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    from_definition(path.display().to_string(), bytes, directory, Value::Null)
}

/// A directory's tokenizer.json, or what stands for it there.
pub(super) fn from_dir(directory: &Path) -> Result<Tokenizer> {
    let path = directory.join("tokenizer.json");
    if path.exists() {
        return from_file(&path);
    }
    match clip::definition(directory)? {
        Some(json) => {
            let origin = directory.join("merges.txt").display().to_string();
            from_definition(origin, json.to_string().into_bytes(), directory.to_owned(), clip::names())
        }
        None => from_file(&path),
    }
}

/// Runs a tokenizer.json with the small files of a directory; `names` are the control tokens where those name none.
fn from_definition(origin: String, bytes: Vec<u8>, directory: PathBuf, names: Value) -> Result<Tokenizer> {
    check(&origin, &bytes)?;
    let inner = parse(&origin, &bytes)?;
    let json = String::from_utf8(bytes).map_err(|_| file_error(&origin, "is not UTF-8"))?;
    let config = optional_json(&directory.join("tokenizer_config.json"))?;
    let map = optional_json(&directory.join("special_tokens_map.json"))?;
    let generation = optional_json(&directory.join("generation_config.json"))?;
    let chat_template = match optional(&directory.join("chat_template.jinja"))? {
        Some(bytes) => Some(String::from_utf8(bytes).map_err(|_| {
            file_error(directory.join("chat_template.jinja").display().to_string(), "is not UTF-8")
        })?),
        None => template_of(&config),
    };
    let id_of = |name: &str| {
        let named = content(&config[name]).or_else(|| content(&map[name])).or_else(|| content(&names[name]));
        named.and_then(|token| inner.token_to_id(token))
    };
    let known = |id: &u32| inner.id_to_token(*id).is_some();
    let mut eos: Vec<u32> = id_of("eos_token").into_iter().collect();
    eos.extend(ids(&generation["eos_token_id"]).filter(known));
    let bos = id_of("bos_token").or_else(|| ids(&generation["bos_token_id"]).find(known));
    let special = SpecialTokens {
        bos,
        eos: unique(eos),
        unknown: id_of("unk_token"),
        padding: id_of("pad_token"),
        add_bos: false,
        add_eos: false,
    };
    // transformers writes 1e30 for "no limit".
    let model_max_length = config["model_max_length"].as_u64().filter(|&n| n < 1 << 40);
    let mut tokenizer = Tokenizer {
        inner,
        json,
        origin,
        source: Source::Directory(directory),
        special,
        chat_template,
        model_max_length,
    };
    // What encoding adds is what the definition does, not what the configuration says about it.
    let plain = tokenizer.encode("a", false)?;
    let full = tokenizer.encode("a", true)?;
    let added = full.len() > plain.len();
    tokenizer.special.add_bos = added && full.first().copied() == tokenizer.special.bos;
    tokenizer.special.add_eos =
        added && full.last() == tokenizer.special.eos.first() && full.last() != plain.last();
    Ok(tokenizer)
}

/// Bounds on what the `tokenizers` crate would believe.
fn check(origin: &str, bytes: &[u8]) -> Result<()> {
    let json: Value =
        serde_json::from_slice(bytes).map_err(|e| file_error(origin, format!("is not JSON: {e}")))?;
    if !json["model"].is_object() {
        return Err(file_error(
            origin,
            "has no `model` object: not a tokenizer.json; convert the tokenizer with transformers' save_pretrained",
        ));
    }
    let too_long = |token: &str| token.len() > MAX_TOKEN_BYTES;
    let entries = |n: usize| match n {
        n if n > MAX_TOKENS => {
            Err(file_error(origin, format!("has {n} tokens; at most {MAX_TOKENS} are read")))
        }
        _ => Ok(()),
    };
    let token = |token: &str, id: Option<&Value>| match id.map(Value::as_u64) {
        _ if too_long(token) => Err(file_error(
            origin,
            format!("has a token of {} bytes; at most {MAX_TOKEN_BYTES} are read", token.len()),
        )),
        Some(Some(id)) if id >= 4 * MAX_TOKENS as u64 => Err(file_error(
            origin,
            format!("gives `{token}` the id {id}; ids up to {} are read", 4 * MAX_TOKENS),
        )),
        Some(None) => Err(file_error(origin, format!("gives `{token}` an id that is not a whole number"))),
        _ => Ok(()),
    };
    if let Some(vocab) = json["model"]["vocab"].as_object() {
        entries(vocab.len())?;
        let mut used = BTreeSet::new();
        for (text, id) in vocab {
            token(text, Some(id))?;
            if !used.insert(id.as_u64()) {
                return Err(file_error(
                    origin,
                    format!("gives `{text}` the id {id}, which another token has"),
                ));
            }
        }
    }
    let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    entries(added.len())?;
    for entry in added {
        token(entry["content"].as_str().unwrap_or(""), Some(&entry["id"]))?;
    }
    Ok(())
}

fn parse(origin: &str, bytes: &[u8]) -> Result<tokenizers::Tokenizer> {
    let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes))
        .map_err(|message| file_error(origin, format!("is not a tokenizer that can be run: {message}")))?;
    // Cutting and filling are the caller's affair, as in transformers, which overrides what the file has.
    inner.with_padding(None);
    guarded(|| inner.with_truncation(None).map(|_| ())).map_err(|message| file_error(origin, message))?;
    Ok(inner)
}

pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let size = fs::metadata(path).map_err(|e| io_error(path, e))?.len();
    if size > limit {
        return Err(file_error(
            path.display().to_string(),
            format!("has {size} bytes; at most {limit} are read"),
        ));
    }
    fs::read(path).map_err(|e| io_error(path, e))
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>> {
    if path.exists() { read(path, MAX_CONFIG_BYTES).map(Some) } else { Ok(None) }
}

fn optional_json(path: &Path) -> Result<Value> {
    let Some(bytes) = optional(path)? else { return Ok(Value::Null) };
    serde_json::from_slice(&bytes)
        .map_err(|e| file_error(path.display().to_string(), format!("is not JSON: {e}")))
}

/// A token is written as its text or as an object with its text.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// One id or a list of ids.
fn ids(value: &Value) -> impl Iterator<Item = u32> + '_ {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(|id| id.as_u64().and_then(|id| id.try_into().ok()))
}

/// `chat_template` is a template, or several with names of which `default` is the one for conversations.
fn template_of(config: &Value) -> Option<String> {
    let field = &config["chat_template"];
    let named = || field.as_array()?.iter().find(|t| t["name"] == "default")?["template"].as_str();
    field.as_str().or_else(named).map(str::to_owned)
}

fn unique(ids: Vec<u32>) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    ids.into_iter().filter(|id| seen.insert(*id)).collect()
}
