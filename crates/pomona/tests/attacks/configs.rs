//! Configs: of Llama key by key, and every number of every known config in turn.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bound::Trial;
use crate::common::{Folder, config};

#[test]
fn configs_that_ask_for_the_impossible() {
    let folder = Folder::new();
    let mut trial = Trial::new(
        &folder,
        "model/config.json",
        &[&["inspect", "model"], &["init", "model/config.json", "--seed", "1", "-o", "out"]],
    );
    let big = 1_000_000_000_u64;
    for (key, values) in [
        (
            "num_hidden_layers",
            vec![
                json!(0),
                json!(-1),
                json!(1.5),
                json!("8"),
                json!(big),
                json!(u64::MAX),
                json!(1e300),
                json!([8]),
            ],
        ),
        ("num_attention_heads", vec![json!(0), json!(3), json!(-4), json!(big), json!(null)]),
        ("num_key_value_heads", vec![json!(0), json!(3), json!(8), json!(big)]),
        ("hidden_size", vec![json!(0), json!(33), json!(big), json!(u64::MAX), json!(4)]),
        ("head_dim", vec![json!(0), json!(7)]),
        ("intermediate_size", vec![json!(0), json!(null)]),
        ("vocab_size", vec![json!(0), json!(u64::MAX), json!(-262)]),
        ("rms_norm_eps", vec![json!(0), json!(-1e-5), json!("small")]),
        ("rope_theta", vec![json!(0), json!(-1), json!("x")]),
        (
            "rope_scaling",
            vec![json!({"type": "nothing"}), json!({"rope_type": "linear", "factor": 0}), json!("x")],
        ),
        ("hidden_act", vec![json!("explode"), json!(3)]),
        ("torch_dtype", vec![json!("int3"), json!(3)]),
        ("tie_word_embeddings", vec![json!("yes")]),
    ] {
        for value in values {
            let mut c = config();
            c[key] = value.clone();
            trial.attack(&format!("{key} = {value}"), c.to_string().as_bytes());
        }
    }
    for (name, text) in [
        ("nothing", String::new()),
        ("half", "{\"model_type\":".to_owned()),
        ("a list", "[]".to_owned()),
        ("no type", "{}".to_owned()),
        ("lists in lists", "[".repeat(1 << 20)),
        ("deep value", format!("{{\"model_type\": \"llama\", \"hidden_size\": {}", "[".repeat(1 << 20))),
        ("too long", format!("{{\"model_type\": \"llama\", \"x\": [{}0]}}", "0,".repeat(20 << 20))),
    ] {
        trial.attack(name, text.as_bytes());
    }
    trial.end();
}

/// Every config of the goldens.
fn goldens() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = [
        "pomona-models/tests/goldens",
        "pomona-task/tests/diffusers",
        "pomona-task/tests/vision",
        "pomona-task/tests/gan",
    ];
    let inside = |folder: &str| {
        std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|e| e.unwrap().path().join("config.json"))
            .collect::<Vec<_>>()
    };
    let mut all: Vec<PathBuf> = folders.iter().flat_map(|f| inside(f)).filter(|p| p.is_file()).collect();
    all.sort();
    all
}

/// Pointers to every number, and to every list of numbers.
fn numbers(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Number(_) => out.push(at.to_owned()),
        Value::Object(map) => map.iter().for_each(|(k, v)| numbers(v, &format!("{at}/{k}"), out)),
        Value::Array(list) if list.iter().any(Value::is_number) => {
            out.push(at.to_owned());
            out.push(format!("{at}/0"));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| numbers(v, &format!("{at}/{i}"), out))
        }
        _ => {}
    }
}

/// What a number may stand for is known to the families alone: the change is taken or refused, and either way within the bound.
#[test]
fn every_number_of_every_config() {
    let folder = Folder::bare();
    let mut trial = Trial::new(&folder, "c.json", &[&["inspect", "c.json"]]);
    let mut configs = 0;
    for path in goldens() {
        let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        configs += 1;
        let mut places = Vec::new();
        numbers(&good, "", &mut places);
        for place in places {
            for value in [
                json!(0),
                json!(3),
                json!(1_000_000_000),
                json!(u64::MAX),
                json!([]),
                json!([1_000_000_000, 1_000_000_000]),
            ] {
                let mut c = good.clone();
                *c.pointer_mut(&place).unwrap() = value.clone();
                let name =
                    format!("{} {place} = {value}", path.parent().unwrap().file_name().unwrap().display());
                trial.harmless(&name, c.to_string().as_bytes());
            }
        }
    }
    assert!(configs > 50, "{configs}");
    trial.end();
}
