//! The pickle machine: the input is the program inside a good archive with one storage of 24 bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pomona_fuzz::model(&pomona_fuzz::file("m.pth", &pomona_fuzz::archive(data)));
});
