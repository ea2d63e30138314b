//! Denoising networks trained on folders of pictures, within their pipelines.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Folder;
use common::media::picture;
use common::runs::stopped;

const UNET: &str = r#"{"_class_name": "UNet2DConditionModel", "sample_size": 8, "block_out_channels": [8, 16],
    "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 2, "norm_num_groups": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}"#;
const VAE: &str = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [8, 16], "layers_per_block": 1,
    "norm_num_groups": 4, "sample_size": 16, "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
const TEXT: &str = r#"{"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 520,
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 12, "eos_token_id": 514, "hidden_act": "quick_gelu"}"#;
const PLAIN: &str = r#"{"_class_name": "UNet2DModel", "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1,
    "attention_head_dim": 4, "norm_num_groups": 4, "num_class_embeds": 2, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}"#;

/// `pipe` with networks of seeded weights.
fn pipeline(parts: &[(&str, &str)], index: &str, schedule: &str) -> Folder {
    let f = Folder::bare();
    for (name, config) in parts {
        std::fs::create_dir_all(f.path(&format!("made/{name}"))).unwrap();
        f.write(&format!("made/{name}/config.json"), config);
        let out = format!("pipe/{name}");
        std::fs::create_dir_all(f.path("pipe")).unwrap();
        f.ok(&[
            "-q",
            "init",
            &format!("made/{name}/config.json"),
            "--seed",
            "3",
            "--dtype",
            "f32",
            "-o",
            &out,
        ]);
    }
    f.write("pipe/model_index.json", index);
    ["scheduler", "tokenizer"]
        .iter()
        .for_each(|d| std::fs::create_dir_all(f.path(&format!("pipe/{d}"))).unwrap());
    f.write("pipe/scheduler/scheduler_config.json", schedule);
    f.write("pipe/tokenizer/merges.txt", "#version: 0.2\ni n</w>\n");
    f
}

fn text_to_picture() -> Folder {
    let index = r#"{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0",
        "scheduler": ["diffusers", "DDPMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"]}"#;
    let schedule = r#"{"_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}"#;
    let f = pipeline(&[("unet", UNET), ("vae", VAE), ("text_encoder", TEXT)], index, schedule);
    std::fs::create_dir(f.path("pictures")).unwrap();
    let mut table = String::new();
    for i in 0..12_u32 {
        let dark = i % 2 == 0;
        let bytes = picture(20, 24, |x, y| {
            let v = if dark { 30 } else { 180 } + (x * (i + 1) + y * 3) % 50;
            [v as u8, (v + 10) as u8, (v + 20) as u8]
        });
        std::fs::write(f.path(&format!("pictures/{i:02}.png")), bytes).unwrap();
        let words = if dark { "a dark thing in a long winter night of rain" } else { "light" };
        table += &format!("{{\"file_name\": \"{i:02}.png\", \"text\": \"{words}\"}}\n");
    }
    f.write("pictures/metadata.jsonl", &table);
    f
}

fn unet(f: &Folder, out: &str) -> Vec<u8> {
    let dir = f.path(out).join("unet");
    let file = ["diffusion_pytorch_model.safetensors", "model.safetensors"].map(|n| dir.join(n));
    std::fs::read(file.iter().find(|p| p.is_file()).unwrap()).unwrap()
}

#[test]
fn a_unet_learns_the_noise_of_latents_with_captions() {
    let f = text_to_picture();
    let command = |out: &'static str, more: &[&'static str]| {
        let all =
            ["-q", "finetune", "pipe", "--component", "unet", "--data", "pictures", "--valid", "pictures"];
        let how = ["--batch", "6", "--steps", "60", "--lr", "5e-3", "--augment", "flip", "-o", out];
        [&all, &how[..], more].concat()
    };
    let done = f.document(&command("out", &["--ema", "0.9"]));
    let held = |key: &str| done[key].as_f64().unwrap();
    // A network that tells nothing has 1.
    assert!(held("held_out_first") > 0.95 && held("held_out_last") < 0.85, "{done}");
    assert_eq!(done["samples"], 360);
    // The rest of the pipeline comes along as it was.
    assert!(f.path("out/scheduler/scheduler_config.json").is_file());
    f.ok(&["-q", "verify", "out"]);
    // Noise, steps and flips go on where a run was stopped.
    for (round, signal) in ["TERM", "KILL"].into_iter().enumerate() {
        let begin = command("again", &["--ema", "0.9", "--force", "--save-steps", "4"]);
        if stopped(&f, &begin, "again.train", 10 + 9 * round, signal) {
            f.ok(&command("again", &["--ema", "0.9", "--resume"]));
        }
        assert!(unet(&f, "again") == unet(&f, "out"), "after {signal}");
        ["again", "again.train"].iter().for_each(|name| std::fs::remove_dir_all(f.path(name)).unwrap());
    }
    // Student and teacher see the same noise: a network that follows itself has nothing to learn.
    let same = f.document(&[
        "-q",
        "distill",
        "pipe",
        "--teacher",
        "pipe",
        "--component",
        "unet",
        "--data",
        "pictures",
        "--steps",
        "2",
        "--loss",
        "output-mse=1",
        "--loss",
        "features=1,taps=down_blocks.0+up_blocks.1",
        "-o",
        "same",
    ]);
    assert!(same["loss_first"].as_f64().unwrap() < 1e-9, "{same}");
    let says = |words: &[&str]| String::from_utf8(f.run(words).stderr).unwrap();
    let alone = says(&["finetune", "pipe/unet", "--data", "pictures", "--steps", "1", "-o", "x"]);
    assert!(alone.contains("no noise schedule is known") && alone.contains("whole pipeline"), "{alone}");
    f.write("pictures/metadata.jsonl", "{\"file_name\": \"00.png\"}\n");
    let message = says(&command("x", &[]));
    assert!(message.contains("metadata.jsonl: line 1: has no `text`"), "{message}");
    assert!(!f.path("x").exists());
}

#[test]
fn a_unet_of_pixels_learns_the_noise_of_classes() {
    let index = r#"{"_class_name": "DDPMPipeline", "_diffusers_version": "0.30.0",
        "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}"#;
    let schedule =
        r#"{"_class_name": "DDPMScheduler", "prediction_type": "v_prediction", "num_train_timesteps": 50}"#;
    let f = pipeline(&[("unet", PLAIN)], index, schedule);
    for i in 0..8_u32 {
        let (name, level) = [("dark", 40), ("light", 150)][i as usize % 2];
        std::fs::create_dir_all(f.path(&format!("pictures/{name}"))).unwrap();
        let bytes = picture(8, 8, |x, y| [level + (x * y + i) as u8; 3]);
        std::fs::write(f.path(&format!("pictures/{name}/{i}.png")), bytes).unwrap();
    }
    let done = f.document(&[
        "-q", "finetune", "pipe", "--data", "pictures", "--valid", "pictures", "--batch", "8", "--steps",
        "60", "--lr", "5e-3", "-o", "out",
    ]);
    let held = |key: &str| done[key].as_f64().unwrap();
    assert!(held("held_out_last") < 0.6 * held("held_out_first"), "{done}");
    f.write("pipe/scheduler/scheduler_config.json", r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#);
    let refused = f.run(&["finetune", "pipe", "--data", "pictures", "--steps", "1", "-o", "x"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("scheduler_config.json: `FlowMatchEulerDiscreteScheduler` is not known"),
        "{message}"
    );
}
