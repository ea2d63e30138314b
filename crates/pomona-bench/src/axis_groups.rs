//! Coupled groups and a plan that takes half of each, against Torch-Pruning. Both sides rank channels at random, so that no
//! side reads weights: what is raced is finding what goes together.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pomona_exec::{Device, Loaded, Tensor, WeightProvider};
use pomona_graph::TensorId;
use pomona_models::open;
use pomona_prune::criteria::filters::{Aggregate, FilterCriterion};
use pomona_prune::methods::filters::{Choice, Planning, Scoring, plan, score};
use pomona_prune::{FilterSettings, Fit, LadderOptions, ScoredUnit};
use pomona_task::Weights;
use serde_json::{Value, json};

use crate::{child, median};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Python with torch, torch-pruning, timm, transformers and diffusers: Torch-Pruning takes part
    #[arg(long)]
    python: Option<PathBuf>,
    /// The other side
    #[arg(long, default_value = "scripts/axis_groups_torch_pruning.py")]
    script: PathBuf,
    /// Networks by name (resnet50, vit_base_patch16_224, deit_small_patch16_224, llama, unet); all without it
    #[arg(long, value_delimiter = ',')]
    network: Vec<String>,
    /// Runs of each side; large networks run once
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds after which the other side is stopped
    #[arg(long, default_value_t = 200)]
    limit: u64,
    /// Our side of one network, in a process of its own
    #[arg(long, hide = true)]
    one: Option<PathBuf>,
}

/// Name, its config, and whether one run of the other side is enough.
fn networks() -> Vec<(&'static str, Value, bool)> {
    let by_name = |name| json!({"architecture": name, "torch_dtype": "float32"});
    let unet = json!({
        "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4,
        "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32,
        "out_channels": 4, "sample_size": 64,
    });
    let llama = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1536,
        "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151_936, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "torch_dtype": "float32",
    });
    let small = ["resnet50", "vit_base_patch16_224", "deit_small_patch16_224"];
    let mut all: Vec<_> = small.into_iter().map(|n| (n, by_name(n), false)).collect();
    all.extend([("llama", llama, true), ("unet", unet, true)]);
    all
}

/// There are none: random scores read nothing.
struct NoWeights(Loaded);

impl WeightProvider for NoWeights {
    fn get(&self, id: TensorId) -> pomona_exec::Result<Tensor> {
        self.0.get(id)
    }
}

impl Weights for NoWeights {
    fn release(&self) {}
}

