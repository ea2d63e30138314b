//! Shapes from configs and files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use pomona_models::{SourceKind, open};
use serde_json::{Value, json};
use tempfile::TempDir;

fn config(value: &Value) -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, value.to_string()).unwrap();
    (dir, path)
}

fn llama(width: usize, ff: usize, layers: usize, heads: usize, kv: usize, vocab: usize) -> Value {
    json!({
        "model_type": "llama", "hidden_size": width, "intermediate_size": ff, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "torch_dtype": "float16", "tie_word_embeddings": false,
    })
}

#[test]
fn parameter_counts_of_published_shapes() {
    let table = [
        (llama(4096, 11008, 32, 32, 32, 32000), 6_738_415_616_u64),
        (llama(4096, 11008, 26, 32, 32, 32000), 5_524_115_456),
        (llama(5120, 13824, 40, 40, 40, 32000), 13_015_864_320),
        (llama(4096, 14336, 32, 32, 8, 128256), 8_030_261_248),
    ];
    for (value, wanted) in table {
        let (_dir, path) = config(&value);
        let start = std::time::Instant::now();
        let model = open(&path).unwrap();
        assert_eq!(model.graph().unwrap().parameters(), wanted);
        assert!(start.elapsed().as_secs_f64() < 0.2, "{:?}", start.elapsed());
        assert_eq!(model.source, SourceKind::Config);
        assert_eq!(model.graph().unwrap().tensors[0].dtype, "f16");
    }
}

#[test]
fn real_gguf_opens_and_materialises() {
    let Ok(path) = std::env::var("POMONA_SMOLLM2") else {
        println!("skipped: POMONA_SMOLLM2 names no .gguf");
        return;
    };
    let model = open(&path).unwrap();
    let graph = model.graph().unwrap();
    assert_eq!(graph.parameters(), 134_515_008);
    assert_eq!(model.source, SourceKind::Gguf);
    let name = "model.layers.3.self_attn.q_proj.weight";
    let q = model.materialise(name).unwrap();
    assert_eq!(q.len(), 576 * 576);
    assert!(q.iter().all(|v| v.is_finite() && v.abs() < 20.0));
    let rows = model.materialise_rows(name, 70..75).unwrap();
    assert_eq!(rows, q[70 * 576..75 * 576]);
    // Row 1 of head 0 is the file's row 2: pairs lie side by side there.
    let file = model.checkpoint().unwrap();
    let info = file.info("blk.3.attn_q.weight").unwrap();
    assert_eq!(q[576..2 * 576], file.decode_rows(info, 2..3).unwrap());
}

#[cfg(unix)]
#[test]
fn a_hub_snapshot_of_links_opens() {
    let dir = TempDir::new().unwrap();
    let source =
        common::checkpoint(dir.path(), &common::config("llama"), pomona_store::Encoding::F32, 100_000);
    let (blobs, snapshot) = (dir.path().join("blobs"), dir.path().join("snapshots/abc"));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    for (i, entry) in std::fs::read_dir(&source).unwrap().enumerate() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), blobs.join(i.to_string())).unwrap();
        let link = std::path::Path::new("../../blobs").join(i.to_string());
        std::os::unix::fs::symlink(link, snapshot.join(entry.file_name())).unwrap();
    }
    let model = open(&snapshot).unwrap();
    assert!(model.checkpoint().unwrap().files().count() > 2);
    let name = "model.layers.2.mlp.down_proj.weight";
    assert!(model.materialise(name).unwrap().iter().any(|v| *v != 0.0));
    let (graph, recipe) = common::without(&model, &[0]);
    let out = pomona_models::save(
        &model,
        &graph,
        &recipe,
        &pomona_models::SaveOptions::default(),
        dir.path().join("out"),
        &mut |_, _| {},
    )
    .unwrap();
    assert!(out.path.join("config.json").is_file());
}

