//! WAV and FLAC files.
#![no_main]

use pomona_task::Sound;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = pomona_fuzz::file("s.wav", data);
    match Sound::read(&path) {
        Ok(sound) => assert!(sound.rate > 0 && sound.values.iter().all(|v| v.is_finite())),
        Err(e) => assert!(e.to_string().contains("s.wav"), "{e}"),
    }
});
