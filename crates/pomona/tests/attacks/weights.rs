//! Weights that are no numbers.

use crate::bound::Trial;
use crate::common::Folder;

/// The first weights of one tensor, in bf16.
fn damage(folder: &Folder, tensor: &str, value: u16) {
    let path = folder.path("model/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let at = 8 + len + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

const DATA: [&str; 6] = ["--data", "text.txt", "--samples", "2", "--tokens", "16"];

#[test]
fn weights_that_are_no_numbers() {
    let score = |criterion: &'static str| {
        [&["score", "model", "-o", "s.json", "--criterion", criterion][..], &DATA].concat()
    };
    let plain = |criterion: &'static str| vec!["score", "model", "-o", "s.json", "--criterion", criterion];
    let compress = [&["compress", "model", "-o", "out", "--target", "blocks=1"][..], &DATA].concat();
    let commands = [
        plain("magnitude"),
        score("taylor"),
        score("perplexity"),
        score("block-influence"),
        compress,
        [
            &["eval", "model", "--task", "perplexity", "--windows", "1"][..],
            &["--data", "text.txt", "--tokens", "16"],
        ]
        .concat(),
    ];
    let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    let tensors = [
        "model.layers.3.mlp.down_proj.weight",
        "model.layers.7.self_attn.q_proj.weight",
        "model.norm.weight",
    ];
    for (name, value) in [("NaN", 0x7fc0), ("infinity", 0x7f80), ("minus infinity", 0xff80)] {
        for tensor in tensors {
            let folder = Folder::new();
            damage(&folder, tensor, value);
            // Neither of these two reads the last norm.
            let reads = |words: &&&[&str]| {
                tensor != "model.norm.weight"
                    || !words.iter().any(|w| matches!(*w, "magnitude" | "block-influence"))
            };
            let commands: Vec<&[&str]> = commands.iter().filter(reads).copied().collect();
            let mut trial = Trial::new(&folder, "model/model.safetensors", &commands);
            trial.refused(&format!("{name} in {tensor}"));
            trial.end();
        }
    }
}
