//! tokenizer.json: what opens cuts a text and puts it together again.
#![no_main]

use pomona_models::tokenizer::Tokenizer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = pomona_fuzz::file("tokenizer.json", data);
    pomona_fuzz::caught(|| match Tokenizer::from_file(&path) {
        Ok(t) => {
            if let Ok(ids) = t.encode("He said: 12 apples\n\n are \u{e9}\u{1f34e}.", true) {
                let _ = t.decode(&ids);
            }
        }
        Err(e) => assert!(e.to_string().contains("tokenizer.json"), "{e}"),
    });
});
