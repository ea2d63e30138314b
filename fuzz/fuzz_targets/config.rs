//! A config.json to a graph.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pomona_fuzz::model(&pomona_fuzz::file("c.json", data));
});
