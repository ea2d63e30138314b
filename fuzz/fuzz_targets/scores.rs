//! Score files, for a Llama.
#![no_main]

use pomona_prune::Scores;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = pomona_fuzz::file("s.json", data);
    match Scores::read(&path) {
        Ok(scores) => {
            let _ = scores.check_parts(&path, pomona_fuzz::llama());
            let _ = scores.order(scores.settings.protect);
            assert!(scores.to_json().is_ok());
        }
        Err(e) => assert!(e.to_string().contains("s.json"), "{e}"),
    }
});
