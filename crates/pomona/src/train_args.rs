//! Options of `pomona finetune` and `pomona distill`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pomona_task::TextRange;
use pomona_train::data::{Augment, Layout};
use pomona_train::{Decay, Pattern, Term, Warmup};

use crate::args::{WriteOptions, at_least};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuleName {
    /// AdamW with decoupled decay
    Adamw,
    /// Gradient descent with momentum
    Sgd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DecayName {
    Cosine,
    Linear,
    Constant,
}

impl From<DecayName> for Decay {
    fn from(name: DecayName) -> Decay {
        match name {
            DecayName::Cosine => Decay::Cosine,
            DecayName::Linear => Decay::Linear,
            DecayName::Constant => Decay::Constant,
        }
    }
}

/// What is read, how long, and how the weights move.
#[derive(Clone, Debug, Args)]
pub struct TrainOptions {
    /// Training data, FILE or FILE:FROM-TO in lines, several allowed: text, JSON lines or a JSON list of records, or a .json of
    /// token windows under `training`; for other networks one .safetensors file of inputs and `target`, one folder of pictures
    /// (a folder a class, pairs, or captions) or of recordings, or one .csv of files and labels
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub data: Vec<TextRange>,
    /// Data on which the loss is measured now and then, and which are not trained on
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub valid: Vec<TextRange>,
    /// Steps between these measurements; the first is before the first step, the last after the last
    #[arg(long, value_name = "STEPS", default_value_t = 100)]
    pub valid_every: u64,
    /// Samples of them, evenly spaced
    #[arg(long, value_name = "SAMPLES", default_value_t = 32, value_parser = at_least::<1>)]
    pub valid_samples: usize,
    /// How records are laid out: auto (by their keys), text, documents (text), alpaca (instruction, input, output), prompts
    /// (prompt, completion), chat (messages)
    #[arg(long, default_value = "auto", value_parser = layout)]
    pub layout: Layout,
    /// What may happen to pictures each time they are trained on: flip (half of them, left to right), shift=PIXELS (up to so many,
    /// each way), or both with a comma
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CHANGES", value_parser = augment)]
    pub augment: Augment,
    /// Of pairs of pictures the second goes in and the first should come out
    #[arg(long)]
    pub reverse_pairs: bool,
    /// Tokens of a window or, at most, of an example; numbers of a waveform
    #[arg(long, default_value_t = 256, value_parser = at_least::<1>)]
    pub seq: usize,
    /// Samples that run together
    #[arg(long, default_value_t = 4, value_parser = at_least::<1>)]
    pub batch: usize,
    /// Batches whose gradients make one step
    #[arg(long, default_value_t = 1, value_parser = at_least::<1>)]
    pub accumulate: usize,
    /// Steps of the run
    #[arg(long, group = "length")]
    pub steps: Option<u64>,
    /// Times that the data are read, in place of --steps
    #[arg(long, group = "length", value_parser = positive)]
    pub epochs: Option<f64>,
    /// Minutes of steps; with --steps or --epochs whichever ends first, alone the schedule goes by time
    #[arg(long, value_parser = positive)]
    pub minutes: Option<f64>,
    /// Largest step size
    #[arg(long, default_value_t = 1e-4, value_parser = positive)]
    pub lr: f64,
    /// What the step size does after the warm-up
    #[arg(long, value_enum, default_value = "cosine")]
    pub schedule: DecayName,
    /// Steps, or a share of the run, in which the step size rises
    #[arg(long, default_value = "3%", value_parser = warmup)]
    pub warmup: Warmup,
    /// Share of the largest step size at the end
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub lr_floor: f64,
    /// The update rule
    #[arg(long, value_enum, default_value = "adamw")]
    pub optimizer: RuleName,
    /// adamw: decay of the running means of gradients and of their squares
    #[arg(long, default_value = "0.9,0.999", value_parser = betas)]
    pub betas: [f32; 2],
    /// adamw: added to the root of the mean of squares
    #[arg(long, default_value_t = 1e-8)]
    pub eps: f32,
    /// sgd: share of the last update that is kept
    #[arg(long, default_value_t = 0.9)]
    pub momentum: f32,
    /// Share of each matrix that a step takes away, times the step size; norms and biases are spared
    #[arg(long, default_value_t = 0.0, value_parser = from_zero)]
    pub weight_decay: f64,
    /// Largest global norm of a gradient; 0 for none
    #[arg(long, default_value_t = 1.0, value_parser = from_zero)]
    pub clip: f64,
    /// Keep an exponential moving average of the weights with this decay, and write that
    #[arg(long, value_name = "DECAY", value_parser = share)]
    pub ema: Option<f64>,
    /// Run each block forward once more for its gradients and keep only the blocks' ends meanwhile: less memory, more time
    #[arg(long)]
    pub gradient_checkpointing: bool,
    /// Leave the running statistics of BatchNorms as they are, and normalise by them. They stay too where only a part is trained
    #[arg(long)]
    pub freeze_statistics: bool,
    /// Of the order of the data, of dropout, noise and what --augment draws, of new weights
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A term of the loss, NAME[=WEIGHT][,SETTING=VALUE..], several allowed: cross-entropy, mse, l1; with a teacher kl
    /// (temperature), output-mse, output-l1, features (taps=A+B~C); normalise=mean|relative
    #[arg(long, value_name = "TERM", value_parser = term)]
    pub loss: Vec<Term>,
    /// Only tensors that a pattern names are trained (layers.2*.weight); all without it
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = pattern, conflicts_with = "lora_rank")]
    pub train: Vec<Pattern>,
    /// Train low-rank adapters of this rank and merge them into the output
    #[arg(long, value_name = "RANK", value_parser = at_least::<1>)]
    pub lora_rank: Option<usize>,
    /// Adapters are scaled by this over their rank
    #[arg(long, value_name = "ALPHA", default_value_t = 16.0, value_parser = positive)]
    pub lora_alpha: f64,
    /// Dropout on the input of adapters
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub lora_dropout: f64,
    /// Nodes with adapters, by name or pattern; every linear layer of the blocks without it
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = pattern, requires = "lora_rank")]
    pub lora_targets: Vec<Pattern>,
    /// Write the adapters here too, as peft loads them onto the model that was given
    #[arg(long, value_name = "DIR", requires = "lora_rank")]
    pub adapter_out: Option<PathBuf>,
    /// The component of a pipeline (unet, text_encoder)
    #[arg(long)]
    pub component: Option<String>,
    /// Minutes between checkpoints
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0, value_parser = from_zero)]
    pub save_every: f64,
    /// Steps between checkpoints, besides
    #[arg(long, value_name = "STEPS")]
    pub save_steps: Option<u64>,
    /// Go on from the last checkpoint of the same run
    #[arg(long)]
    pub resume: bool,
    /// Keep the checkpoints when the output is written
    #[arg(long)]
    pub keep_checkpoints: bool,
    /// Folder of checkpoints and logs; OUT.train without it
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Start although less memory is free than the run is thought to need
    #[arg(long)]
    pub ignore_memory: bool,
}

