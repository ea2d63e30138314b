//! safetensors: header and data.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pomona_fuzz::checkpoint(&pomona_fuzz::file("m.safetensors", data));
});
