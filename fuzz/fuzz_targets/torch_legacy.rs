//! PyTorch's rows of pickles.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pomona_fuzz::model(&pomona_fuzz::file("m.pth", data));
});
