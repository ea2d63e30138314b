//! What goes out: bytes, names, configs and metadata of pruned models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{DEPTH, as_stock, bytes, checkpoint, config, gguf, gguf_with_divisors, whole, without};
use pomona_graph::{Edit, Graph, Op, RopeScaling, ValueRef, apply};
use pomona_models::{
    ModelError, OutputFormat, SaveOptions, SourceKind, check_format, open, representable, save, verify_output,
};
use pomona_store::{Checkpoint, Encoding, GgufValue};
use serde_json::json;
use tempfile::TempDir;

fn options(format: OutputFormat) -> SaveOptions {
    SaveOptions { format, ..SaveOptions::default() }
}

fn quiet(_: u64, _: u64) {}

/// Old block numbers that are left, in order.
fn left(gone: &[usize]) -> Vec<usize> {
    (0..DEPTH).filter(|i| !gone.contains(i)).collect()
}

#[test]
fn a_pruned_directory_has_the_sources_bytes_under_new_numbers() {
    for family in ["llama", "qwen2", "mistral"] {
        for (gone, shard) in [(vec![1, 2], u64::MAX), (vec![0], 100_000), (vec![], u64::MAX)] {
            let dir = TempDir::new().unwrap();
            let source = checkpoint(dir.path(), &config(family), Encoding::Bf16, shard);
            std::fs::write(source.join("LICENSE"), "terms").unwrap();
            let model = open(&source).unwrap();
            let (graph, recipe) = without(&model, &gone);
            let report = save(
                &model,
                &graph,
                &recipe,
                &options(OutputFormat::Auto),
                dir.path().join("out"),
                &mut quiet,
            )
            .unwrap();
            assert_eq!(report.format, OutputFormat::Hf);
            let (from, to) = (Checkpoint::open(&source).unwrap(), Checkpoint::open(&report.path).unwrap());
            assert_eq!(to.tensors().len(), report.tensors);
            for t in to.tensors() {
                let old = left(&gone).iter().enumerate().find_map(|(new, old)| {
                    let rest = t.name.strip_prefix(&format!("model.layers.{new}."))?;
                    Some(format!("model.layers.{old}.{rest}"))
                });
                let old = old.unwrap_or_else(|| t.name.clone());
                assert_eq!(bytes(&to, &t.name), bytes(&from, &old), "{family} {} {old}", t.name);
            }
            assert_eq!(std::fs::read_to_string(report.path.join("LICENSE")).unwrap(), "terms");
            let again = open(&report.path).unwrap();
            assert_eq!(again.source, SourceKind::Pomona);
            assert_eq!(again.graph().unwrap(), &graph, "the output keeps the old paths");
            for t in &graph.tensors {
                assert_eq!(again.materialise(&t.name).unwrap(), model.materialise(&t.name).unwrap());
            }
            let stock = as_stock(&report.path);
            assert_eq!(stock.source, SourceKind::HuggingFace);
            assert_eq!(stock.graph().unwrap().parameters(), graph.parameters());
            assert_eq!(stock.config["num_hidden_layers"], DEPTH - gone.len());
            assert_eq!(stock.config["eos_token_id"], json!([2, 3, 4, 5]), "no list by block");
            assert!(stock.only().unwrap().unused.is_empty());
        }
    }
}

#[test]
fn lists_by_block_are_cut_with_the_blocks() {
    let dir = TempDir::new().unwrap();
    let source = checkpoint(dir.path(), &config("qwen2"), Encoding::F32, u64::MAX);
    let model = open(&source).unwrap();
    let (graph, recipe) = without(&model, &[1, 2]);
    let out = save(&model, &graph, &recipe, &options(OutputFormat::Hf), dir.path().join("out"), &mut quiet)
        .unwrap();
    let stock = as_stock(&out.path);
    assert_eq!(stock.config["layer_types"], json!(["full_attention", "sliding_attention"]));
    assert_eq!(stock.config["max_window_layers"], 1);
    assert_eq!(stock.config["torch_dtype"], "float32");
}

