//! A whole pipeline: one component is cut, the others and everything without weights are carried over.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../pomona-task/tests/seeded/mod.rs"]
mod seeded;

use std::path::{Path, PathBuf};

use pomona_exec::Device;
use pomona_graph::apply;
use pomona_models::{Model, OutputFormat, SaveOptions, SourceKind, open, save, verify_output};
use pomona_prune::methods::bk_sdm::{Planning, Variant, plan};
use pomona_store::Encoding;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pomona-task/tests/diffusers")
}

/// A pipeline of small networks, with the weights of one under the name of a variant.
fn pipeline(dir: &Path) -> PathBuf {
    let root = dir.join("pipeline");
    for (name, golden) in [("unet", "unet_sd1"), ("vae", "vae"), ("text_encoder", "clip")] {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let scratch = dir.join(format!("{name}-made"));
        let made = seeded::checkpoint(&scratch, &goldens().join(golden).join("config.json"));
        for entry in std::fs::read_dir(made).unwrap() {
            let entry = entry.unwrap();
            let file = entry.file_name().into_string().unwrap();
            let stock = match (name, file.as_str()) {
                ("unet", "model.safetensors") => "diffusion_pytorch_model.fp16.safetensors",
                ("vae", "model.safetensors") => "diffusion_pytorch_model.safetensors",
                (_, other) => other,
            };
            std::fs::copy(entry.path(), folder.join(stock)).unwrap();
        }
    }
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "model_index.json",
        r#"{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
            "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [null, null]}"#,
    );
    write("scheduler/scheduler_config.json", r#"{"_class_name": "PNDMScheduler"}"#);
    write("tokenizer/merges.txt", "#version: 0.2\ni n</w>\n");
    write("LICENSE", "a licence");
    root
}

fn tiny(model: &Model) -> pomona_graph::Plan {
    let unet = model.component(Some("unet")).unwrap();
    let fingerprint = unet.fingerprint().unwrap();
    let on =
        Planning { graph: &unet.graph, component: Some("unet"), fingerprint: &fingerprint, tool: "test" };
    plan(&on, Variant::Tiny).unwrap()
}

#[test]
fn one_component_is_cut_and_the_rest_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let root = pipeline(dir.path());
    let model = open(&root).unwrap();
    assert_eq!(
        (model.source, model.architecture.as_str()),
        (SourceKind::Pipeline, "StableDiffusionPipeline")
    );
    let names: Vec<&str> = model.components.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["text_encoder", "unet", "vae"]);
    let message = model.graph().unwrap_err().to_string();
    assert!(message.contains("text_encoder, unet, vae"), "{message}");
    let plan = tiny(&model);
    let unet = model.planned(&plan).unwrap();
    let (edited, recipe) = apply(&unet.graph, &plan.edits).unwrap();
    for (format, dtype) in
        [(OutputFormat::Hf, None), (OutputFormat::Pomona, None), (OutputFormat::Hf, Some(Encoding::F16))]
    {
        let out = dir.path().join(format!("out-{format:?}-{}", dtype.is_some()));
        let options = SaveOptions { format, dtype, plan: Some(plan.clone()), ..SaveOptions::default() };
        let saved = save(&model, &edited, &recipe, &options, out, &mut |_, _| {}).unwrap();
        for file in ["LICENSE", "scheduler/scheduler_config.json", "tokenizer/merges.txt", "model_index.json"]
        {
            assert_eq!(
                std::fs::read(root.join(file)).unwrap(),
                std::fs::read(saved.path.join(file)).unwrap(),
                "{file}"
            );
        }
        for file in ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"] {
            assert!(saved.path.join(format!("{file}.safetensors")).is_file(), "{file}");
        }
        let again = verify_output(&saved.path).unwrap();
        assert_eq!((again.components.len(), again.lineage.len()), (3, 1));
        assert_eq!(again.component(Some("unet")).unwrap().graph.nodes.len(), edited.nodes.len());
        if dtype.is_some() {
            continue;
        }
        // The components that nobody touched keep their bytes and give the same output.
        let vae = seeded::golden(&goldens().join("vae"));
        for model in [&model, &again] {
            let component = model.component(Some("vae")).unwrap();
            let fed = seeded::feeds(&component.graph, &vae, &Device::cpu());
            let image = seeded::output(component, &fed, "image").to_f32().unwrap();
            seeded::assert_close(&image, &vae.outputs["image"].values, "vae");
        }
        if format == OutputFormat::Hf {
            std::fs::remove_file(saved.path.join("pomona.json")).unwrap();
            let stock = open(&saved.path).unwrap();
            assert_eq!(
                stock.component(Some("unet")).unwrap().config["block_out_channels"],
                serde_json::json!([8, 16])
            );
        }
    }
}

#[test]
fn plans_fit_the_component_and_the_same_network_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = pipeline(dir.path());
    let (model, alone) = (open(&root).unwrap(), open(root.join("unet")).unwrap());
    let shapes = open(root.join("unet/config.json")).unwrap();
    let mut plan = tiny(&model);
    assert_eq!(alone.planned(&plan).unwrap().name, "model");
    // A plan that a bare config made fits the component of a pipeline when it names it.
    plan.fingerprint = shapes.fingerprint().unwrap();
    assert_eq!(model.planned(&plan).unwrap().name, "unet");
    plan.component = Some("vae".to_owned());
    assert!(model.planned(&plan).unwrap_err().to_string().contains("was made for a model with fingerprint"));
    plan.component = Some("prior".to_owned());
    assert!(model.planned(&plan).unwrap_err().to_string().contains("no component `prior`"));
}

#[test]
fn folders_outside_the_output_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = open(pipeline(dir.path())).unwrap();
    let unet = &model.component(Some("unet")).unwrap().graph;
    let copies =
        pomona_graph::Recipe::identity(unet.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
    let options = SaveOptions::default();
    let saved = save(&model, unet, &copies, &options, dir.path().join("out"), &mut |_, _| {}).unwrap();
    let path = saved.path.join("pomona.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for folder in ["../pipeline/vae", "/etc"] {
        std::fs::write(&path, text.replace("\"folder\":\"vae\"", &format!("\"folder\":\"{folder}\"")))
            .unwrap();
        let message = open(&saved.path).unwrap_err().to_string();
        assert!(message.contains("which is not inside the directory"), "{message}");
    }
}
