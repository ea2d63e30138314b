//! From a tokenizer.json to the `tokenizer.*` metadata that llama.cpp reads.

use std::collections::HashMap;

use pomona_store::GgufValue;
use serde_json::Value;

use super::error::{Result, TokenizerError, file_error, unsupported};
use super::vocabulary::TokenType;
use super::{Tokenizer, pretokenizers};

/// What the two kinds differ in.
struct Kind {
    model: &'static str,
    pre: &'static str,
    add_space_prefix: bool,
    scores: bool,
}

pub(super) fn gguf_metadata(t: &Tokenizer, rows: usize) -> Result<Vec<(String, GgufValue)>> {
    let definition = t.definition()?;
    let kind = kind(t, &definition)?;
    let tokens = tokens(t, rows)?;
    let types = types(t, &definition, &tokens, kind.scores);
    let merges = merges(t, &definition)?;
    let texts =
        tokens.iter().enumerate().map(|(id, token)| token.clone().unwrap_or_else(|| format!("[PAD{id}]")));

    let mut out: Vec<(String, GgufValue)> = Vec::new();
    let mut put = |key: &str, value: GgufValue| out.push((format!("tokenizer.{key}"), value));
    put("ggml.model", GgufValue::String(kind.model.to_owned()));
    put("ggml.pre", GgufValue::String(kind.pre.to_owned()));
    put("ggml.tokens", GgufValue::strings(texts));
    if kind.scores {
        let scores = scores(t, &tokens, &merges)?;
        put("ggml.scores", GgufValue::Array(6, scores.into_iter().map(GgufValue::F32).collect()));
    }
    put(
        "ggml.token_type",
        GgufValue::Array(5, types.into_iter().map(|k| GgufValue::I32(k as i32)).collect()),
    );
    if !kind.scores {
        put("ggml.merges", GgufValue::strings(merges.iter().map(|(l, r)| format!("{l} {r}"))));
    }
    let s = t.special();
    let eos = s.eos.first().copied();
    let ids = [
        ("bos_token_id", s.bos),
        ("eos_token_id", eos),
        ("eot_token_id", s.eos.get(1).copied()),
        ("unknown_token_id", s.unknown),
        ("padding_token_id", s.padding),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            put(&format!("ggml.{name}"), GgufValue::U32(id));
        }
    }
    put("ggml.add_bos_token", GgufValue::Bool(s.add_bos));
    put("ggml.add_eos_token", GgufValue::Bool(s.add_eos));
    put("ggml.add_space_prefix", GgufValue::Bool(kind.add_space_prefix));
    if let Some(template) = t.chat_template() {
        put("chat_template", GgufValue::String(template.to_owned()));
    }
    Ok(out)
}

fn refuse(t: &Tokenizer, kind: impl Into<String>) -> TokenizerError {
    unsupported(
        t.origin.as_str(),
        format!("{} in GGUF", kind.into()),
        "llama.cpp would cut texts in another way; export this model as a Hugging Face directory",
    )
}

fn kind(t: &Tokenizer, definition: &Value) -> Result<Kind> {
    let model = &definition["model"];
    let name = model["type"].as_str().unwrap_or("a model without type");
    if name != "BPE" {
        return Err(refuse(t, format!("tokenizer model {name}")));
    }
    if ["continuing_subword_prefix", "end_of_word_suffix"]
        .iter()
        .any(|k| model[k].as_str().is_some_and(|s| !s.is_empty()))
    {
        return Err(refuse(t, "BPE with marks at the edges of words"));
    }
    if model["byte_fallback"] == true { sentence_piece(t, definition) } else { byte_level(t, definition) }
}

fn byte_level(t: &Tokenizer, definition: &Value) -> Result<Kind> {
    let normalizer = &definition["normalizer"];
    let empty =
        normalizer["type"] == "Sequence" && normalizer["normalizers"].as_array().is_some_and(Vec::is_empty);
    // llama.cpp leaves the composed form out for the tokenizers that ask for it; text is composed almost always.
    if !(normalizer.is_null() || empty || normalizer["type"] == "NFC") {
        return Err(refuse(t, format!("byte-level BPE with normalizer {}", normalizer["type"])));
    }
    let steps = pretokenizers::from_json(&definition["pre_tokenizer"])
        .map_err(|part| refuse(t, format!("pre-tokenizer {part}")))?;
    let ignore_merges = definition["model"]["ignore_merges"] == true;
    let pre = pretokenizers::by_steps(&steps, ignore_merges).ok_or_else(|| {
        refuse(t, format!("pre-tokenizer {} with ignore_merges {ignore_merges}", definition["pre_tokenizer"]))
    })?;
    Ok(Kind { model: "gpt2", pre: pre.names[0], add_space_prefix: false, scores: false })
}