pub fn run(a: &Args) -> Result<Value> {
    if let Some(config) = &a.one {
        return ours(config);
    }
    let all = networks();
    if let Some(name) = a.network.iter().find(|n| !all.iter().any(|(known, ..)| known == n)) {
        bail!("--network: `{name}` is not in this race");
    }
    let folder = std::env::temp_dir().join(format!("pomona-axis-groups-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut rows = Vec::new();
    for (name, config, once) in all {
        if a.network.is_empty() || a.network.iter().any(|n| n == name) {
            rows.push(row(a, name, &config, once, &folder).with_context(|| name.to_owned())?);
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(json!({"race": "axis-groups", "criterion": "random", "share": 0.5, "networks": rows}))
}

fn row(a: &Args, name: &str, config: &Value, once: bool, folder: &Path) -> Result<Value> {
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, config.to_string())?;
    let program = std::env::current_exe()?;
    let (mut mine, mut theirs, mut peak) = (Vec::new(), Vec::new(), (0.0_f64, 0.0_f64));
    let (mut first, mut peer) = (Value::Null, Value::Null);
    let mut commands = (Vec::new(), Vec::new());
    for i in 0..a.runs.max(1) {
        let mut command = Command::new(&program);
        command.args(["--json", "axis-groups", "--one"]).arg(&file);
        let taken = child::run(&mut command)?;
        let found: Value = serde_json::from_str(&taken.stdout)?;
        mine.push(seconds(&found));
        commands.0.push(taken.seconds);
        peak.0 = peak.0.max(found["peak_rss_bytes"].as_f64().unwrap_or(f64::NAN));
        first = found;
        let Some(python) = a.python.as_ref().filter(|_| i == 0 || !once) else { continue };
        let mut command = Command::new("timeout");
        command.arg(a.limit.to_string()).arg(python).arg(&a.script).arg(name).arg(&file);
        match child::run(&mut command) {
            Ok(taken) => {
                let last = taken.stdout.lines().last().context("Torch-Pruning printed nothing")?;
                let found: Value = serde_json::from_str(last)?;
                theirs.push(seconds(&found));
                commands.1.push(taken.seconds);
                peak.1 = peak.1.max(found["peak_rss_bytes"].as_f64().unwrap_or(f64::NAN));
                peer = found;
            }
            Err(e) if format!("{e:#}").contains("exit status: 124") => peer = json!({"finished": false}),
            Err(e) => return Err(e),
        }
    }
    let ours = median(&mine);
    let mut out = json!({
        "network": name, "pomona_seconds": mine, "pomona_median": ours, "pomona_peak_rss_bytes": peak.0,
        "pomona_command_seconds": commands.0, "pomona": first,
    });
    if peer["finished"] == json!(false) {
        out["torch_pruning"] = json!({"finished": false, "stopped_after_seconds": a.limit});
        out["ratio_at_least"] = json!(a.limit as f64 / median(&commands.0));
    } else if !theirs.is_empty() {
        out["torch_pruning_seconds"] = json!(theirs);
        out["torch_pruning_median"] = json!(median(&theirs));
        out["torch_pruning_peak_rss_bytes"] = json!(peak.1);
        out["torch_pruning_command_seconds"] = json!(commands.1);
        out["torch_pruning"] = peer;
        out["ratio"] = json!(median(&theirs) / ours);
        out["ratio_of_commands"] = json!(median(&commands.1) / median(&commands.0));
    }
    Ok(out)
}

/// Groups and plan; reading or building the network is not counted.
fn seconds(found: &Value) -> f64 {
    let of = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
    of("groups_seconds") + of("plan_seconds")
}

fn ours(config: &Path) -> Result<Value> {
    let began = Instant::now();
    let model = open(config)?;
    let graph = model.graph()?;
    let built = Instant::now();
    let settings = FilterSettings {
        criterion: FilterCriterion::Random,
        aggregate: Aggregate::Normalised,
        samples: 0,
        seed: 0,
        unit: ScoredUnit::Channels,
        gamma: None,
    };
    let scoring = Scoring {
        graph,
        weights: &NoWeights(Loaded(std::collections::BTreeMap::new())),
        objective: None,
        device: &Device::cpu(),
        fingerprint: "",
        component: None,
        tool: "pomona-bench",
        at_once: 1,
        save_every: Duration::from_secs(3600),
    };
    // Scoring finds the groups; planning finds them again, because scores are a file between two commands.
    let scores = score(&scoring, &settings, None, &mut |_, _| Ok(()))?;
    let found = Instant::now();
    let planning = Planning {
        graph,
        scores: &scores,
        limits: LadderOptions::default(),
        choice: Choice::Ratios(&[("*".to_owned(), 0.5)], None),
        fit: Fit::AtMost,
        method: "filters",
        device: None,
        fingerprint: "",
        component: None,
        tool: "pomona-bench",
    };
    let plan = plan(&planning)?;
    let planned = Instant::now();
    Ok(json!({
        "build_seconds": (built - began).as_secs_f64(), "groups_seconds": (found - built).as_secs_f64(),
        "plan_seconds": (planned - found).as_secs_f64(), "groups": scores.groups.len(), "edits": plan.edits.len(),
        "parameters_before": plan.before.parameters, "parameters_after": plan.after.parameters,
        "peak_rss_bytes": pomona_exec::peak_memory().unwrap_or(0),
    }))
}
