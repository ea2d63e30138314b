//! Plans, score files, tokenizers, manifests and lists of components.

use serde_json::{Value, json};

use crate::bound::{Trial, cuts};
use crate::common::Folder;

/// A folder with `s.json` and `p.json` for its model.
fn planned() -> Folder {
    let folder = Folder::new();
    folder.ok(&["score", "model", "--criterion", "magnitude", "--protect", "1,1", "-o", "s.json"]);
    folder.ok(&["plan", "model", "--scores", "s.json", "--target", "blocks=2", "-o", "p.json"]);
    folder
}

/// What no JSON file of ours may be.
fn damaged(trial: &mut Trial<'_>, good: &str) {
    for (name, bytes) in [
        ("nothing", vec![]),
        ("not UTF-8", b"\xff\xfe\x00".to_vec()),
        ("zeros", vec![0; 4096]),
        ("null", b"null".to_vec()),
        ("a number", b"7".to_vec()),
        ("a list", b"[]".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("lists in lists", vec![b'['; 1 << 20]),
        ("objects in objects", b"{\"a\":".repeat(200_000)),
        ("something behind it", [good.as_bytes(), b"{}"].concat()),
        ("the same key twice", format!("{{\"version\": 1,{}", &good[1..]).into_bytes()),
    ] {
        trial.attack(name, &bytes);
    }
    for cut in cuts(good.trim_end().len(), 25) {
        trial.attack(&format!("cut to {cut}"), &good.as_bytes()[..cut]);
    }
}

/// The document with one place changed.
fn changed(document: &Value, pointer: &str, value: Value) -> Vec<u8> {
    let mut out = document.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match out.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        other => panic!("{other}"),
    }
    out.to_string().into_bytes()
}

#[test]
fn plans_that_lie() {
    let folder = planned();
    let (text, good) = (folder.read("p.json"), folder.json("p.json"));
    let mut trial = Trial::new(
        &folder,
        "p.json",
        &[&["apply", "model", "--plan", "p.json", "-o", "out"], &["inspect", "model", "--plan", "p.json"]],
    );
    damaged(&mut trial, &text);
    let keep = |indices: Value| json!([{"edit": "keep", "group": "model.layers.0.mlp.gate_proj.weight:0", "indices": indices}]);
    let many: Vec<Value> = (0..50_000).map(|_| good["edits"][0].clone()).collect();
    for (pointer, value) in [
        ("/version", json!(0)),
        ("/version", json!(u64::MAX)),
        ("/fingerprint", json!("0".repeat(64))),
        ("/fingerprint", json!("")),
        ("/before", json!(-1)),
        ("/code", json!("x")),
        ("/edits", json!("x")),
        ("/edits", json!([{"edit": "explode"}])),
        ("/edits", json!([{"edit": "bypass", "from": "model.layers.0", "to": "nowhere"}])),
        ("/edits", json!([{"edit": "bypass", "from": "", "to": ""}])),
        ("/edits", json!([{"edit": "bypass", "from": "model.layers.5", "to": "model.layers.2"}])),
        ("/edits", json!([{"edit": "drop_operand", "node": "model.norm", "index": u32::MAX}])),
        ("/edits", json!([{"edit": "drop_operand", "node": "model.layers.0.mlp.down_proj", "index": 0}])),
        ("/edits", keep(json!([]))),
        ("/edits", keep(json!([64]))),
        ("/edits", keep(json!([u32::MAX]))),
        ("/edits", keep(json!([-1]))),
        ("/edits", keep(json!([1, 1]))),
        ("/edits", keep(json!([2, 1]))),
        ("/edits", json!([{"edit": "keep", "group": "nowhere:0", "indices": [0]}])),
        ("/edits", json!([{"edit": "keep", "group": "model.norm.weight:9", "indices": [0]}])),
        ("/edits", json!([{"edit": "keep", "group": "model.norm.weight:-1", "indices": [0]}])),
        ("/edits", json!([{"edit": "annotate", "module": "model", "annotation": {"precision": "f3"}}])),
        ("/edits", json!(many)),
    ] {
        trial.attack(&format!("{pointer} = {value:.60}"), &changed(&good, pointer, value));
    }
    trial.end();
}

