//! How byte-level BPE tokenizers cut a text into words before merging: the names that GGUF has for it, and the
//! `pre_tokenizer` definitions of tokenizer.json behind these names.
//!
//! Facts: the names and what they switch are those of llama.cpp's vocabulary loader; the definitions are those of the
//! tokenizer.json files that the names stand for, which differ from llama.cpp's own expressions only in spelling.

use serde_json::{Value, json};

use super::error::{Result, unsupported};

/// One step of cutting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Matches of the expression stand alone.
    Split(&'a str),
    /// Numbers stand alone: each digit (`true`) or each run of digits.
    Digits(bool),
    /// Runs of punctuation stand alone.
    Punctuation,
    /// Bytes become characters; with `true` after GPT-2's expression.
    Bytes(bool),
}

/// What a pre-tokenizer's name stands for.
pub(super) struct PreTokenizer {
    /// Names in `tokenizer.ggml.pre`; the first is the one that exports write.
    pub names: &'static [&'static str],
    pub steps: &'static [Step<'static>],
    /// Text is brought to Unicode's composed form first.
    pub nfc: bool,
    /// A whole word that is in the vocabulary is taken without merging.
    pub ignore_merges: bool,
    /// The beginning-of-sequence token is added unless the metadata says otherwise.
    pub add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
const BLOOM: &str = " ?[^(\\s|[.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c}])]+";

const PLAIN: PreTokenizer = PreTokenizer {
    names: &[],
    steps: &[Step::Bytes(true)],
    nfc: false,
    ignore_merges: false,
    add_bos: false,
};

/// All known pre-tokenizers. Where two have the same definition, the first is the one that an export writes.
pub(super) const ALL: &[PreTokenizer] = &[
    PreTokenizer {
        names: &[
            "gpt-2",
            "mpt",
            "olmo",
            "jais",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "a.x-4.0",
            "exaone4",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        steps: &[Step::Digits(true), Step::Bytes(true)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        steps: &[Step::Split(LLAMA3), Step::Bytes(false)],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["smaug-bpe", "dbrx", "glm4", "chatglm-bpe"],
        steps: &[Step::Split(LLAMA3), Step::Bytes(false)],
        ..PLAIN
    },
    PreTokenizer { names: &["qwen2"], steps: &[Step::Split(QWEN2), Step::Bytes(false)], nfc: true, ..PLAIN },
    PreTokenizer {
        names: &["deepseek-r1-qwen", "megrez", "stablelm2"],
        steps: &[Step::Split(QWEN2), Step::Bytes(false)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["tekken"],
        steps: &[Step::Split(TEKKEN), Step::Bytes(false)],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["gpt-4o", "llama4"], steps: &[Step::Split(GPT4O), Step::Bytes(false)], ..PLAIN },
    PreTokenizer {
        names: &["deepseek-coder"],
        steps: &[
            Step::Split("[\r\n]"),
            Step::Split(r"\s?\p{L}+"),
            Step::Split(r"\s?\p{P}+"),
            Step::Split("[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+"),
            Step::Digits(true),
            Step::Bytes(false),
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-v3"],
        steps: &[
            Step::Split(r"\p{N}{1,3}"),
            Step::Split("[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+"),
            Step::Split(DEEPSEEK3),
            Step::Bytes(false),
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["falcon"],
        steps: &[Step::Punctuation, Step::Bytes(true), Step::Digits(false), Step::Split("[0-9][0-9][0-9]")],
        ..PLAIN
    },
    PreTokenizer {
        names: &["bloom", "poro-chat", "gpt3-finnish"],
        steps: &[Step::Split(BLOOM), Step::Bytes(false)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["viking"],
        steps: &[Step::Split(BLOOM), Step::Digits(true), Step::Bytes(false)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["default"],
        steps: &[
            Step::Split(r"[\p{P}\$\+<=>\^~\|]+"),
            Step::Split(GPT2),
            Step::Split(r"\p{N}+"),
            Step::Split("[0-9][0-9][0-9]"),
            Step::Bytes(false),
        ],
        ..PLAIN
    },
];

/// The pre-tokenizer that `tokenizer.ggml.pre` names.
pub(super) fn by_name(name: &str) -> Result<&'static PreTokenizer> {
    ALL.iter().find(|p| p.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().flat_map(|p| p.names.iter().copied()).collect();
        unsupported(
            "GGUF metadata",
            format!("pre-tokenizer `{name}` (tokenizer.ggml.pre)"),
            format!("known are {}; open the Hugging Face directory of the model instead", known.join(", ")),
        )
    })
}

/// The pre-tokenizer whose definition these steps are. Differences in `nfc` do not count: llama.cpp never normalises.
pub(super) fn by_steps(steps: &[Step<'_>], ignore_merges: bool) -> Option<&'static PreTokenizer> {
    let same = |p: &&PreTokenizer| p.steps == steps;
    ALL.iter().filter(same).find(|p| p.ignore_merges == ignore_merges)
}

/// `pre_tokenizer` of tokenizer.json.
pub(super) fn to_json(steps: &[Step<'_>]) -> Value {
    let one = |step: &Step<'_>| match step {
        Step::Split(regex) => {
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
        }
        Step::Digits(individual) => json!({"type": "Digits", "individual_digits": individual}),
        Step::Punctuation => json!({"type": "Punctuation", "behavior": "Contiguous"}),
        Step::Bytes(regex) => {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex})
        }
    };
    match steps {
        [step] => one(step),
        _ => json!({"type": "Sequence", "pretokenizers": steps.iter().map(one).collect::<Vec<_>>()}),
    }
}

/// Steps of a `pre_tokenizer` of tokenizer.json; the error is the name of the part that has no counterpart.
pub(super) fn from_json(definition: &Value) -> std::result::Result<Vec<Step<'_>>, String> {
    let kind = definition["type"].as_str().unwrap_or("none");
    let flag = |name: &str, default: bool| definition[name].as_bool().unwrap_or(default);
    match kind {
        "Sequence" => {
            let mut steps = Vec::new();
            for part in definition["pretokenizers"].as_array().into_iter().flatten() {
                steps.extend(from_json(part)?);
            }
            Ok(steps)
        }
        "ByteLevel" if flag("add_prefix_space", true) => Err("ByteLevel with add_prefix_space".to_owned()),
        "ByteLevel" => Ok(vec![Step::Bytes(flag("use_regex", true))]),
        "Digits" => Ok(vec![Step::Digits(flag("individual_digits", false))]),
        "Punctuation" if definition["behavior"] == "Contiguous" => Ok(vec![Step::Punctuation]),
        "Split" => {
            let isolated = definition["behavior"] == "Isolated" && !flag("invert", false);
            // Keeping the matches and dropping the rest is the same where the expression leaves no rest, as all do
            // that are written in this way.
            let kept = definition["behavior"] == "Removed" && flag("invert", false);
            match definition["pattern"]["Regex"].as_str() {
                Some(regex) if isolated || kept => Ok(vec![Step::Split(regex)]),
                _ => Err(format!(
                    "Split with pattern {} and behavior {}",
                    definition["pattern"], definition["behavior"]
                )),
            }
        }
        other => Err(other.to_owned()),
    }
}