#[test]
fn a_pruned_output_is_pruned_again() {
    let dir = TempDir::new().unwrap();
    let source = checkpoint(dir.path(), &config("llama"), Encoding::F16, u64::MAX);
    let model = open(&source).unwrap();
    let (graph, recipe) = without(&model, &[1]);
    let first = save(&model, &graph, &recipe, &options(OutputFormat::Auto), dir.path().join("a"), &mut quiet)
        .unwrap();
    let again = open(&first.path).unwrap();
    let edit = Edit::Bypass {
        from: ValueRef("model.layers.0.mlp_residual".into()),
        to: ValueRef("model.layers.2.mlp_residual".into()),
    };
    let (graph, recipe) = apply(again.graph().unwrap(), &[edit]).unwrap();
    let second =
        save(&again, &graph, &recipe, &options(OutputFormat::Auto), dir.path().join("b"), &mut quiet)
            .unwrap();
    let stock = as_stock(&second.path);
    assert_eq!(stock.config["num_hidden_layers"], 2);
    let name = |i| format!("model.layers.{i}.mlp.up_proj.weight");
    assert_eq!(stock.materialise(&name(1)).unwrap(), model.materialise(&name(3)).unwrap());
}

#[test]
fn gguf_to_gguf_keeps_bytes_and_cuts_every_array_by_block() {
    let dir = TempDir::new().unwrap();
    let ints = |v: &[i32]| GgufValue::Array(5, v.iter().map(|i| GgufValue::I32(*i)).collect());
    let extra = [
        ("llama.swiglu_clamp", GgufValue::Array(6, (0..4).map(|i| GgufValue::F32(i as f32)).collect())),
        ("llama.rope.dimension_sections", ints(&[1, 2, 3])),
        ("tokenizer.ggml.suffixes", GgufValue::strings(["a", "b", "c", "d"])),
    ];
    // Blocks with different numbers of key heads: what one number for all cannot say.
    let path = gguf(&dir.path().join("in"), [2, 1, 4, 2], &extra);
    let model = open(&path).unwrap();
    assert_eq!(
        model
            .graph()
            .unwrap()
            .tensor(model.graph().unwrap().find_tensor("model.layers.2.self_attn.k_proj.weight").unwrap())
            .shape,
        [64, 64]
    );
    let (graph, recipe) = without(&model, &[1]);
    let out = save(&model, &graph, &recipe, &options(OutputFormat::Gguf), dir.path().join("out"), &mut quiet)
        .unwrap();
    let (from, to) =
        (Checkpoint::open(&path).unwrap(), Checkpoint::open(out.path.join("model.gguf")).unwrap());
    assert_eq!(to.tensors().len(), 2 + 3 * 9);
    for t in to.tensors() {
        let old = match t.name.strip_prefix("blk.").and_then(|r| r.split_once('.')) {
            Some((n, rest)) => format!("blk.{}.{rest}", left(&[1])[n.parse::<usize>().unwrap()]),
            None => t.name.clone(),
        };
        assert_eq!(t.encoding, from.info(&old).unwrap().encoding);
        assert_eq!(bytes(&to, &t.name), bytes(&from, &old), "{old}");
    }
    assert_eq!(to.gguf("llama.block_count"), Some(&GgufValue::U32(3)));
    assert_eq!(to.gguf("llama.attention.head_count_kv"), Some(&ints(&[2, 4, 2])));
    assert_eq!(to.gguf("llama.swiglu_clamp").unwrap().as_array().unwrap().len(), 3);
    assert_eq!(to.gguf("llama.rope.dimension_sections"), Some(&ints(&[1, 2, 3])), "not by block");
    assert_eq!(to.gguf("tokenizer.ggml.suffixes").unwrap().as_array().unwrap().len(), 4, "not by block");
    assert_eq!(to.gguf("general.file_type"), Some(&GgufValue::U32(3)));
    // A config cannot hold the key heads, so the default format is our own; it opens to the same numbers.
    assert_eq!(check_format(&model, &graph, OutputFormat::Auto).unwrap(), OutputFormat::Pomona);
    let own = save(&model, &graph, &recipe, &options(OutputFormat::Auto), dir.path().join("own"), &mut quiet)
        .unwrap();
    let (a, b) = (open(&own.path).unwrap(), open(&out.path).unwrap());
    for t in &graph.tensors {
        let wanted = model.materialise(&t.name).unwrap();
        assert_eq!(a.materialise(&t.name).unwrap(), wanted, "{}", t.name);
        assert_eq!(b.materialise(&t.name).unwrap(), wanted, "{}", t.name);
    }
}