#[test]
fn fingerprints_tell_models_apart() {
    let dir = TempDir::new().unwrap();
    let c = common::config("llama");
    let source = common::checkpoint(dir.path(), &c, pomona_store::Encoding::F32, u64::MAX);
    let (model, bare) = (open(&source).unwrap(), open(source.join("config.json")).unwrap());
    let (full, shapes) = (model.fingerprint().unwrap(), bare.fingerprint().unwrap());
    assert!(full.starts_with("blake3:") && shapes.starts_with("shapes:"));
    assert!(model.matches(&full).unwrap() && model.matches(&shapes).unwrap());
    assert!(bare.matches(&shapes).unwrap() && !bare.matches(&full).unwrap());
    let mut other = c.clone();
    other["rope_theta"] = json!(20000.0);
    let (_dir, path) = config(&other);
    assert!(!model.matches(&open(path).unwrap().fingerprint().unwrap()).unwrap());
    other["rope_theta"] = c["rope_theta"].clone();
    other["transformers_version"] = json!("9");
    let (_dir, path) = config(&other);
    assert!(model.matches(&open(path).unwrap().fingerprint().unwrap()).unwrap());
    let elsewhere = dir.path().join("other");
    std::fs::create_dir(&elsewhere).unwrap();
    let seeded =
        pomona_models::InitOptions { seed: 8, dtype: pomona_store::Encoding::F32, ..Default::default() };
    let other = pomona_models::init(&source, &seeded, elsewhere.join("m"), &mut |_, _| {}).unwrap();
    assert!(!open(&other).unwrap().matches(&full).unwrap());
    assert!(open(&other).unwrap().matches(&shapes).unwrap());
    let same =
        pomona_models::InitOptions { seed: 7, dtype: pomona_store::Encoding::F32, ..Default::default() };
    let same = pomona_models::init(&source, &same, elsewhere.join("same"), &mut |_, _| {}).unwrap();
    assert!(open(&same).unwrap().matches(&full).unwrap(), "the same seed gives the same bytes");
}

#[test]
fn wrong_configs_are_named() {
    let table: &[(&str, Value, &str)] = &[
        ("num_hidden_layers", json!(null), "is missing"),
        ("num_hidden_layers", json!("4"), "is \"4\"; a whole number from 1"),
        ("num_hidden_layers", json!(0), "is 0"),
        ("num_hidden_layers", json!(1_000_000), "at most 1024"),
        ("hidden_size", json!(-1), "is -1"),
        ("hidden_size", json!(1e300), "a whole number"),
        ("hidden_size", json!(62), "a multiple of num_attention_heads (4)"),
        ("num_key_value_heads", json!(3), "a divisor of num_attention_heads (4)"),
        ("head_dim", json!(15), "an even number"),
        ("hidden_act", json!("xielu"), "is \"xielu\"; known are silu"),
        ("torch_dtype", json!("int3"), "is \"int3\""),
        ("rms_norm_eps", json!("x"), "a number above 0"),
        ("tie_word_embeddings", json!(1), "true or false"),
        (
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4}),
            "is \"yarn\"; default, linear and llama3",
        ),
        ("rope_scaling", json!({"type": "dynamic", "factor": 4}), "is \"dynamic\""),
        ("rope_scaling", json!({"type": "linear"}), "is missing"),
        ("rope_scaling", json!(3), "an object was expected"),
        ("rope_parameters", json!({"full_attention": {"rope_theta": 1.0}}), "differs by layer type"),
        ("partial_rotary_factor", json!(0.5), "1 was expected"),
        ("model_type", json!("gpt_dunno"), "llama, mistral, mixtral"),
        ("model_type", json!(null), "is missing"),
    ];
    for (key, value, wanted) in table {
        let mut c = common::config("llama");
        c[*key] = value.clone();
        let (_dir, path) = config(&c);
        let message = open(&path).unwrap_err().to_string();
        assert!(message.contains(wanted), "{key}: {message}");
        assert!(message.contains(key) && message.contains("config.json"), "{key}: {message}");
    }
    let mut c = common::config("qwen2");
    c["layer_types"] = json!(["full_attention"]);
    let (_dir, path) = config(&c);
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("has 1 entries; one for each of 4 blocks"), "{message}");
}

