//! Multiple-choice questions: lines or a list, in the layouts of the public sets.
#![no_main]

use pomona_task::TextRange;
use pomona_task::choice::read_questions;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = pomona_fuzz::file("q.json", data);
    match read_questions(&TextRange { path, lines: None }, None, None) {
        Ok(questions) => {
            assert!(questions.all.iter().all(|q| q.answer < q.options.len()));
            let template = questions.layout.template(None).unwrap_or("{question}");
            questions.all.iter().for_each(|q| assert_eq!(q.pairs(template).len(), q.options.len()));
        }
        Err(e) => assert!(e.to_string().contains("q.json"), "{e}"),
    }
});
