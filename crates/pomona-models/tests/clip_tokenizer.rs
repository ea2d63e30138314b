//! CLIP's tokenizer gives transformers' ids: with a cut vocabulary always, with its own where `POMONA_CLIP` is a directory
//! that holds CLIP's list of merges as merges.txt.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};

use pomona_models::tokenizer::Tokenizer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokenizer")
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(goldens().join(name)).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
    text: String,
}

#[test]
fn a_cut_vocabulary_gives_the_ids_of_transformers() {
    let tokenizer = Tokenizer::from_dir(goldens().join("clip_tiny")).unwrap();
    assert_eq!(tokenizer.vocab_size(), 512 + 400 + 2);
    let (lines, rows): (Vec<String>, Vec<Row>) = (read("lines.json"), read("clip_tiny/ids.json"));
    assert_eq!(rows.len(), 100);
    for (line, row) in lines.iter().step_by(10).zip(&rows) {
        assert_eq!(tokenizer.encode(line, true).unwrap(), row.ids, "{line:?}");
        assert_eq!(tokenizer.decode(&row.ids).unwrap().trim(), row.text.trim(), "{line:?}");
    }
    let special = tokenizer.special();
    assert_eq!((special.bos, special.eos.as_slice(), special.padding), (Some(912), &[913][..], Some(913)));
    assert!(special.add_bos && special.add_eos);
}

#[test]
fn clips_own_vocabulary_gives_the_ids_of_transformers_on_a_thousand_lines() {
    let Some(directory) = std::env::var_os("POMONA_CLIP") else {
        println!("skipped: POMONA_CLIP is not set");
        return;
    };
    let tokenizer = Tokenizer::from_dir(directory).unwrap();
    assert_eq!(tokenizer.vocab_size(), 49_408);
    let (lines, hashes): (Vec<String>, Vec<String>) = (read("lines.json"), read("clip.hashes.json"));
    assert_eq!((lines.len(), hashes.len()), (1000, 1000));
    for (line, hash) in lines.iter().zip(&hashes) {
        let ids = serde_json::to_string(&tokenizer.encode(line, true).unwrap()).unwrap();
        let found = ids
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
        assert_eq!(&format!("{found:016x}"), hash, "{line:?} gives {ids}");
    }
}
