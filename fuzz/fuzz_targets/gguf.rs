//! GGUF: header, metadata to a graph, vocabulary to a tokenizer.
#![no_main]

use pomona_models::tokenizer::Tokenizer;
use pomona_store::Checkpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = pomona_fuzz::file("m.gguf", data);
    if let Ok(file) = Checkpoint::open(&path) {
        pomona_fuzz::read_all(&file);
        pomona_fuzz::caught(|| drop(Tokenizer::from_gguf(file.gguf_metadata())));
    }
    pomona_fuzz::model(&path);
});
