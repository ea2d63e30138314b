//! metadata.jsonl of a folder with the pictures `a.png` and `b.png`.
#![no_main]

use pomona_task::CaptionSet;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for name in ["a.png", "b.png"] {
        pomona_fuzz::file(name, &[]);
    }
    let path = pomona_fuzz::file("metadata.jsonl", data);
    let folder = path.parent().expect("a file lies in a folder");
    match CaptionSet::open(folder) {
        Ok(set) => {
            assert_eq!(set.files.len(), set.captions.len());
            assert!(set.files.iter().all(|f| f.starts_with(folder) && f.is_file()));
        }
        Err(e) => assert!(e.to_string().contains(&folder.display().to_string()), "{e}"),
    }
});