#[test]
fn gguf_decodes_to_a_stock_directory_and_to_plain_gguf() {
    let dir = TempDir::new().unwrap();
    let path =
        gguf(&dir.path().join("in"), [2; DEPTH], &[("tokenizer.ggml.eos_token_id", GgufValue::U32(2))]);
    let model = open(&path).unwrap();
    let (graph, recipe) = without(&model, &[3]);
    let hf = save(&model, &graph, &recipe, &options(OutputFormat::Auto), dir.path().join("hf"), &mut quiet)
        .unwrap();
    assert_eq!(hf.format, OutputFormat::Hf);
    assert!(hf.notes[0].contains("the GGUF file has none"), "{:?}", hf.notes);
    let plain = SaveOptions { dtype: Some(Encoding::F16), ..options(OutputFormat::Gguf) };
    let plain = save(&model, &graph, &recipe, &plain, dir.path().join("plain"), &mut quiet).unwrap();
    let file = Checkpoint::open(plain.path.join("model.gguf")).unwrap();
    assert_eq!(file.gguf("general.file_type"), Some(&GgufValue::U32(1)));
    for t in file.tensors() {
        assert_eq!(t.encoding, if t.shape.len() > 1 { Encoding::F16 } else { Encoding::F32 });
    }
    let stock = as_stock(&hf.path);
    assert_eq!(stock.config["torch_dtype"], "float32");
    assert_eq!(stock.config["tie_word_embeddings"], true);
    let generation = std::fs::read_to_string(hf.path.join("generation_config.json")).unwrap();
    assert!(generation.contains("\"eos_token_id\": 2"), "{generation}");
    let plain = open(&plain.path).unwrap();
    for t in &graph.tensors {
        let wanted = model.materialise(&t.name).unwrap();
        assert_eq!(stock.materialise(&t.name).unwrap(), wanted, "{}", t.name);
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * b.abs().max(1e-4);
        assert!(plain.materialise(&t.name).unwrap().iter().zip(&wanted).all(close), "{}", t.name);
    }
}