/// A vocabulary with `▁` for spaces and byte tokens; the space before the text is put there by a normalizer or by
/// `Metaspace`.
fn sentence_piece(t: &Tokenizer, definition: &Value) -> Result<Kind> {
    let (mut prefix, mut spaces) = (false, false);
    let parts = |v: &Value, list: &str| match v {
        Value::Null => Vec::new(),
        v if v["type"] == "Sequence" => v[list].as_array().cloned().unwrap_or_default(),
        v => vec![v.clone()],
    };
    for part in parts(&definition["normalizer"], "normalizers") {
        match part["type"].as_str() {
            Some("Prepend") if part["prepend"] == "\u{2581}" => prefix = true,
            Some("Replace") if part["pattern"]["String"] == " " && part["content"] == "\u{2581}" => {
                spaces = true
            }
            _ => return Err(refuse(t, format!("SentencePiece BPE with normalizer {part}"))),
        }
    }
    for part in parts(&definition["pre_tokenizer"], "pretokenizers") {
        if part["type"] != "Metaspace" || part["split"] != false || part["replacement"] != "\u{2581}" {
            return Err(refuse(t, format!("SentencePiece BPE with pre-tokenizer {part}")));
        }
        spaces = true;
        prefix |= part["prepend_scheme"].as_str().is_none_or(|scheme| scheme != "never");
    }
    if !spaces {
        return Err(refuse(t, "BPE with byte fallback and no mark for spaces"));
    }
    Ok(Kind { model: "llama", pre: "default", add_space_prefix: prefix, scores: true })
}

/// Tokens by id, `None` where no token has the id.
fn tokens(t: &Tokenizer, rows: usize) -> Result<Vec<Option<String>>> {
    let mut tokens = vec![None; rows];
    for (token, id) in t.inner.get_vocab(true) {
        let slot = tokens.get_mut(id as usize).ok_or_else(|| {
            file_error(t.origin.as_str(), format!("gives `{token}` the id {id}, and the embedding has {rows} rows: the tokenizer is another model's"))
        })?;
        *slot = Some(token);
    }
    Ok(tokens)
}

fn types(t: &Tokenizer, definition: &Value, tokens: &[Option<String>], byte_tokens: bool) -> Vec<TokenType> {
    let added = t.inner.get_added_tokens_decoder();
    let unknown = definition["model"]["unk_token"].as_str();
    let kind = |(id, token): (usize, &Option<String>)| {
        let Some(token) = token else { return TokenType::Unused };
        let special = u32::try_from(id).ok().and_then(|id| added.get(&id)).map(|a| a.special);
        let byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        match special {
            _ if byte_tokens && unknown == Some(token) => TokenType::Unknown,
            Some(true) => TokenType::Control,
            Some(false) => TokenType::UserDefined,
            None if byte_tokens && byte => TokenType::Byte,
            None => TokenType::Normal,
        }
    };
    tokens.iter().enumerate().map(kind).collect()
}

/// Merges are pairs, in older files two tokens with a space between.
fn merges(t: &Tokenizer, definition: &Value) -> Result<Vec<(String, String)>> {
    let list = definition["model"]["merges"].as_array().map_or(&[][..], Vec::as_slice);
    let pair = |(rank, entry): (usize, &Value)| {
        let pair = match (entry.as_str(), entry.as_array().map(Vec::as_slice)) {
            (Some(text), _) => text.split_once(' '),
            (_, Some([left, right])) => left.as_str().zip(right.as_str()),
            _ => None,
        };
        match pair {
            Some((l, r)) if !l.contains(' ') && !r.contains(' ') => Ok((l.to_owned(), r.to_owned())),
            Some(_) => Err(refuse(t, format!("merge {rank}, which has a token with a space"))),
            None => Err(file_error(
                t.origin.as_str(),
                format!("has a merge {rank} that is not two tokens: {entry}"),
            )),
        }
    };
    list.iter().enumerate().map(pair).collect()
}

/// Scores that give the order of the merges back: a piece's score is minus the place of its merges in the list. That
/// holds only where all merges to one piece stand together, as they do in what was a SentencePiece model. Pieces of
/// equal score stand mixed, longer parts first, and get equal scores again.
fn scores(t: &Tokenizer, tokens: &[Option<String>], merges: &[(String, String)]) -> Result<Vec<f32>> {
    let mut ranks: HashMap<String, (usize, usize)> = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        let (_, last) = ranks.entry(format!("{left}{right}")).or_insert((rank, rank));
        *last = rank;
    }
    let mut spans: Vec<(usize, usize)> = ranks.values().copied().collect();
    spans.sort_unstable();
    let mut groups: Vec<(usize, usize)> = Vec::new();
    let mut mixed = Vec::new();
    for (first, last) in spans {
        match groups.last_mut() {
            Some(group) if first <= group.1 => {
                group.1 = group.1.max(last);
                mixed.push(groups.len() - 1);
            }
            _ => groups.push((first, last)),
        }
    }
    let lengths = |(left, right): &(String, String)| (left.chars().count(), right.chars().count());
    for (first, last) in mixed.into_iter().map(|at| groups[at]) {
        if !merges[first..=last].is_sorted_by(|a, b| lengths(a) >= lengths(b)) {
            return Err(refuse(
                t,
                format!("BPE whose merges {first} to {last} make one piece with others between"),
            ));
        }
    }
    // Groups are in order and disjoint: the one that a merge is in is the last that begins at or before it.
    let place = |rank: usize| groups.partition_point(|&(first, _)| first <= rank);
    let mut without = groups.len();
    let score = |token: &Option<String>| match token.as_ref().and_then(|token| ranks.get(token)) {
        Some(&(first, _)) => -(place(first) as f32),
        None => {
            without += 1;
            -(without as f32)
        }
    };
    Ok(tokens.iter().map(score).collect())
}
