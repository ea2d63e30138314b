//! Windows of token ids that were made elsewhere.
#![no_main]

use pomona_task::{holds_windows, token_windows};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = pomona_fuzz::file("t.json", data);
    let _ = holds_windows(&path);
    match token_windows(&path, "calibration", 100) {
        Ok(windows) => assert!(windows.ids.iter().flatten().all(|id| *id < 100)),
        Err(e) => assert!(e.to_string().contains("t.json"), "{e}"),
    }
});
