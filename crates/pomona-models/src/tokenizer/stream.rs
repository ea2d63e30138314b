//! Decoding while ids arrive: text comes out as soon as its characters are whole.

use super::Tokenizer;
use super::error::Result;

/// Ids that are kept to decode the next one in context.
const CONTEXT: usize = 6;
/// A character has at most four bytes, hence at most four tokens: what is unfinished for longer is no character.
const MOST_TOKENS: usize = 4;

/// Decodes ids one by one. The pieces joined are the text of [`Tokenizer::decode`] wherever the ids spell whole
/// characters; special tokens are left out.
#[derive(Clone, Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Emitted ids that the next ones are decoded after, then those that are kept back.
    ids: Vec<u32>,
    /// How many of `ids` are emitted.
    emitted: usize,
}

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> StreamDecoder<'a> {
        StreamDecoder { tokenizer, ids: Vec::new(), emitted: 0 }
    }

    /// Takes an id and gives the text that is whole now, often empty.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let whole = self.tokenizer.decode(&self.ids)?;
        let waiting = self.ids.len() - self.emitted;
        if whole.ends_with('\u{fffd}') && waiting < MOST_TOKENS {
            return Ok(String::new());
        }
        self.emit(whole)
    }

    /// The rest, unfinished characters as U+FFFD.
    pub fn finish(mut self) -> Result<String> {
        let whole = self.tokenizer.decode(&self.ids)?;
        self.emit(whole)
    }

    fn emit(&mut self, whole: String) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[..self.emitted])?;
        let new = match whole.strip_prefix(&before) {
            Some(new) => new.to_owned(),
            // A token that changes the text before it (a clean-up decoder): what stays the same is not repeated.
            None => {
                let same = whole
                    .chars()
                    .zip(before.chars())
                    .take_while(|(a, b)| a == b)
                    .map(|(a, _)| a.len_utf8())
                    .sum();
                whole.get(same..).unwrap_or("").to_owned()
            }
        };
        self.emitted = self.ids.len();
        // The context must not begin inside a character, nor lose the first token, whose leading space is dropped.
        if self.emitted > 4 * CONTEXT {
            let mut from = self.emitted - CONTEXT;
            while from > 1 && self.tokenizer.decode(&self.ids[from..])?.starts_with('\u{fffd}') {
                from -= 1;
            }
            self.ids.drain(1..from);
            self.emitted = self.ids.len();
        }
        Ok(new)
    }
}