#[test]
fn both_layouts_of_rotary_settings_mean_the_same() {
    let mut old = common::config("llama");
    old["rope_theta"] = json!(5e5);
    old["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let mut new = common::config("llama");
    new.as_object_mut().unwrap().remove("rope_theta");
    let mut parameters = old["rope_scaling"].clone();
    parameters["rope_theta"] = json!(5e5);
    new["rope_parameters"] = parameters;
    let graphs = [old, new].map(|c| {
        let (_dir, path) = config(&c);
        open(path).unwrap().graph().unwrap().clone()
    });
    assert_eq!(graphs[0], graphs[1]);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let dir = TempDir::new().unwrap();
    let source =
        common::checkpoint(dir.path(), &common::config("llama"), pomona_store::Encoding::F32, u64::MAX);
    for (key, value, wanted) in [
        ("intermediate_size", json!(112), "has shape [96, 64] in the file; the config asks for [112, 64]"),
        ("num_hidden_layers", json!(5), "`model.layers.4.input_layernorm.weight` is not in the checkpoint"),
    ] {
        let mut c = common::config("llama");
        c[key] = value;
        std::fs::write(source.join("config.json"), c.to_string()).unwrap();
        let message = open(&source).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
    for (name, wanted, hint) in [
        ("m.pth", "m.pth: has only a few bytes", "torch.save"),
        ("m.h5", "`.h5` files are not read", ".gguf"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, "x").unwrap();
        let message = open(&path).unwrap_err().to_string();
        assert!(message.contains(wanted) && message.contains(hint), "{message}");
    }
    let message = open(dir.path().join("nowhere")).unwrap_err().to_string();
    assert!(message.contains("does not exist"), "{message}");
}

#[test]
fn hostile_headers_are_refused_before_anything_is_built() {
    use pomona_store::GgufValue;
    let dir = TempDir::new().unwrap();
    let one = |key: &'static str, v: GgufValue| [(key, v)];
    type Case<'a> = (&'a str, Vec<(&'a str, GgufValue)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("experts", one("llama.expert_count", GgufValue::U32(8)).to_vec(), "mixtures of experts"),
        ("scaling", one("llama.rope.scaling.type", GgufValue::String("yarn".into())).to_vec(), "is \"yarn\""),
        ("key width", one("llama.attention.key_length", GgufValue::U32(48)).to_vec(), "rope.dimension_count"),
        ("eps", one("llama.rope.freq_base", GgufValue::F32(f32::NAN)).to_vec(), "a number above 0"),
        ("odd type", one("llama.context_length.x", GgufValue::U32(1)).to_vec(), ""),
    ];
    for (name, extra, wanted) in cases {
        let path = common::gguf(&dir.path().join(name), [2; 4], &extra);
        match open(&path) {
            Ok(_) => assert_eq!(wanted, "", "{name}"),
            Err(e) => assert!(!wanted.is_empty() && e.to_string().contains(wanted), "{name}: {e}"),
        }
    }
    // A depth that would fill the memory, in a file of a few kilobytes.
    let path = common::gguf(&dir.path().join("deep"), [2; 4], &[]);
    let mut bytes = std::fs::read(&path).unwrap();
    let key = b"llama.block_count";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&2_000_000_000_u32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let message = open(&path).unwrap_err().to_string();
    assert!(message.contains("llama.block_count") && message.contains("at most 1024"), "{message}");
}

#[test]
fn damaged_manifests_are_refused() {
    let dir = TempDir::new().unwrap();
    let source =
        common::checkpoint(dir.path(), &common::config("llama"), pomona_store::Encoding::F32, u64::MAX);
    let model = open(&source).unwrap();
    let (graph, recipe) = common::without(&model, &[0]);
    let options = pomona_models::SaveOptions::default();
    let out = pomona_models::save(&model, &graph, &recipe, &options, dir.path().join("out"), &mut |_, _| {})
        .unwrap();
    let path = out.path.join("pomona.json");
    let good: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let import = |m: &mut Value, expr: Value| m["components"][0]["import"]["outputs"][0]["expr"] = expr;
    type Damage<'a> = (&'a str, Box<dyn Fn(&mut Value)>);
    let cases: Vec<Damage<'_>> = vec![
        ("version 99", Box::new(|m| m["version"] = json!(99))),
        ("no component", Box::new(|m| m["components"] = json!([]))),
        ("there is no source tensor `x`", Box::new(move |m| import(m, json!({"do": "copy", "name": "x"})))),
        (
            "made from more than the files' tensors",
            Box::new(move |m| {
                import(
                    m,
                    json!({"do": "initialise", "distribution": {"fill": 0.0}, "seed": 0, "name": "x",
                           "shape": [1_000_000, 1_000_000], "dtype": "f32"}),
                );
            }),
        ),
        ("is not in the table of tensors", Box::new(|m| m["components"][0]["graph"]["tensors"] = json!([]))),
        ("is not a manifest", Box::new(|m| m["components"] = json!("x"))),
    ];
    for (wanted, damage) in cases {
        let mut manifest = good.clone();
        damage(&mut manifest);
        std::fs::write(&path, manifest.to_string()).unwrap();
        let message = open(&out.path).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted}: {message}");
    }
}
