#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
//! Small vocabularies by hand, and attacks. What needs a trained model is in the crate's `tests/tokenizer.rs`.

use std::fs;
use std::time::{Duration, Instant};

use pomona_store::GgufValue;
use serde_json::{Value, json};

use super::{ChatOptions, Tokenizer, pretokenizers, render_template};

/// The byte-level spelling of a byte, as GPT-2 defines it.
fn byte_char(byte: u8) -> char {
    let shown = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if shown(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|&b| !shown(b)).count() as u32;
    char::from_u32(256 + hidden_before).unwrap()
}

type Metadata = Vec<(String, GgufValue)>;

fn strings(values: &[&str]) -> GgufValue {
    GgufValue::strings(values.iter().copied())
}

fn ints(values: impl IntoIterator<Item = i32>) -> GgufValue {
    GgufValue::Array(5, values.into_iter().map(GgufValue::I32).collect())
}

fn set(metadata: &mut Metadata, key: &str, value: GgufValue) {
    metadata.retain(|(k, _)| k != key);
    metadata.push((key.to_owned(), value));
}

/// 0 `<|end|>`, 1-256 the bytes, then `he`, `hel`, `Ġw`, `12`, and the user-defined `<tool>`.
fn tiny_bytes() -> Metadata {
    let mut tokens = vec!["<|end|>".to_owned()];
    tokens.extend((0..=255).map(|b| byte_char(b).to_string()));
    tokens.extend(["he", "hel", "Ġw", "12", "<tool>"].map(str::to_owned));
    let types = (0..tokens.len()).map(|id| [1, 3, 4][usize::from(id == 0) + 2 * usize::from(id == 261)]);
    vec![
        ("tokenizer.ggml.model".to_owned(), GgufValue::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre".to_owned(), GgufValue::String("gpt-2".to_owned())),
        ("tokenizer.ggml.token_type".to_owned(), ints(types)),
        ("tokenizer.ggml.tokens".to_owned(), GgufValue::strings(tokens)),
        ("tokenizer.ggml.merges".to_owned(), strings(&["h e", "he l", "Ġ w", "1 2"])),
        ("tokenizer.ggml.bos_token_id".to_owned(), GgufValue::U32(0)),
        ("tokenizer.ggml.eos_token_id".to_owned(), GgufValue::U32(0)),
    ]
}

/// `<unk> <s> </s>`, the 256 byte tokens, then pieces with scores.
fn tiny_pieces() -> Metadata {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|b| format!("<0x{b:02X}>")));
    let pieces = ["\u{2581}a", "ab", "\u{2581}ab", "bb", "\u{2581}", "a", "b"];
    tokens.extend(pieces.map(str::to_owned));
    let types = (0..tokens.len()).map(|id| match id {
        0 => 2,
        1 | 2 => 3,
        3..=258 => 6,
        _ => 1,
    });
    let scores = (0..tokens.len()).map(|id| GgufValue::F32(if id < 259 { 0.0 } else { 259.0 - id as f32 }));
    vec![
        ("tokenizer.ggml.model".to_owned(), GgufValue::String("llama".to_owned())),
        ("tokenizer.ggml.token_type".to_owned(), ints(types)),
        ("tokenizer.ggml.scores".to_owned(), GgufValue::Array(6, scores.collect())),
        ("tokenizer.ggml.tokens".to_owned(), GgufValue::strings(tokens)),
        ("tokenizer.ggml.bos_token_id".to_owned(), GgufValue::U32(1)),
        ("tokenizer.ggml.eos_token_id".to_owned(), GgufValue::U32(2)),
        ("tokenizer.ggml.unknown_token_id".to_owned(), GgufValue::U32(0)),
    ]
}

fn byte_id(byte: u8) -> u32 {
    u32::from(byte) + 1
}