#[test]
fn a_directory_goes_to_gguf_and_back() {
    for (family, scaling) in [
        (
            "llama",
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
        ),
        ("llama", json!({"type": "linear", "factor": 2.0})),
        ("qwen2", json!(null)),
    ] {
        let dir = TempDir::new().unwrap();
        let mut c = config(family);
        c["rope_scaling"] = scaling.clone();
        c["use_sliding_window"] = json!(false);
        c["rope_theta"] = json!(500000.0);
        let source = checkpoint(dir.path(), &c, Encoding::F32, u64::MAX);
        let model = open(&source).unwrap();
        let (graph, recipe) = whole(&model);
        let out =
            save(&model, &graph, &recipe, &options(OutputFormat::Gguf), dir.path().join("gguf"), &mut quiet)
                .unwrap();
        let back = open(out.path.join("model.gguf")).unwrap();
        assert_eq!(back.architecture, family);
        for t in &graph.tensors {
            assert_eq!(back.materialise(&t.name).unwrap(), model.materialise(&t.name).unwrap(), "{}", t.name);
        }
        if family == "llama" {
            let q = "model.layers.0.self_attn.q_proj.weight";
            let file = Checkpoint::open(out.path.join("model.gguf")).unwrap();
            assert_ne!(
                file.decode(file.info("blk.0.attn_q.weight").unwrap()).unwrap(),
                model.materialise(q).unwrap()
            );
        }
        assert_eq!(back.config["rope_theta"], 500000.0);
        let again = back.config.get("rope_scaling").cloned().unwrap_or(json!(null));
        assert_eq!(again.get("factor"), scaling.get("factor"));
        assert_eq!(again.get("low_freq_factor"), scaling.get("low_freq_factor"));
        let (graph, recipe) = whole(&back);
        let hf = save(&back, &graph, &recipe, &options(OutputFormat::Hf), dir.path().join("hf"), &mut quiet)
            .unwrap();
        let (from, to) = (Checkpoint::open(&source).unwrap(), Checkpoint::open(&hf.path).unwrap());
        for t in from.tensors() {
            assert_eq!(bytes(&to, &t.name), bytes(&from, &t.name), "{}", t.name);
        }
    }
}

#[test]
fn a_half_removed_block_is_refused_by_stock_formats_and_kept_by_ours() {
    let dir = TempDir::new().unwrap();
    let source = checkpoint(dir.path(), &config("llama"), Encoding::Bf16, u64::MAX);
    let model = open(&source).unwrap();
    let edit = Edit::Bypass {
        from: ValueRef("model.layers.1.mlp_residual".into()),
        to: ValueRef("model.layers.2.self_attn_residual".into()),
    };
    let (graph, recipe) = apply(model.graph().unwrap(), &[edit]).unwrap();
    let reasons = representable(&model, &graph).unwrap().unwrap_err();
    assert!(reasons[0].contains("model.layers.2"), "{reasons:?}");
    for format in [OutputFormat::Hf, OutputFormat::Gguf] {
        let refused =
            save(&model, &graph, &recipe, &options(format), dir.path().join("no"), &mut quiet).unwrap_err();
        assert!(matches!(refused, ModelError::Unrepresentable { .. }), "{refused}");
        assert!(!dir.path().join("no").exists());
    }
    let out = save(&model, &graph, &recipe, &options(OutputFormat::Auto), dir.path().join("out"), &mut quiet)
        .unwrap();
    assert_eq!(out.format, OutputFormat::Pomona);
    assert!(!out.path.join("config.json").exists(), "a stock loader must not take it for a whole model");
    let again = verify_output(&out.path).unwrap();
    assert_eq!(again.graph().unwrap(), &graph);
    let file = again.checkpoint().unwrap();
    assert!(
        file.get("model.layers.3.mlp.up_proj.weight").is_some()
            && file.tensors().len() == graph.tensors.len()
    );
}

#[test]
fn outputs_are_not_overwritten_nor_sources() {
    let dir = TempDir::new().unwrap();
    let source = checkpoint(dir.path(), &config("llama"), Encoding::Bf16, u64::MAX);
    let model = open(&source).unwrap();
    let (graph, recipe) = without(&model, &[1]);
    let out = dir.path().join("out");
    let try_save = |force, to: &std::path::Path| {
        let o = SaveOptions { force, ..options(OutputFormat::Hf) };
        save(&model, &graph, &recipe, &o, to, &mut quiet)
    };
    try_save(false, &out).unwrap();
    let message = try_save(false, &out).unwrap_err().to_string();
    assert!(message.contains("--force"), "{message}");
    try_save(true, &out).unwrap();
    let message = try_save(true, &source).unwrap_err().to_string();
    assert!(message.contains("overlaps the source"), "{message}");
}

