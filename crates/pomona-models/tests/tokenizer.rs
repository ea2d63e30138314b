//! The tokenizer of a trained model against llama.cpp's ids, and through every file form it can be written in.
//!
//! Needs `POMONA_SMOLLM2`, the path of SmolLM2-135M-Instruct as GGUF; goldens: `goldens/tokenizer/` with its scripts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use pomona_models::tokenizer::{ChatMessage, ChatOptions, Tokenizer};
use pomona_store::{Checkpoint, GgufValue};

fn metadata() -> Option<Vec<(String, GgufValue)>> {
    let Some(path) = std::env::var_os("POMONA_SMOLLM2") else {
        println!("skipped: POMONA_SMOLLM2 is not set");
        return None;
    };
    Some(Checkpoint::open(path).unwrap().gguf_metadata().to_vec())
}

fn golden<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokenizer").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn check_all(tokenizer: &Tokenizer) {
    let lines: Vec<String> = golden("lines.json");
    let expected: Vec<Vec<u32>> = golden("smollm2.ids.json");
    assert_eq!((lines.len(), expected.len()), (1000, 1000));
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(&tokenizer.encode(line, true).unwrap(), expected, "{line:?}");
        assert_eq!(&tokenizer.decode_with_special(expected).unwrap(), line);
    }
}

#[test]
fn smollm2_gives_the_ids_of_llama_cpp_on_a_thousand_lines() {
    let Some(metadata) = metadata() else { return };
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!((tokenizer.bos(), tokenizer.special().eos.as_slice()), (Some(1), &[2, 0][..]));
    check_all(&tokenizer);
}

#[test]
fn smollm2_streams_the_text_that_decoding_gives() {
    let Some(metadata) = metadata() else { return };
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    for (line, ids) in
        golden::<Vec<String>>("lines.json").iter().zip(golden::<Vec<Vec<u32>>>("smollm2.ids.json"))
    {
        let mut stream = tokenizer.stream();
        let mut text = String::new();
        for &id in &ids {
            let piece = stream.push(id).unwrap();
            assert!(!piece.contains('\u{fffd}'), "{line:?} gave {piece:?}");
            text += &piece;
        }
        text += &stream.finish().unwrap();
        assert_eq!(text, tokenizer.decode(&ids).unwrap());
    }
}

#[test]
fn smollm2_survives_a_hugging_face_directory_and_back() {
    let Some(metadata) = metadata() else { return };
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in tokenizer.hf_files().unwrap() {
        fs::write(directory.path().join(name), contents).unwrap();
    }
    let again = Tokenizer::from_dir(directory.path()).unwrap();
    check_all(&again);
    assert_eq!(again.chat_template(), tokenizer.chat_template());
    assert_eq!((again.bos(), again.special().eos[0]), (Some(1), 2));
    assert_eq!(again.model_max_length(), Some(8192));

    let written = again.gguf_metadata(49152).unwrap();
    for (key, value) in &written {
        let before = metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v);
        match key.as_str() {
            "tokenizer.ggml.add_eos_token" => assert_eq!(value, &GgufValue::Bool(false)),
            _ => assert_eq!(Some(value), before, "{key}"),
        }
    }
    let lost: Vec<_> = metadata
        .iter()
        .filter(|(k, _)| k.starts_with("tokenizer.") && !written.iter().any(|(w, _)| w == k))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    check_all(&Tokenizer::from_gguf(&written).unwrap());
}

#[test]
fn smollm2_spells_a_chat_as_transformers_does() {
    let Some(metadata) = metadata() else { return };
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let messages = [
        ChatMessage::new("user", "2 + 2? 😀"),
        ChatMessage::new("assistant", "4"),
        ChatMessage::new("user", "  Why?\n"),
    ];
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    let expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
        <|im_start|>user\n2 + 2? 😀<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\n  Why?\n<|im_end|>\n\
        <|im_start|>assistant\n";
    assert_eq!(tokenizer.render_chat(&messages, &options).unwrap(), expected);
}
