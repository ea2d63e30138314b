//! Tokenizers from tokenizer.json and from GGUF metadata, the way back to both, and chat templates.
//!
//! Whatever the source, a tokenizer is a tokenizer.json run by the `tokenizers` crate: from GGUF metadata the
//! tokenizer.json is built first, so that an exported directory holds exactly what ran here.

mod chat;
mod chat_format;
mod chat_time;
mod clip;
mod error;
mod from_gguf;
mod guard;
mod hf_files;
mod load;
mod pretokenizers;
mod stream;
mod to_gguf;
mod vocabulary;

use std::path::{Path, PathBuf};

use pomona_store::GgufValue;
use serde_json::Value;

pub use chat::{ChatMessage, ChatOptions, render_template};
pub use error::{Result, TokenizerError};
pub use guard::silence_caught_panics;
pub use stream::StreamDecoder;

use error::file_error;
use guard::guarded;

/// Where a tokenizer came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The directory of tokenizer.json.
    Directory(PathBuf),
    Gguf,
}

/// Tokens with a part to play, and what encoding adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of a sequence.
    pub bos: Option<u32>,
    /// Tokens that end a generation; the first one is the tokenizer's own end of a sequence.
    pub eos: Vec<u32>,
    /// Stands for what the vocabulary cannot spell.
    pub unknown: Option<u32>,
    /// Fills batches up.
    pub padding: Option<u32>,
    /// Encoding with special tokens begins with `bos`.
    pub add_bos: bool,
    /// Encoding with special tokens ends with the first of `eos`.
    pub add_eos: bool,
}

/// A text tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The tokenizer.json that `inner` runs.
    json: String,
    /// In messages: the file, or `GGUF metadata`.
    origin: String,
    source: Source,
    special: SpecialTokens,
    chat_template: Option<String>,
    model_max_length: Option<u64>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and beside it, where they are there, `tokenizer_config.json`,
    /// `special_tokens_map.json`, `generation_config.json` and `chat_template.jinja`.
    ///
    /// Errors: a file that cannot be read, is malformed, or beyond the limits (256 MiB, 4 Mi tokens).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Tokenizer> {
        load::from_file(path.as_ref())
    }

    /// Reads the tokenizer of a Hugging Face directory: tokenizer.json (see [`Tokenizer::from_file`]), or where there is
    /// none CLIP's merges.txt with or without vocab.json.
    pub fn from_dir(directory: impl AsRef<Path>) -> Result<Tokenizer> {
        load::from_dir(directory.as_ref())
    }

    /// Builds the tokenizer that GGUF metadata describes: `tokenizer.ggml.model` `gpt2` or `llama`.
    ///
    /// Errors: missing or inconsistent entries, naming the key; other models and unknown pre-tokenizers, by name.
    pub fn from_gguf(metadata: &[(String, GgufValue)]) -> Result<Tokenizer> {
        load::from_gguf(metadata)
    }

    /// Ids of a text. Special tokens spelled out in the text become their ids; with `add_special` the tokens that the
    /// model expects at the ends are added.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.guarded(|| self.inner.encode_fast(text, add_special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of ids, without special tokens. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.guarded(|| self.inner.decode(ids, true))
    }

    /// Text of ids, special tokens spelled out.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        self.guarded(|| self.inner.decode(ids, false))
    }

    /// A decoder that takes ids one by one and keeps unfinished characters back.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }

    /// The token's own spelling (byte-level alphabet, `▁` for spaces), or `None` for an id outside the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Id of a token by its own spelling.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, added ones included. A model's embedding can have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Tokens with a part to play.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Beginning of a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// Whether a generation ends with this token.
    pub fn is_eos(&self, id: u32) -> bool {
        self.special.eos.contains(&id)
    }

    /// Longest sequence in tokens, where the source says.
    pub fn model_max_length(&self) -> Option<u64> {
        self.model_max_length
    }

    /// The chat template's source.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The tokenizer.json that runs here.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The prompt of a conversation, as the model's own chat template spells it.
    ///
    /// Errors: no template, a malformed one, one that refuses the messages, one that does not end within its allowance.
    pub fn render_chat(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String> {
        chat::render_chat(self, messages, options)
    }

    /// The tokenizer files of a Hugging Face directory, as (name, contents). From such a directory they come unchanged;
    /// from GGUF they are built, and stock `AutoTokenizer` reads them.
    pub fn hf_files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        hf_files::hf_files(self)
    }

    /// The `tokenizer.*` metadata of a GGUF file for a model with `rows` rows in its embedding; rows beyond the
    /// vocabulary become unused tokens.
    ///
    /// Errors: kinds of tokenizers that llama.cpp does not have, by name; fewer rows than tokens.
    pub fn gguf_metadata(&self, rows: usize) -> Result<Vec<(String, GgufValue)>> {
        to_gguf::gguf_metadata(self, rows)
    }

    fn token(&self, id: Option<u32>) -> Option<String> {
        self.id_to_token(id?)
    }

    fn guarded<T>(&self, f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
        guarded(f).map_err(|message| TokenizerError::Run { origin: self.origin.clone(), message })
    }

    fn definition(&self) -> Result<Value> {
        serde_json::from_str(&self.json).map_err(|e| file_error(&self.origin, format!("is not JSON: {e}")))
    }
}

#[cfg(test)]
mod tests;