#[test]
fn an_unknown_type_is_cut_by_blocks() {
    let dir = TempDir::new().unwrap();
    let source = checkpoint(dir.path(), &config("llama"), Encoding::F16, u64::MAX);
    let mut c = config("novel");
    c["n_layer"] = json!(DEPTH);
    c["block_kinds"] = json!(["a", "b", "c", "d"]);
    std::fs::write(source.join("config.json"), c.to_string()).unwrap();
    let model = open(&source).unwrap();
    assert!(model.is_opaque());
    let block = |i: usize| ValueRef(format!("model.layers.{i}"));
    let (graph, recipe) =
        apply(model.graph().unwrap(), &[Edit::Bypass { from: block(0), to: block(2) }]).unwrap();
    let out = save(&model, &graph, &recipe, &options(OutputFormat::Auto), dir.path().join("out"), &mut quiet)
        .unwrap();
    assert_eq!(out.format, OutputFormat::Hf);
    let stock = as_stock(&out.path);
    assert_eq!((&stock.config["n_layer"], &stock.config["num_hidden_layers"]), (&json!(2), &json!(2)));
    assert_eq!(stock.config["block_kinds"], json!(["a", "d"]));
    let name = |i| format!("model.layers.{i}.self_attn.q_proj.weight");
    assert_eq!(stock.materialise(&name(1)).unwrap(), model.materialise(&name(3)).unwrap());
    assert!(stock.graph().unwrap().find_tensor(&name(2)).is_none());
    // The output keeps the old names, is cut again, and gets stock numbers again.
    let out = save(&model, &graph, &recipe, &options(OutputFormat::Auto), dir.path().join("own"), &mut quiet)
        .unwrap();
    let again = open(&out.path).unwrap();
    assert!(again.graph().unwrap().find_tensor(&name(3)).is_some());
    let first = ValueRef("@model.layers".into());
    let (graph, recipe) =
        apply(again.graph().unwrap(), &[Edit::Bypass { from: first, to: block(0) }]).unwrap();
    let mut plan = options(OutputFormat::Auto);
    plan.force = true;
    let out = save(&again, &graph, &recipe, &plan, dir.path().join("twice"), &mut quiet).unwrap();
    let stock = as_stock(&out.path);
    assert_eq!(stock.config["n_layer"], 1);
    let message = apply(model.graph().unwrap(), &[Edit::DropOperand { node: "x".into(), index: 0 }])
        .unwrap_err()
        .to_string();
    assert!(message.contains("drop_operand"), "{message}");
    std::fs::remove_file(source.join("model.safetensors")).unwrap();
    let message = open(source.join("config.json")).unwrap_err().to_string();
    assert!(message.contains("\"novel\"") && message.contains("llama, mistral, mixtral"), "{message}");
}

/// Rotary scaling of a graph, the same in every block.
fn scaling(graph: &Graph) -> RopeScaling {
    let rope = |op: &Op| if let Op::Rope(r) = op { Some(r.scaling.clone()) } else { None };
    graph.nodes.iter().find_map(|n| rope(&n.op)).unwrap()
}

#[test]
fn rotary_factors_of_old_and_new_gguf_files_are_read_as_llama_cpp_reads_them() {
    let number = |n: f32| GgufValue::F32(n);
    let text = |s: &str| GgufValue::String(s.to_owned());
    let (kind, factor, old) =
        ("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear");
    for (extra, wanted) in [
        (vec![], RopeScaling::None),
        (vec![(old, number(4.0))], RopeScaling::Linear { factor: 4.0 }),
        (vec![(factor, number(2.0))], RopeScaling::Linear { factor: 2.0 }),
        (vec![(old, number(4.0)), (factor, number(2.0))], RopeScaling::Linear { factor: 2.0 }),
        (vec![(kind, text("linear")), (old, number(8.0))], RopeScaling::Linear { factor: 8.0 }),
        (vec![(kind, text("none")), (factor, number(2.0))], RopeScaling::None),
        (vec![(kind, text("linear")), (factor, number(1.0))], RopeScaling::None),
    ] {
        let dir = TempDir::new().unwrap();
        let model = open(gguf(&dir.path().join("source"), [2; DEPTH], &extra)).unwrap();
        assert_eq!(scaling(model.graph().unwrap()), wanted, "{extra:?}");
    }
    let dir = TempDir::new().unwrap();
    let path = gguf(&dir.path().join("source"), [2; DEPTH], &[(kind, text("yarn"))]);
    let message = open(path).unwrap_err().to_string();
    assert!(message.contains("`llama.rope.scaling.type` is \"yarn\""), "{message}");
}

