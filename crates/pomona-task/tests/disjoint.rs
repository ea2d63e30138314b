//! Evaluation never reads what calibration reads: no 64-token window is shared between the halves of the text.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::HashSet;
use std::path::Path;

use pomona_models::{open, tokenizer::Tokenizer};
use pomona_task::{Result, TaskError, TextRange, even_windows, sample_windows};

const WINDOW: usize = 64;

#[test]
fn calibration_and_evaluation_share_no_window() {
    let (Some(data), Some(model)) = (std::env::var_os("POMONA_DATA"), std::env::var_os("POMONA_SMOLLM2"))
    else {
        println!("skipped: POMONA_DATA and POMONA_SMOLLM2 name the text and the tokenizer");
        return;
    };
    let path = Path::new(&data).join("text/wikitext-2/valid.txt");
    let model = open(Path::new(&model)).unwrap();
    let tokenizer = Tokenizer::from_gguf(model.checkpoint().unwrap().gguf_metadata()).unwrap();
    let encode = |text: &str| -> Result<Vec<u32>> {
        tokenizer.encode(text, true).map_err(|e| TaskError::Unfit(e.to_string()))
    };
    let half = |lines| TextRange { path: path.clone(), lines: Some(lines) };
    let calibration = sample_windows(&half((1, 1880)), 10, 128, 1234, &encode).unwrap();
    let evaluation = even_windows(&half((1881, 3760)), None, 512, &encode).unwrap();
    let seen: HashSet<&[u32]> = calibration.ids.iter().flat_map(|w| w.windows(WINDOW)).collect();
    assert!(seen.len() > 600, "the calibration has its windows");
    let shared = evaluation.ids.iter().flat_map(|w| w.windows(WINDOW)).filter(|w| seen.contains(w)).count();
    assert_eq!(shared, 0);
}