#[test]
fn byte_level_merges_within_words() {
    let t = Tokenizer::from_gguf(&tiny_bytes()).unwrap();
    let check = |text: &str, expected: &[u32]| {
        assert_eq!(t.encode(text, true).unwrap(), expected, "{text:?}");
        assert_eq!(t.decode_with_special(expected).unwrap(), text);
    };
    check("hel", &[258]);
    check("he w", &[257, 259]);
    check("é", &[byte_id(0xc3), byte_id(0xa9)]);
    check("312", &[byte_id(b'3'), 260]);
    check("h<|end|>e", &[byte_id(b'h'), 0, byte_id(b'e')]);
    check("<tool>", &[261]);
    assert_eq!(
        t.decode(&[257, 0, 261]).unwrap(),
        "he<tool>",
        "control tokens are left out, user-defined ones are text"
    );
    assert_eq!((t.vocab_size(), t.id_to_token(259).as_deref(), t.id_to_token(262)), (262, Some("Ġw"), None));
    assert!(t.is_eos(0) && !t.is_eos(1));
}

#[test]
fn the_fixture_file_is_what_the_metadata_describes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/tokenizer/tiny/tokenizer.json");
    let file = Tokenizer::from_file(path).unwrap();
    let built = Tokenizer::from_gguf(&tiny_bytes()).unwrap();
    let definition = |t: &Tokenizer| serde_json::from_str::<Value>(t.json()).unwrap();
    assert_eq!(definition(&file), definition(&built));
    assert_eq!(file.encode("hel w12é🚀", true).unwrap(), built.encode("hel w12é🚀", true).unwrap());
}

#[test]
fn digits_stand_alone_where_the_name_says_so() {
    let mut metadata = tiny_bytes();
    set(&mut metadata, "tokenizer.ggml.pre", GgufValue::String("smollm".to_owned()));
    let t = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(t.encode("12", true).unwrap(), [byte_id(b'1'), byte_id(b'2')]);
}

#[test]
fn pieces_join_by_score_and_fall_back_to_bytes() {
    let t = Tokenizer::from_gguf(&tiny_pieces()).unwrap();
    let check = |text: &str, expected: &[u32]| {
        let ids = t.encode(text, true).unwrap();
        assert_eq!(ids[0], 1, "the beginning is added by default");
        assert_eq!(&ids[1..], expected, "{text:?}");
        assert_eq!(t.decode(&ids).unwrap(), text);
    };
    // The best joint is `▁a`; `▁` + `ab` would give `▁ab`, and `▁a` + `b` does.
    check("ab", &[261]);
    check("abb", &[261, 265]);
    check("bb", &[263, 262]);
    check("a\u{e9}", &[259, 3 + 0xc3, 3 + 0xa9]);
    check(" a", &[263, 259]);
    assert_eq!(t.encode("", false).unwrap(), [0_u32; 0]);
}

#[test]
fn both_kinds_survive_files_and_metadata() {
    for metadata in [tiny_bytes(), tiny_pieces()] {
        let t = Tokenizer::from_gguf(&metadata).unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (name, contents) in t.hf_files().unwrap() {
            fs::write(directory.path().join(name), contents).unwrap();
        }
        fs::write(directory.path().join("generation_config.json"), "{\"eos_token_id\": [5, 6, 999999]}")
            .unwrap();
        let read = Tokenizer::from_dir(directory.path()).unwrap();
        assert_eq!(read.special().eos, [t.special().eos[0], 5, 6]);
        assert_eq!(read.special().add_bos, t.special().add_bos);
        let back = Tokenizer::from_gguf(&read.gguf_metadata(300).unwrap()).unwrap();
        assert_eq!((back.vocab_size(), back.id_to_token(299).as_deref()), (300, Some("[PAD299]")));
        for text in ["hel w12", "abb bb a", "é🚀\n", "<s><|end|>", " a  b", ""] {
            let ids = t.encode(text, true).unwrap();
            assert_eq!(read.encode(text, true).unwrap(), ids, "{text:?}");
            assert_eq!(back.encode(text, true).unwrap(), ids, "{text:?}");
        }
        let error = read.gguf_metadata(200).unwrap_err().to_string();
        assert!(error.contains("the embedding has 200 rows"), "{error}");
    }
}

