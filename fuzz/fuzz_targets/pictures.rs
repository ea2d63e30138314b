//! JPEG and PNG files.
#![no_main]

use pomona_task::images::Picture;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = pomona_fuzz::file("p.png", data);
    match Picture::read(&path) {
        Ok(picture) => assert_eq!(picture.pixels.len(), picture.width * picture.height * 3),
        Err(e) => assert!(e.to_string().contains("p.png"), "{e}"),
    }
});
