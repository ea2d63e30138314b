//! The tokenizer of a trained model against llama.cpp's ids, and through every file form it can be written in.
//!
//! Needs SmolLM2-135M-Instruct as GGUF (`POMONA_SMOLLM2`, or `scripts/fetch-smollm2.sh target/models`); goldens: `goldens/tokenizer/` with its scripts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use pomona_models::tokenizer::{ChatMessage, ChatOptions, Tokenizer, render_template};
use pomona_store::{Checkpoint, GgufValue};

/// From the file that `POMONA_SMOLLM2` names, or the one that `scripts/test.sh` fetched.
fn metadata() -> Option<Vec<(String, GgufValue)>> {
    let fetched = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("POMONA_SMOLLM2").map_or_else(|| PathBuf::from(fetched), PathBuf::from);
    if !path.is_file() {
        println!("skipped: POMONA_SMOLLM2 is not set and scripts/fetch-smollm2.sh target/models has not run");
        return None;
    }
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

#[derive(serde::Deserialize)]
struct Spelled {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn smollm2_spells_control_characters_and_odd_spaces_as_the_reference_does() {
    let Some(metadata) = metadata() else { return };
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let cases: Vec<Spelled> = golden("smollm2.controls.json");
    assert_eq!(cases.len(), 240);
    for case in cases {
        // Not back to the text: the vocabulary has no token for some of the bytes.
        assert_eq!(tokenizer.encode(&case.text, false).unwrap(), case.ids, "{:?}", case.text);
    }
}

#[derive(serde::Deserialize)]
struct Conversation {
    messages: Vec<Said>,
    add_generation_prompt: bool,
    text: String,
    ids: Vec<u32>,
}

#[derive(serde::Deserialize)]
struct Said {
    role: String,
    content: String,
}

#[test]
fn smollm2_spells_whole_chats_as_the_reference_does() {
    let Some(metadata) = metadata() else { return };
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let chats: Vec<Conversation> = golden("smollm2.chats.json");
    assert_eq!(chats.len(), 6);
    for chat in chats {
        let messages: Vec<_> = chat.messages.iter().map(|m| ChatMessage::new(&m.role, &m.content)).collect();
        let options =
            ChatOptions { add_generation_prompt: chat.add_generation_prompt, ..ChatOptions::default() };
        let text = tokenizer.render_chat(&messages, &options).unwrap();
        assert_eq!(text, chat.text);
        // The template writes the special tokens itself.
        assert_eq!(tokenizer.encode(&text, false).unwrap(), chat.ids, "{text:?}");
    }
}

/// llama.cpp's `models/` folder has vocabularies of many families with texts and the ids that they must give.
#[test]
fn vocabularies_of_llama_cpp_give_their_ids() {
    let Some(folder) = std::env::var_os("POMONA_GGUF_VOCABS") else {
        println!("skipped: POMONA_GGUF_VOCABS is not set");
        return;
    };
    let mut checked = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let beside = |ending: &str| fs::read_to_string(format!("{}.{ending}", path.display())).ok();
        let (Some(texts), Some(ids)) = (beside("inp"), beside("out")) else { continue };
        let tokenizer = match Tokenizer::from_gguf(Checkpoint::open(&path).unwrap().gguf_metadata()) {
            Ok(tokenizer) => tokenizer,
            Err(e) => {
                println!("{}: {e}", path.display());
                continue;
            }
        };
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let mut different = 0;
        for (text, ids) in texts.iter().zip(ids.lines()) {
            let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let ours = tokenizer.encode(text, false).unwrap();
            if ours != ids {
                println!("{}: {text:?}\n  ours     {ours:?}\n  expected {ids:?}", path.display());
                different += 1;
            }
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        println!("{name}: {} texts, {different} different", texts.len());
        checked.push((name, different));
    }
    assert!(checked.len() >= 8, "{checked:?}");
    assert!(checked.iter().all(|(_, different)| *different == 0), "{checked:?}");
}

#[derive(serde::Deserialize)]
struct ChatCase {
    name: String,
    template: String,
    messages: serde_json::Value,
    add_generation_prompt: bool,
    variables: serde_json::Map<String, serde_json::Value>,
    rendered: Option<String>,
}

#[test]
fn chat_templates_give_the_text_of_transformers() {
    let cases: Vec<ChatCase> = golden("chat.json");
    assert_eq!(cases.len(), 48);
    for case in cases {
        let mut variables = case.variables;
        variables.insert("bos_token".to_owned(), "<s>".into());
        variables.insert("eos_token".to_owned(), "</s>".into());
        let options = ChatOptions { add_generation_prompt: case.add_generation_prompt, now: None, variables };
        match (render_template(&case.template, &case.messages, &options), case.rendered) {
            (Ok(text), Some(expected)) => assert_eq!(text, expected, "{}", case.name),
            (Err(e), None) => assert!(e.to_string().contains("roles must alternate"), "{e}"),
            (ours, expected) => panic!("{}: {ours:?}, expected {expected:?}", case.name),
        }
    }
}

#[derive(serde::Deserialize)]
struct Stock {
    ids: Vec<Vec<u32>>,
    decoded: Vec<String>,
    chat: String,
    special: Vec<u32>,
    max: u64,
}

#[test]
fn stock_transformers_reads_the_files_built_from_gguf() {
    let Some(metadata) = metadata() else { return };
    let Some(python) = std::env::var_os("POMONA_PYTHON") else {
        println!("skipped: POMONA_PYTHON (a Python with transformers) is not set");
        return;
    };
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in tokenizer.hf_files().unwrap() {
        fs::write(directory.path().join(name), contents).unwrap();
    }
    fs::write(directory.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    let goldens = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokenizer");
    let mut command = std::process::Command::new(python);
    command.arg(goldens.join("autotokenizer_ids.py")).arg(directory.path()).arg(goldens.join("lines.json"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stock: Stock = serde_json::from_slice(&output.stdout).unwrap();
    for (line, (ids, text)) in
        golden::<Vec<String>>("lines.json").iter().zip(stock.ids.iter().zip(&stock.decoded))
    {
        assert_eq!(&tokenizer.encode(line, true).unwrap(), ids, "{line:?}");
        assert_eq!(&tokenizer.decode(ids).unwrap(), text);
    }
    assert_eq!(stock.ids.len(), 1000);
    let messages = [("user", "2 + 2? 😀"), ("assistant", "4"), ("user", "  Why?\n")]
        .map(|(r, c)| ChatMessage::new(r, c));
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    assert_eq!(tokenizer.render_chat(&messages, &options).unwrap(), stock.chat);
    assert_eq!((stock.special, stock.max), (vec![1, 2, 0, 2], 8192));
}