#[test]
fn score_files_that_lie() {
    let folder = planned();
    let (text, good) = (folder.read("s.json"), folder.json("s.json"));
    std::fs::remove_file(folder.path("p.json")).unwrap();
    let mut trial = Trial::new(
        &folder,
        "s.json",
        &[&["plan", "model", "--scores", "s.json", "--target", "blocks=1", "-o", "p.json"]],
    );
    damaged(&mut trial, &text);
    let parts = |f: fn(&mut Value)| {
        let mut out = good["parts"].clone();
        out.as_array_mut().unwrap().iter_mut().for_each(f);
        out
    };
    for (pointer, value) in [
        ("/version", json!(0)),
        ("/version", json!(u64::MAX)),
        ("/fingerprint", json!("0".repeat(64))),
        ("/complete", json!(false)),
        ("/settings/criterion", json!("beauty")),
        ("/settings/unit", json!("neuron")),
        ("/settings/protect", json!([usize::MAX, usize::MAX])),
        ("/settings/samples", json!(-1)),
        ("/code", json!("x")),
        ("/parts", json!([])),
        ("/parts", json!("x")),
        ("/parts/1/path", json!("nowhere")),
        ("/parts/1/path", json!("")),
        ("/parts/1/path", json!("model.layers.2")),
        ("/parts/1/block", json!(usize::MAX)),
        ("/parts/1/block", json!(-1)),
        ("/parts/1/score", json!("low")),
        ("/parts", parts(|p| p["path"] = json!("model.layers.1"))),
        ("/parts", parts(|p| p["block"] = json!(u64::MAX))),
        ("/parts", parts(|p| p["parameters"] = json!(u64::MAX))),
        ("/parts", parts(|p| p["score"] = Value::Null)),
        ("/rounds", json!([{"removed": "nowhere", "score": 0.0}])),
        (
            "/rounds",
            json!([{"removed": "model.layers.1", "score": 0.0}, {"removed": "model.layers.1", "score": 0.0}]),
        ),
    ] {
        trial.attack(&format!("{pointer} = {value:.60}"), &changed(&good, pointer, value));
    }
    trial.attack("NaN", text.replacen("\"score\": ", "\"score\": NaN, \"x\": ", 1).as_bytes());
    trial.attack("infinity", text.replacen("\"score\": ", "\"score\": 1e999, \"x\": ", 1).as_bytes());
    trial.end();
}

#[test]
fn tokenizers_that_lie() {
    let folder = Folder::new();
    let (text, good) = (folder.read("model/tokenizer.json"), folder.json("model/tokenizer.json"));
    let eval =
        ["eval", "model", "--task", "perplexity", "--data", "text.txt", "--windows", "1", "--tokens", "16"];
    let commands: [&[&str]; 2] = [&eval, &["export", "model", "--format", "gguf", "-o", "out"]];
    let mut trial = Trial::new(&folder, "model/tokenizer.json", &commands);
    damaged(&mut trial, &text);
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let nested = (0..200)
        .fold(json!({"type": "ByteLevel"}), |inner, _| json!({"type": "Sequence", "pretokenizers": [inner]}));
    let many: serde_json::Map<String, Value> =
        (0..300_000).map(|i| (format!("t{i}"), json!(i / 2))).collect();
    for (pointer, value) in [
        ("/model", json!(3)),
        ("/model", json!({"type": "BPE"})),
        ("/model", json!({"type": "Nothing"})),
        ("/model", json!({"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]})),
        ("/model/vocab", json!([])),
        ("/model/vocab", json!({"a": 0.5})),
        ("/model/vocab", Value::Object(many)),
        ("/model/vocab/he", json!(u32::MAX)),
        ("/model/vocab/he", json!(-1)),
        ("/model/vocab/he", json!(0)),
        ("/model/merges", json!({})),
        ("/model/merges/0", json!(["h", "nowhere"])),
        ("/model/merges/0", json!("h")),
        ("/added_tokens/0/id", json!(1_u64 << 40)),
        ("/added_tokens/0/id", json!(-1)),
        ("/added_tokens/0/content", json!("x".repeat(1 << 17))),
        ("/pre_tokenizer", split("(")),
        ("/pre_tokenizer", split(&"(".repeat(100_000))),
        ("/pre_tokenizer", split("(((((a{1000}){1000}){1000}){1000}){1000})")),
        ("/pre_tokenizer", nested),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "////"})),
        (
            "/post_processor",
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "gone", "type_id": 0}}], "pair": [], "special_tokens": {}}),
        ),
    ] {
        trial.attack(&format!("{pointer} = {value:.60}"), &changed(&good, pointer, value));
    }
    trial.end();
}

