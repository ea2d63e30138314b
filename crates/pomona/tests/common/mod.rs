//! A folder with a small model, in which the program runs.
#![allow(dead_code, clippy::unwrap_used, reason = "tests; each file uses its part")]

pub mod media;
pub mod runs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Eight blocks; as many tokens as the tiny tokenizer has.
pub fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 262,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 256, "rope_theta": 10000.0,
        "initializer_range": 0.3, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "eos_token_id": 0,
    })
}

pub struct Folder {
    dir: TempDir,
}

impl Folder {
    /// With `config.json`, `text.txt`, and `model` (weights and tokenizer).
    pub fn new() -> Folder {
        let folder = Folder::bare();
        folder.ok(&["-q", "init", "config.json", "--seed", "5", "-o", "model"]);
        let goldens = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../pomona-models/tests/goldens/tokenizer/tiny/tokenizer.json"
        );
        std::fs::copy(goldens, folder.path("model/tokenizer.json")).unwrap();
        let template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
        let settings = json!({"eos_token": "<|end|>", "chat_template": template, "tokenizer_class": "PreTrainedTokenizerFast"});
        folder.write("model/tokenizer_config.json", &settings.to_string());
        folder
    }

    /// With `config.json` and `text.txt` only.
    pub fn bare() -> Folder {
        let folder = Folder { dir: TempDir::new().unwrap() };
        folder.write("config.json", &config().to_string());
        let line = |i: usize| {
            format!("line {i}: {}\n", "the shears and the ladder hang behind the door ".repeat(3 + i % 3))
        };
        folder.write("text.txt", &(0..40).map(line).collect::<String>());
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pomona"));
        command.args(words).current_dir(self.dir.path()).env("XDG_CACHE_HOME", self.path("cache"));
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env("COLUMNS", "100");
        // What runs beside each other, and so the memory that is stated, goes by the threads.
        command.env("RAYON_NUM_THREADS", "2");
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs what must succeed; its stdout.
    pub fn ok(&self, words: &[&str]) -> String {
        let done = self.run(words);
        let errors = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(0), "{words:?}: {errors}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// The one document of a run with `--json`.
    pub fn document(&self, words: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(words);
        let here = self.dir.path().canonicalize().unwrap().display().to_string();
        let out = self.ok(&all).replace(&here, "DIR");
        serde_json::from_str(&out).unwrap_or_else(|e| unreachable!("{words:?}: {e}: {out}"))
    }

    /// Command, exit code, stdout and stderr.
    pub fn transcript(&self, words: &[&str]) -> String {
        let done = self.run(words);
        let mut out = format!("$ pomona {}\n", words.join(" "));
        let here = self.dir.path().canonicalize().unwrap().display().to_string();
        for (name, bytes) in [("stdout", &done.stdout), ("stderr", &done.stderr)] {
            let text = String::from_utf8(bytes.clone()).unwrap();
            if !text.is_empty() {
                out += &format!("--- {name}\n{}\n", text.trim_end().replace(&here, "DIR"));
            }
        }
        out + &format!("--- exit {}\n", done.status.code().unwrap())
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = entries(self.dir.path());
        names.sort();
        names
    }
}

fn entries(path: &Path) -> Vec<String> {
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().into_owned();
    std::fs::read_dir(path).unwrap().map(name).collect()
}

/// What differs from run to run and from machine to machine: times, rates, free memory, versions, the last digits of sums.
pub fn filters() -> Vec<(&'static str, &'static str)> {
    vec![
        (r"\d+(\.\d+)? tokens/s(\)| \()", "[RATE] tokens/s$2"),
        (r#""(seconds|tokens_per_second|prompt_tokens_per_second)": [\d.e+-]+"#, r#""$1": "[TIME]""#),
        (r"known are [^\n;]*", "known are [NAMES]"),
        (r"scored in [\d.]+ \w+", "scored in [TIME]"),
        (r"\), [\d.]+ s\n", "), [TIME]\n"),
        (r"pomona 0\.\d+\.\d+", "pomona [VERSION]"),
        (r#""(fingerprint|data_fingerprint)": "[0-9a-f]{64}""#, r#""$1": "[HASH]""#),
        // Of an f32 sum about six digits are the same under every width of vectors: large numbers lose the whole fraction.
        (r"(\d{4,})\.\d+", "$1.."),
        (r"(\d+\.\d\d)\d+(e-?\d+)?", "$1..$2"),
    ]
}