#[derive(Debug, Args)]
pub struct Finetune {
    /// Directory or .gguf
    pub model: PathBuf,
    #[command(flatten)]
    pub train: TrainOptions,
    #[command(flatten)]
    pub write: WriteOptions,
}

#[derive(Debug, Args)]
pub struct Distill {
    /// The student: directory or .gguf
    pub model: PathBuf,
    /// The model that it follows
    #[arg(long, value_name = "MODEL")]
    pub teacher: PathBuf,
    #[command(flatten)]
    pub train: TrainOptions,
    #[command(flatten)]
    pub write: WriteOptions,
}

fn number(s: &str, fits: impl Fn(f64) -> bool, what: &str) -> Result<f64, String> {
    s.parse::<f64>()
        .ok()
        .filter(|v| v.is_finite() && fits(*v))
        .ok_or_else(|| format!("`{s}`: {what} was expected"))
}

fn positive(s: &str) -> Result<f64, String> {
    number(s, |v| v > 0.0, "a number above 0")
}

fn from_zero(s: &str) -> Result<f64, String> {
    number(s, |v| v >= 0.0, "a number from 0")
}

fn share(s: &str) -> Result<f64, String> {
    number(s, |v| (0.0..=1.0).contains(&v), "a number from 0 to 1")
}

fn warmup(s: &str) -> Result<Warmup, String> {
    match s.strip_suffix('%') {
        Some(p) => {
            number(p, |v| (0.0..=100.0).contains(&v), "a share up to 100%").map(|p| Warmup::Share(p / 100.0))
        }
        None => s
            .parse()
            .map(Warmup::Steps)
            .map_err(|_| format!("`{s}`: steps (100) or a share (3%) was expected")),
    }
}

fn betas(s: &str) -> Result<[f32; 2], String> {
    let found = s.split_once(',').and_then(|(a, b)| Some([a.trim().parse().ok()?, b.trim().parse().ok()?]));
    let found = found.filter(|b: &[f32; 2]| b.iter().all(|b| (0.0..1.0).contains(b)));
    found.ok_or_else(|| format!("`{s}`: two numbers from 0 to below 1 (0.9,0.999) were expected"))
}

fn augment(s: &str) -> Result<Augment, String> {
    s.parse()
}

fn layout(s: &str) -> Result<Layout, String> {
    s.parse()
}

fn term(s: &str) -> Result<Term, String> {
    s.parse()
}

fn pattern(s: &str) -> Result<Pattern, String> {
    s.parse()
}