#[test]
fn manifests_that_lie() {
    let folder = planned();
    folder.ok(&["apply", "model", "--plan", "p.json", "-o", "cut"]);
    let (text, good) = (folder.read("cut/pomona.json"), folder.json("cut/pomona.json"));
    let mut trial = Trial::new(
        &folder,
        "cut/pomona.json",
        &[&["inspect", "cut"], &["export", "cut", "-o", "out", "--format", "gguf"]],
    );
    damaged(&mut trial, &text);
    let component = &good["components"][0];
    let fill = |shape: Value| json!({"do": "initialise", "distribution": {"fill": 0.0}, "seed": 0, "name": "x", "shape": shape, "dtype": "f32"});
    let expr = "/components/0/import/outputs/0/expr";
    let deep = (0..100).fold(
        json!({"do": "copy", "name": "x"}),
        |of, _| json!({"do": "transpose", "of": of, "axes": [0, 1]}),
    );
    for (pointer, value) in [
        ("/version", json!(99)),
        ("/components", json!([])),
        ("/components", json!("x")),
        ("/components", json!([component, component])),
        ("/components/0/graph/nodes", json!([])),
        ("/components/0/graph/tensors", json!([])),
        ("/components/0/graph/nodes/0/inputs/0", json!(4_000_000_000_u32)),
        ("/components/0/graph/tensors/0/shape", json!([u64::MAX, u64::MAX])),
        ("/components/0/graph/tensors/0/shape", json!([1 << 30, 32])),
        ("/components/0/import/outputs", json!([])),
        (expr, json!({"do": "copy", "name": "gone"})),
        (expr, json!({"do": "explode"})),
        (expr, fill(json!([1_000_000, 1_000_000]))),
        (expr, fill(json!([u64::MAX, 2]))),
        (expr, deep),
        ("/lineage", json!("x")),
    ] {
        trial.attack(&format!("{pointer} = {value:.60}"), &changed(&good, pointer, value));
    }
    trial.end();
}

#[test]
fn pipelines_that_lie() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("pipe")).unwrap();
    let good =
        json!({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]});
    let mut trial = Trial::new(
        &folder,
        "pipe/model_index.json",
        &[&["inspect", "pipe"], &["export", "pipe", "-o", "out"]],
    );
    damaged(&mut trial, &good.to_string());
    let many: serde_json::Map<String, Value> =
        (0..1000).map(|i| (format!("c{i}"), json!(["diffusers", "X"]))).collect();
    for (name, value) in [
        ("no folder", good),
        ("outside", json!({"_class_name": "X", "../model": ["transformers", "LlamaForCausalLM"]})),
        ("absolute", json!({"_class_name": "X", "/etc": ["transformers", "LlamaForCausalLM"]})),
        ("no name", json!({"_class_name": "X", "": ["transformers", "LlamaForCausalLM"]})),
        ("itself", json!({"_class_name": "X", ".": ["transformers", "LlamaForCausalLM"]})),
        ("many", Value::Object(many)),
    ] {
        trial.attack(name, value.to_string().as_bytes());
    }
    trial.end();
}
