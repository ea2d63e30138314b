//! From a GGUF vocabulary to the tokenizer.json that the same model has on the hub.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::error::{Result, key_error, unsupported};
use super::pretokenizers;
use super::vocabulary::{TokenType, Vocabulary};

/// Longest piece of a score-based vocabulary, bytes: its merges are all its cuts.
const MAX_PIECE_BYTES: usize = 512;

/// A tokenizer.json, and whether encoding adds tokens at the ends.
pub(super) struct Built {
    pub json: Value,
    pub add_bos: bool,
    pub add_eos: bool,
}

/// Builds the definition.
pub(super) fn build(v: &Vocabulary) -> Result<Built> {
    match v.model.as_str() {
        "gpt2" => byte_level(v),
        "llama" => sentence_piece(v),
        other => Err(unsupported(
            "GGUF metadata",
            format!("tokenizer model `{other}` (tokenizer.ggml.model)"),
            "`gpt2` (byte-level BPE) and `llama` (SentencePiece BPE) are read; open the Hugging Face directory instead",
        )),
    }
}

fn byte_level(v: &Vocabulary) -> Result<Built> {
    let pre = pretokenizers::by_name(v.pre.as_deref().unwrap_or("default"))?;
    let merges = v
        .merges
        .as_ref()
        .ok_or_else(|| key_error("tokenizer.ggml.merges", "is missing, and byte-level BPE needs it"))?;
    let (add_bos, add_eos) = ends(v, pre.add_bos);
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(v),
        "normalizer": if pre.nfc { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pretokenizers::to_json(pre.steps),
        "post_processor": post_processor(v, add_bos, add_eos),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignore_merges,
            "vocab": vocab(v),
            "merges": merges,
        },
    });
    Ok(Built { json, add_bos, add_eos })
}

fn sentence_piece(v: &Vocabulary) -> Result<Built> {
    let merges = match &v.merges {
        Some(merges) => merges.clone(),
        None => merges_by_score(v)?,
    };
    let (add_bos, add_eos) = ends(v, true);
    let prefix = v.add_space_prefix.unwrap_or(true);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let normalizer = if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"}, spaces]})
    } else {
        spaces
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown =
        v.unknown.or_else(|| v.types.iter().position(|&t| t == TokenType::Unknown).map(|id| id as u32));
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(v),
        "normalizer": normalizer,
        "pre_tokenizer": null,
        "post_processor": post_processor(v, add_bos, add_eos),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.map(|id| &v.tokens[id as usize]),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab(v),
            "merges": merges,
        },
    });
    Ok(Built { json, add_bos, add_eos })
}

/// A score-based vocabulary joins the two neighbours whose union has the best score. As a list of merges: every cut of
/// every piece into two pieces, best piece first.
fn merges_by_score(v: &Vocabulary) -> Result<Vec<(String, String)>> {
    let key = "tokenizer.ggml.scores";
    let scores = v.scores.as_ref().ok_or_else(|| {
        key_error(key, "is missing, and a SentencePiece vocabulary without merges needs it")
    })?;
    let ids: HashMap<&str, usize> = v.tokens.iter().enumerate().map(|(id, t)| (t.as_str(), id)).collect();
    let mut found: Vec<(usize, usize, usize)> = Vec::new();
    for (id, piece) in v.tokens.iter().enumerate() {
        if !matches!(v.types[id], TokenType::Normal | TokenType::UserDefined | TokenType::Unused) {
            continue;
        }
        if piece.len() > MAX_PIECE_BYTES {
            return Err(key_error(
                "tokenizer.ggml.tokens",
                format!(
                    "has at {id} a piece of {} bytes; at most {MAX_PIECE_BYTES} are read without a list of merges",
                    piece.len()
                ),
            ));
        }
        let cuts = piece.char_indices().skip(1).filter_map(|(at, _)| {
            let left = *ids.get(&piece[..at])?;
            Some((id, left, *ids.get(&piece[at..])?))
        });
        let from = found.len();
        found.extend(cuts);
        found[from..].sort_by_key(|&(_, left, right)| (left, right));
    }
    let length = |id: usize| v.tokens[id].chars().count();
    found.sort_by(|a, b| {
        let by_score = scores[b.0].total_cmp(&scores[a.0]);
        by_score.then_with(|| length(b.1).cmp(&length(a.1))).then_with(|| length(b.2).cmp(&length(a.2)))
    });
    Ok(found.into_iter().map(|(_, l, r)| (v.tokens[l].clone(), v.tokens[r].clone())).collect())
}

fn vocab(v: &Vocabulary) -> Value {
    let entries = v.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id)));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// Control tokens are special (skipped when decoding); user-defined ones are only kept whole.
fn added_tokens(v: &Vocabulary) -> Vec<Value> {
    let token = |id: usize, special: bool| {
        json!({
            "id": id, "content": v.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        })
    };
    let of_type = |(id, kind): (usize, &TokenType)| match kind {
        TokenType::Control | TokenType::Unknown => Some(token(id, true)),
        TokenType::UserDefined => Some(token(id, false)),
        _ => None,
    };
    v.types.iter().enumerate().filter_map(of_type).collect()
}

/// What encoding adds, where the token for it exists.
fn ends(v: &Vocabulary, default_bos: bool) -> (bool, bool) {
    (v.add_bos.unwrap_or(default_bos) && v.bos.is_some(), v.add_eos.unwrap_or(false) && v.eos.is_some())
}

fn post_processor(v: &Vocabulary, add_bos: bool, add_eos: bool) -> Value {
    let bos = v.bos.filter(|_| add_bos);
    let eos = v.eos.filter(|_| add_eos);
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let mut known = Map::new();
    for id in [bos, eos].into_iter().flatten() {
        let name = &v.tokens[id as usize];
        known.insert(name.clone(), json!({"id": name, "ids": [id], "tokens": [name]}));
    }
    let around = |sequence: &str, kind: u32| {
        let special = |id: u32| json!({"SpecialToken": {"id": v.tokens[id as usize], "type_id": kind}});
        let middle = json!({"Sequence": {"id": sequence, "type_id": kind}});
        let parts = bos.map(special).into_iter().chain([middle]).chain(eos.map(special));
        parts.collect::<Vec<_>>()
    };
    let single = around("A", 0);
    let pair: Vec<Value> = single.iter().cloned().chain(around("B", 1)).collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known})
}