#[test]
fn a_gguf_with_factor_and_divisors_keeps_both_and_fits_no_config() {
    let dir = TempDir::new().unwrap();
    let extra = [("llama.rope.scaling.factor", GgufValue::F32(2.0))];
    let divisors = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5];
    let model = open(gguf_with_divisors(&dir.path().join("source"), [2; DEPTH], &extra, &divisors)).unwrap();
    let both = RopeScaling::Divisors { divisors: divisors.iter().map(|d| 2.0 * f64::from(*d)).collect() };
    assert_eq!(scaling(model.graph().unwrap()), both);
    let (graph, recipe) = without(&model, &[1]);
    let refused = check_format(&model, &graph, OutputFormat::Hf).unwrap_err().to_string();
    assert!(refused.contains("attributes that no config key sets"), "{refused}");
    let out = save(&model, &graph, &recipe, &options(OutputFormat::Gguf), dir.path().join("out"), &mut quiet)
        .unwrap();
    let again = open(out.path.join("model.gguf")).unwrap();
    assert_eq!(scaling(again.graph().unwrap()), both);
    assert!(again.left_over().is_empty(), "the table of divisors is read");
    let kept =
        save(&model, &graph, &recipe, &options(OutputFormat::Auto), dir.path().join("kept"), &mut quiet)
            .unwrap();
    assert_eq!(kept.format, OutputFormat::Pomona);
    assert_eq!(scaling(open(&kept.path).unwrap().graph().unwrap()), both);
}

#[test]
fn tensors_that_the_architecture_does_not_have_are_not_dropped_silently() {
    let dir = TempDir::new().unwrap();
    let source = checkpoint(dir.path(), &config("llama"), Encoding::F32, u64::MAX);
    let plain = std::fs::read(source.join("model.safetensors")).unwrap();
    for (extra, refused) in [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", false),
        ("model.mtp.weight", true),
        ("score.bias", true),
    ] {
        std::fs::write(source.join("model.safetensors"), with_tensor(&plain, extra)).unwrap();
        let model = open(&source).unwrap();
        let (graph, recipe) = without(&model, &[1]);
        let out = dir.path().join("out");
        let saved = save(&model, &graph, &recipe, &options(OutputFormat::Auto), &out, &mut quiet);
        if refused {
            let message = saved.unwrap_err().to_string();
            let wanted = format!("model.safetensors: tensor `{extra}` is not one that `llama` has");
            assert!(message.contains(&wanted) && message.contains("--drop-unused"), "{message}");
            assert!(!out.exists());
            let o = SaveOptions { drop_unused: true, ..options(OutputFormat::Auto) };
            let notes = save(&model, &graph, &recipe, &o, &out, &mut quiet).unwrap().notes;
            assert_eq!(notes, [format!("1 tensor that the model does not read left out: {extra}")]);
        } else {
            assert!(saved.unwrap().notes.is_empty());
        }
        std::fs::remove_dir_all(&out).unwrap();
    }
}

/// A safetensors file with one more tensor of two numbers at its end.
fn with_tensor(file: &[u8], name: &str) -> Vec<u8> {
    let size = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&file[8..8 + size]).unwrap();
    let end = (file.len() - 8 - size) as u64;
    header[name] = json!({"dtype": "F32", "shape": [2], "data_offsets": [end, end + 8]});
    let header = header.to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(&file[8 + size..]);
    out.extend([0; 8]);
    out
}
