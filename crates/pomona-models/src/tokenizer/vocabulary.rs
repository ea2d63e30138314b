//! The `tokenizer.*` entries of GGUF metadata, checked.

use std::collections::HashMap;

use pomona_store::GgufValue;

use super::error::{Result, key_error};

/// Most entries of a vocabulary; the largest published ones have about 260,000.
pub(super) const MAX_TOKENS: usize = 1 << 22;
/// Longest token, bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 1 << 16;

/// `tokenizer.ggml.token_type` of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A vocabulary as GGUF stores it.
pub(super) struct Vocabulary {
    /// `tokenizer.ggml.model`.
    pub model: String,
    /// `tokenizer.ggml.pre`.
    pub pre: Option<String>,
    /// By id.
    pub tokens: Vec<String>,
    /// By id.
    pub types: Vec<TokenType>,
    /// By id; absent in byte-level vocabularies.
    pub scores: Option<Vec<f32>>,
    pub merges: Option<Vec<(String, String)>>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    /// End of a turn and end of a message: generation stops there too.
    pub other_ends: Vec<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space_prefix: Option<bool>,
    pub chat_template: Option<String>,
    /// `<architecture>.context_length`.
    pub context_length: Option<u64>,
}

pub(super) struct Metadata<'a>(pub &'a [(String, GgufValue)]);

impl<'a> Metadata<'a> {
    pub fn get(&self, key: &str) -> Option<&'a GgufValue> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    fn string(&self, key: &str) -> Result<Option<&'a str>> {
        let wrong = || key_error(key, "is not a string");
        self.get(key).map(|v| v.as_str().ok_or_else(wrong)).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let wrong = || key_error(key, "is not a truth value");
        self.get(key).map(|v| v.as_bool().ok_or_else(wrong)).transpose()
    }

    fn array(&self, key: &str) -> Result<Option<&'a [GgufValue]>> {
        let wrong = || key_error(key, "is not an array");
        self.get(key).map(|v| v.as_array().ok_or_else(wrong)).transpose()
    }

    /// A token id within the vocabulary. llama.cpp passes over one that is not, and so do we: converters write -1.
    fn id(&self, key: &str, tokens: usize) -> Option<u32> {
        let id = self.get(key)?.as_u64()?;
        u32::try_from(id).ok().filter(|_| id < tokens as u64)
    }
}

/// Reads and checks the entries.
pub(super) fn read(metadata: &[(String, GgufValue)]) -> Result<Vocabulary> {
    let m = Metadata(metadata);
    let model = m.string("tokenizer.ggml.model")?.ok_or_else(|| {
        key_error(
            "tokenizer.ggml.model",
            "is missing: the file has no tokenizer; use the model's Hugging Face directory",
        )
    })?;
    let tokens = tokens(&m)?;
    let types = types(&m, tokens.len())?;
    let scores = scores(&m, tokens.len())?;
    let id = |name: &str| m.id(&format!("tokenizer.ggml.{name}"), tokens.len());
    let architecture = m.string("general.architecture")?.unwrap_or("llama");
    let other_ends = ["eot_token_id", "eom_token_id"].into_iter().filter_map(id).collect();
    Ok(Vocabulary {
        model: model.to_owned(),
        pre: m.string("tokenizer.ggml.pre")?.map(str::to_owned),
        types,
        scores,
        merges: merges(&m)?,
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        unknown: id("unknown_token_id"),
        padding: id("padding_token_id"),
        other_ends,
        add_bos: m.flag("tokenizer.ggml.add_bos_token")?,
        add_eos: m.flag("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: m.flag("tokenizer.ggml.add_space_prefix")?,
        chat_template: m.string("tokenizer.chat_template")?.map(str::to_owned),
        context_length: m.get(&format!("{architecture}.context_length")).and_then(GgufValue::as_u64),
        tokens,
    })
}

fn tokens(m: &Metadata<'_>) -> Result<Vec<String>> {
    let key = "tokenizer.ggml.tokens";
    let array = m.array(key)?.ok_or_else(|| key_error(key, "is missing, and the tokenizer needs it"))?;
    if array.is_empty() || array.len() > MAX_TOKENS {
        return Err(key_error(key, format!("has {} tokens; 1 to {MAX_TOKENS} are read", array.len())));
    }
    let mut seen = HashMap::with_capacity(array.len());
    let mut tokens = Vec::with_capacity(array.len());
    for (id, value) in array.iter().enumerate() {
        let text = value
            .as_str()
            .ok_or_else(|| key_error(key, format!("has at {id} something that is not a string")))?;
        if text.len() > MAX_TOKEN_BYTES {
            return Err(key_error(
                key,
                format!("has at {id} a token of {} bytes; at most {MAX_TOKEN_BYTES} are read", text.len()),
            ));
        }
        let text = if text.is_empty() { format!("[EMPTY_{id}]") } else { text.to_owned() };
        if let Some(first) = seen.insert(text.clone(), id) {
            return Err(key_error(
                key,
                format!("has `{text}` at {first} and again at {id}: no loader can tell them apart"),
            ));
        }
        tokens.push(text);
    }
    Ok(tokens)
}

fn types(m: &Metadata<'_>, tokens: usize) -> Result<Vec<TokenType>> {
    let key = "tokenizer.ggml.token_type";
    let Some(array) = m.array(key)? else { return Ok(vec![TokenType::Normal; tokens]) };
    if array.len() != tokens {
        return Err(key_error(key, format!("has {} entries for {tokens} tokens", array.len())));
    }
    Ok(array
        .iter()
        .map(|v| match v.as_i64() {
            Some(2) => TokenType::Unknown,
            Some(3) => TokenType::Control,
            Some(4) => TokenType::UserDefined,
            Some(5) => TokenType::Unused,
            Some(6) => TokenType::Byte,
            _ => TokenType::Normal,
        })
        .collect())
}

fn scores(m: &Metadata<'_>, tokens: usize) -> Result<Option<Vec<f32>>> {
    let key = "tokenizer.ggml.scores";
    let Some(array) = m.array(key)? else { return Ok(None) };
    if array.len() != tokens {
        return Err(key_error(key, format!("has {} entries for {tokens} tokens", array.len())));
    }
    let scores: Option<Vec<f32>> =
        array.iter().map(|v| v.as_f64().map(|s| s as f32).filter(|s| !s.is_nan())).collect();
    scores.map(Some).ok_or_else(|| key_error(key, "has an entry that is not a number"))
}

fn merges(m: &Metadata<'_>) -> Result<Option<Vec<(String, String)>>> {
    let key = "tokenizer.ggml.merges";
    let Some(array) = m.array(key)? else { return Ok(None) };
    let mut merges = Vec::with_capacity(array.len());
    for (rank, value) in array.iter().enumerate() {
        // The first character belongs to the left part even where it is a space.
        let parts = value.as_str().and_then(|s| {
            let skip = s.chars().next()?.len_utf8();
            let at = s[skip..].find(' ')? + skip;
            Some((s[..at].to_owned(), s[at + 1..].to_owned()))
        });
        let parts = parts.ok_or_else(|| {
            key_error(key, format!("has at {rank} something that is not two tokens with a space between"))
        })?;
        merges.push(parts);
    }
    Ok(Some(merges))
}