#[test]
fn streaming_keeps_unfinished_characters_back() {
    for metadata in [tiny_bytes(), tiny_pieces()] {
        let t = Tokenizer::from_gguf(&metadata).unwrap();
        let text = "ab 🚀é hel ".repeat(12);
        let ids = t.encode(&text, true).unwrap();
        let mut stream = t.stream();
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert!(pieces.iter().all(|p| !p.contains('\u{fffd}')), "{pieces:?}");
        assert_eq!(pieces.concat() + &stream.finish().unwrap(), text);
    }
    let t = Tokenizer::from_gguf(&tiny_bytes()).unwrap();
    let mut stream = t.stream();
    assert_eq!(stream.push(byte_id(0xf0)).unwrap(), "");
    assert_eq!(stream.push(byte_id(b'x')).unwrap(), "\u{fffd}x");
    assert_eq!(stream.push(byte_id(0xc3)).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

#[test]
fn every_pre_tokenizer_can_be_built_and_is_recognised() {
    for p in pretokenizers::ALL {
        let json = pretokenizers::to_json(p.steps);
        let steps = pretokenizers::from_json(&json).unwrap();
        assert_eq!(steps, p.steps, "{}", p.names[0]);
        let found = pretokenizers::by_steps(&steps, p.ignore_merges).unwrap();
        assert_eq!((found.steps, found.ignore_merges), (p.steps, p.ignore_merges));
        for name in p.names {
            let mut metadata = tiny_bytes();
            set(&mut metadata, "tokenizer.ggml.pre", GgufValue::String((*name).to_owned()));
            let t = Tokenizer::from_gguf(&metadata).unwrap();
            let text = "Hello, wOrld's 12345 名前。\n\n  x";
            assert_eq!(t.decode(&t.encode(text, false).unwrap()).unwrap(), text, "{name}");
        }
    }
}

#[test]
fn bad_metadata_is_refused_with_its_key() {
    let check = |edit: &dyn Fn(&mut Metadata), expected: &str| {
        let mut metadata = tiny_bytes();
        edit(&mut metadata);
        let error = Tokenizer::from_gguf(&metadata).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let text = |s: &str| GgufValue::String(s.to_owned());
    check(&Vec::clear, "`tokenizer.ggml.model` is missing");
    check(&|m| set(m, "tokenizer.ggml.model", text("bert")), "tokenizer model `bert`");
    check(&|m| set(m, "tokenizer.ggml.pre", text("of-tomorrow")), "pre-tokenizer `of-tomorrow`");
    check(&|m| m.retain(|(k, _)| k != "tokenizer.ggml.merges"), "`tokenizer.ggml.merges` is missing");
    check(&|m| set(m, "tokenizer.ggml.merges", strings(&["he"])), "has at 0 something");
    check(&|m| set(m, "tokenizer.ggml.merges", strings(&["q zz"])), "not a tokenizer that can be run");
    check(&|m| set(m, "tokenizer.ggml.tokens", strings(&["a", "b", "a"])), "has `a` at 0 and again at 2");
    check(&|m| set(m, "tokenizer.ggml.tokens", strings(&[])), "has 0 tokens");
    check(&|m| set(m, "tokenizer.ggml.token_type", ints([1])), "has 1 entries for 262 tokens");
    check(&|m| set(m, "tokenizer.ggml.add_bos_token", text("yes")), "is not a truth value");
    let mut metadata = tiny_pieces();
    metadata.retain(|(k, _)| k != "tokenizer.ggml.scores");
    assert!(Tokenizer::from_gguf(&metadata).unwrap_err().to_string().contains("tokenizer.ggml.scores"));
    // Ids outside the vocabulary are passed over, as llama.cpp does.
    let mut metadata = tiny_bytes();
    set(&mut metadata, "tokenizer.ggml.bos_token_id", GgufValue::U32(u32::MAX));
    assert_eq!(Tokenizer::from_gguf(&metadata).unwrap().bos(), None);
}

#[test]
fn hostile_files_are_errors_that_name_the_file() {
    let base: Value = serde_json::from_str(Tokenizer::from_gguf(&tiny_bytes()).unwrap().json()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    let check = |contents: &[u8]| {
        fs::write(&path, contents).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    };
    let with = |pointer: &str, value: Value| {
        let mut json = base.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        json.to_string().into_bytes()
    };
    check(b"");
    check(b"{\"model\": 3}");
    check(b"\xff\xfe");
    check("[".repeat(100_000).as_bytes());
    check(&with("/model", json!({"type": "BPE"})));
    check(&with("/model", json!({"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]})));
    check(&with("/model/vocab/he", json!(u32::MAX)));
    check(&with("/model/vocab/he", json!(-1)));
    check(&with("/model/vocab/he", json!(0)));
    check(&with("/model/merges/0", json!(["h", "nowhere"])));
    check(&with("/model/merges/0", json!(["h"])));
    check(&with("/added_tokens/0/id", json!(1_u64 << 40)));
    check(&with("/added_tokens/0/content", json!("x".repeat(1 << 17))));
    check(&with(
        "/pre_tokenizer",
        json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
    ));
    check(&with("/pre_tokenizer", json!({"type": "Nothing"})));
    check(&with("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "////"})));
    let whole = base.to_string();
    for end in (0..whole.len()).step_by(97).filter(|&end| whole.is_char_boundary(end)) {
        check(&whole.as_bytes()[..end]);
    }
    let missing = Tokenizer::from_dir(directory.path().join("nowhere")).unwrap_err().to_string();
    assert!(missing.contains("nowhere"), "{missing}");
}

#[test]
fn an_expression_that_backtracks_for_ever_does_not_hang() {
    let mut json: Value = serde_json::from_str(Tokenizer::from_gguf(&tiny_bytes()).unwrap().json()).unwrap();
    json["pre_tokenizer"]["pretokenizers"] = json!([]);
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(?=(a+)+$)(a|aa)+\\1$"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    let t = Tokenizer::from_file(&path).unwrap();
    let start = Instant::now();
    let text = "a".repeat(64) + "!";
    assert_eq!(t.decode(&t.encode(&text, false).unwrap()).unwrap(), text);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn kinds_that_gguf_does_not_have_are_refused_by_name() {
    let base: Value = serde_json::from_str(Tokenizer::from_gguf(&tiny_bytes()).unwrap().json()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    let check = |edit: &dyn Fn(&mut Value), expected: &str| {
        let mut json = base.clone();
        edit(&mut json);
        fs::write(&path, json.to_string()).unwrap();
        let error = Tokenizer::from_file(&path).unwrap().gguf_metadata(300).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("export this model"), "{error}");
    };
    check(
        &|j| j["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["b", -1.0]]}),
        "model Unigram",
    );
    check(
        &|j| j["model"] = json!({"type": "WordLevel", "unk_token": "a", "vocab": {"a": 1}}),
        "model WordLevel",
    );
    check(&|j| j["normalizer"] = json!({"type": "Lowercase"}), "normalizer \"Lowercase\"");
    check(&|j| j["pre_tokenizer"] = json!({"type": "Whitespace"}), "pre-tokenizer Whitespace");
    check(&|j| j["model"]["ignore_merges"] = json!(true), "ignore_merges true");
    check(&|j| j["model"]["byte_fallback"] = json!(true), "SentencePiece BPE with pre-tokenizer");
}

#[test]
fn hostile_templates_end() {
    let messages = json!([{"role": "user", "content": "x"}]);
    let check = |template: &str, expected: &str| {
        let start = Instant::now();
        let error = render_template(template, &messages, &ChatOptions::default()).unwrap_err().to_string();
        assert!(error.contains("chat template") && error.contains(expected), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{template}");
    };
    check("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}", "does not end");
    check(
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "does not end",
    );
    check("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "");
    check("{% for m in messages %}", "");
    check("{{ messages[0].content.nothing.more }}", "undefined");
    check("{% include '/etc/passwd' %}", "");
    check("{{ raise_exception('not these') }}", "not these");
    check(&"{{ (".repeat(10_000), "");
    check(&"x".repeat((1 << 20) + 1), "at most");
    check("{{ 'a' * 100000000000 }}", "");
    check("{% set x = [] %}{{ ('x' * 90000000) | length }}", "does not end");
}
