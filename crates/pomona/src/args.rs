//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pomona_prune::criteria::filters::{Aggregate, Gamma};
use pomona_prune::methods::bk_sdm::Variant;
use pomona_prune::{Goal, UnitKind};
use pomona_task::TextRange;

use crate::eval_args::{LanguageOptions, Sampling};
use crate::filter_args::{FilterOptions, FilterScoreOptions, aggregate};
use crate::train_args::{Distill, Finetune};

/// Wrong use that clap cannot see: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Makes trained neural networks small and fast, and says honestly what it cost.
#[derive(Debug, Parser)]
#[command(name = "pomona", version, max_term_width = 110)]
pub struct Cli {
    /// Print one JSON document on stdout and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no messages but errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show where the cost of a model is: parameters, MACs, bytes, activations, blocks
    Inspect(Inspect),
    /// Make a full-size checkpoint with seeded random weights from a config.json
    Init(Init),
    /// Measure what each part of a model is worth
    Score(Score),
    /// Decide which parts go for a target
    Plan(PlanArgs),
    /// Carry out a plan on a model's files
    Apply(Apply),
    /// Check an output: shapes, weights against source and plan, a run
    Verify(Verify),
    /// Score, plan, apply and verify in one go
    Compress(Compress),
    /// Write a model in another format
    Export(Export),
    /// Train a model, or adapters of it, on data
    Finetune(Finetune),
    /// Train a model to do what another does
    Distill(Distill),
    /// Carry out a recipe: a pipeline whose stages are kept and not done twice
    Run(RunRecipe),
    /// Look at a recipe
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// Measure a model on data
    Eval(Eval),
    /// Continue a prompt
    Generate(Generate),
    /// List devices for predictions, or measure this machine
    Devices(Devices),
    /// Say why a block can or cannot go
    Explain(Explain),
}

impl Command {
    /// Whether it runs networks again and again, rather than reading and writing files.
    pub fn runs_networks(&self) -> bool {
        match self {
            Command::Devices(d) => d.measure,
            Command::Score(_)
            | Command::Compress(_)
            | Command::Finetune(_)
            | Command::Distill(_)
            | Command::Run(_)
            | Command::Eval(_)
            | Command::Generate(_) => true,
            _ => false,
        }
    }
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// Directory, pipeline, .gguf, .onnx, .pth or bare config.json
    pub model: PathBuf,
    /// Show the model as this plan leaves it, beside what it was
    #[arg(long)]
    pub plan: Option<PathBuf>,
    /// Sizes of inputs (batch=1,tokens=128,past=0)
    #[arg(long, value_delimiter = ',', value_parser = binding)]
    pub input: Vec<(String, i64)>,
    /// Levels of the module tree
    #[arg(long, default_value_t = 2)]
    pub depth: usize,
    /// Predict the latency on this device
    #[arg(long)]
    pub device: Option<String>,
    /// List the coupled axis groups, why some cannot be cut, and the removable regions
    #[arg(long)]
    pub groups: bool,
    /// The component of a pipeline (unet, text_encoder); all without it
    #[arg(long)]
    pub component: Option<String>,
}

fn binding(s: &str) -> Result<(String, i64), String> {
    let (name, value) = s.split_once('=').ok_or_else(|| format!("`{s}`: NAME=SIZE was expected"))?;
    let value = value.parse().map_err(|_| format!("`{s}`: the size is not a number"))?;
    Ok((name.to_owned(), value))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// A directory that transformers or diffusers loads
    Hf,
    /// model.gguf for llama.cpp
    Gguf,
    /// model.onnx for ONNX Runtime and everything that reads ONNX
    Onnx,
    /// safetensors and pomona.json: holds every plan
    Pomona,
}

#[derive(Debug, Args)]
pub struct Init {
    /// The config
    pub config: PathBuf,
    /// Output directory
    #[arg(short, long)]
    pub out: PathBuf,
    /// Seed of the weights
    #[arg(long)]
    pub seed: u64,
    /// Type of the weights
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: Dtype,
    /// Replace an existing output
    #[arg(long)]
    pub force: bool,
}

/// What is scored, and on what.
#[derive(Clone, Debug, Args)]
pub struct ScoreOptions {
    /// Calibration text, FILE or FILE:FROM-TO in lines; without it the model writes its own. For networks of another kind a
    /// .safetensors with a tensor for each input, and `target` where a loss is needed; pictures in a directory for snp
    #[arg(long)]
    pub data: Option<TextRange>,
    /// Windows of calibration text (10 without it), pictures (64)
    #[arg(long, value_parser = at_least::<1>)]
    pub samples: Option<usize>,
    /// Tokens of each
    #[arg(long, default_value_t = 128, value_parser = at_least::<2>)]
    pub tokens: usize,
    /// Seed of whatever is random
    #[arg(long, default_value_t = 1234)]
    pub seed: u64,
    /// Which parts go: whole blocks, or attention and feed-forward separately
    #[arg(long, default_value = "block", value_parser = unit)]
    pub unit: UnitKind,
    /// Blocks at the beginning and end that stay: FIRST,LAST, or `none`
    #[arg(long, default_value = "4,2", value_parser = protect)]
    pub protect: [usize; 2],
    /// Score again after each removal, this many times
    #[arg(long, value_name = "REMOVALS")]
    pub iterative: Option<usize>,
    /// Successive halving over samples; at least this many parts see every sample
    #[arg(long, value_name = "PARTS", num_args = 0..=1, default_missing_value = "8")]
    pub screen: Option<usize>,
    /// Keep only one block of weights in memory, also where all would fit
    #[arg(long)]
    pub streamed: bool,
    /// Device that runs the model
    #[arg(long, default_value = "cpu")]
    pub run_on: String,
    /// Keep the state of the run beside its file this often at most, for a killed one to go on from
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = duration)]
    pub save_every: Duration,
}

impl ScoreOptions {
    /// Windows of text.
    pub fn windows(&self) -> usize {
        self.samples.unwrap_or(10)
    }

    /// Pictures.
    pub fn pictures(&self) -> usize {
        self.samples.unwrap_or(64)
    }
}

pub fn at_least<const LEAST: usize>(s: &str) -> Result<usize, String> {
    let number = s.parse::<usize>().ok().filter(|n| *n >= LEAST);
    number.ok_or_else(|| format!("`{s}`: a whole number from {LEAST} was expected"))
}

fn duration(s: &str) -> Result<Duration, String> {
    let seconds = s.parse::<f64>().ok().and_then(|v| Duration::try_from_secs_f64(v).ok());
    seconds.ok_or_else(|| format!("`{s}`: a number of seconds was expected"))
}

fn unit(s: &str) -> Result<UnitKind, String> {
    s.parse()
}

fn protect(s: &str) -> Result<[usize; 2], String> {
    if s == "none" {
        return Ok([0, 0]);
    }
    let numbers: Option<Vec<usize>> = s.split(',').map(|n| n.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([first, last]) => Ok([*first, *last]),
        _ => Err(format!("`{s}`: FIRST,LAST (4,2) or none was expected")),
    }
}

#[derive(Debug, Args)]
pub struct Score {
    /// Directory or .gguf
    pub model: PathBuf,
    /// What is scored: blocks (depth), filters, neurons (snp), heads, or the sensitivity of each layer (inner-layers)
    #[arg(long, value_enum, default_value = "depth")]
    pub method: Method,
    /// What a part is worth: perplexity, taylor, magnitude, block-influence, random; of filters l1, l2, geometric-median,
    /// bn-scale, taylor, random, reverse; of snp and heads also snp (without it), attention, redundancy
    #[arg(long)]
    pub criterion: Option<String>,
    #[command(flatten)]
    pub filters: FilterScoreOptions,
    #[command(flatten)]
    pub options: ScoreOptions,
    /// Score file; an interrupted run with the same settings goes on from it
    #[arg(short, long)]
    pub out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Whole blocks or sublayers of a transformer
    Depth,
    /// Stable Diffusion's U-Net with a pair of resnet and attention fewer in each stage; needs no scores and no target
    BkSdmBase,
    /// bk-sdm-base without the mid block
    BkSdmSmall,
    /// bk-sdm-small without the innermost stage
    BkSdmTiny,
    /// Filters, neurons and channels of coupled groups, anywhere in the network
    Filters,
    /// Filters of the levels near the bottleneck of a U-shape, or those levels
    InnerLayers,
    /// Wav2Lip's generator without its residual convolutions, at a quarter of its widths; needs no scores and no target
    Wav2lipCompact,
    /// Neurons of attentions, feed-forward layers and streams, so that attention scores are preserved
    Snp,
    /// Whole heads of attentions
    Heads,
}

impl Method {
    /// Whether it cuts channels of coupled groups.
    pub fn is_width(self) -> bool {
        matches!(self, Method::Filters | Method::InnerLayers | Method::Snp | Method::Heads)
    }

    /// The variant of BK-SDM that it names.
    pub fn bk_sdm(self) -> Option<Variant> {
        match self {
            Method::Depth
            | Method::Filters
            | Method::InnerLayers
            | Method::Snp
            | Method::Heads
            | Method::Wav2lipCompact => None,
            Method::BkSdmBase => Some(Variant::Base),
            Method::BkSdmSmall => Some(Variant::Small),
            Method::BkSdmTiny => Some(Variant::Tiny),
        }
    }
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Directory, pipeline, .gguf, .onnx, .pth or bare config.json
    pub model: PathBuf,
    /// What goes
    #[arg(long, value_enum, default_value = "depth")]
    pub method: Method,
    /// Scores of this model; depth needs them
    #[arg(long)]
    pub scores: Option<PathBuf>,
    /// blocks=6, params=80%, macs=70%, memory=300MB or latency=80ms@DEVICE; depth needs one
    #[arg(long, value_parser = goal)]
    pub target: Option<Goal>,
    /// The component of a pipeline that is cut (unet)
    #[arg(long)]
    pub component: Option<String>,
    /// Blocks at either end that stay; as scored without it
    #[arg(long, value_parser = protect)]
    pub protect: Option<[usize; 2]>,
    /// wav2lip-compact: which quarter stays, by l1 (where there are weights), l2, geometric-median, bn-scale or random, or the
    /// first (on a bare config)
    #[arg(long)]
    pub criterion: Option<String>,
    /// Seed of whatever is random
    #[arg(long, default_value_t = 1234)]
    pub seed: u64,
    #[command(flatten)]
    pub filters: FilterOptions,
    /// Plan file
    #[arg(short, long)]
    pub out: PathBuf,
    /// Replace an existing plan
    #[arg(long)]
    pub force: bool,
}

fn goal(s: &str) -> Result<Goal, String> {
    s.parse()
}

/// How an output is written.
#[derive(Clone, Debug, Args)]
pub struct WriteOptions {
    /// Output directory
    #[arg(short, long)]
    pub out: PathBuf,
    /// Format; without it the one that holds the model and stock tools load
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Type of floating-point weights; as the source stores them without it
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// Largest safetensors file in bytes
    #[arg(long, default_value_t = 5_000_000_000)]
    pub shard_size: u64,
    /// Replace an existing output when the new one is done
    #[arg(long)]
    pub force: bool,
    /// Operator set of an ONNX output, 17 to 22; the oldest that holds the model without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(17..=22))]
    pub opset: Option<u32>,
    /// Leave out tensors that the architecture does not have
    #[arg(long)]
    pub drop_unused: bool,
}

#[derive(Debug, Args)]
pub struct Apply {
    /// Directory or .gguf
    pub model: PathBuf,
    /// The plan
    #[arg(long)]
    pub plan: PathBuf,
    #[command(flatten)]
    pub write: WriteOptions,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// An output directory
    pub output: PathBuf,
    /// The model it was made from
    #[arg(long, requires = "plan")]
    pub against: Option<PathBuf>,
    /// The plan that made it
    #[arg(long, requires = "against")]
    pub plan: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Compress {
    /// Directory or .gguf
    pub model: PathBuf,
    /// What goes
    #[arg(long, value_enum, default_value = "depth")]
    pub method: Method,
    /// What a part is worth: perplexity without it, l1 for filters and wav2lip-compact, snp for snp and heads
    #[arg(long)]
    pub criterion: Option<String>,
    /// blocks=6, params=80%, macs=70%, memory=300MB or latency=80ms@DEVICE; depth needs one
    #[arg(long, value_parser = goal)]
    pub target: Option<Goal>,
    /// The component of a pipeline that is cut (unet)
    #[arg(long)]
    pub component: Option<String>,
    #[command(flatten)]
    pub options: ScoreOptions,
    /// How a filter's measures in several tensors become one score: normalised, sum or makers
    #[arg(long, default_value = "normalised", value_parser = aggregate)]
    pub aggregate: Aggregate,
    /// snp and heads: the leading components of the logits, a number (16) or those whose singular value is above a share of the
    /// largest (1%)
    #[arg(long, default_value_t, value_name = "COMPONENTS")]
    pub gamma: Gamma,
    #[command(flatten)]
    pub filters: FilterOptions,
    #[command(flatten)]
    pub write: WriteOptions,
}

#[derive(Debug, Args)]
pub struct RunRecipe {
    /// The recipe, a TOML file
    pub recipe: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum RecipeCommand {
    /// Show every option of every stage, with its default where it is not given
    Explain {
        /// The recipe, a TOML file
        recipe: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Export {
    /// Directory or .gguf
    pub model: PathBuf,
    #[command(flatten)]
    pub write: WriteOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// exp(mean next-token loss) over windows
    Perplexity,
    /// Share of questions whose likeliest option is the right one
    Choice,
    /// Share of repeated runs of four tokens, and loops, in text that the model adds to pieces of the data
    Repetition,
    /// Share of pictures whose likeliest class is the right one
    Top1,
    /// How alike the predictions are to those of another model: the same likeliest class, and KL divergence
    Agreement,
}

#[derive(Debug, Args)]
pub struct Eval {
    /// Directory or .gguf
    pub model: PathBuf,
    /// What is measured
    #[arg(long, value_enum)]
    pub task: Task,
    /// Text, FILE or FILE:FROM-TO in lines; without it text that the model writes. For choice JSON lines, or a JSON list, of
    /// questions. Of pictures a directory with a folder for each class, or a .csv of files and labels; for agreement any
    /// directory of pictures
    #[arg(long)]
    pub data: Option<TextRange>,
    /// agreement: the model that this one is compared with (the dense one)
    #[arg(long, value_name = "MODEL")]
    pub against: Option<PathBuf>,
    /// agreement: keep the logits of --against in this .safetensors file, and read them from it in later runs
    #[arg(long, value_name = "FILE", requires = "against")]
    pub keep_logits: Option<PathBuf>,
    /// The model that writes the text where there is no --data (the dense one, say); this one without
    #[arg(long, conflicts_with = "data")]
    pub text_from: Option<PathBuf>,
    /// Windows, evenly spaced over the text; all without it
    #[arg(long, value_parser = at_least::<1>)]
    pub windows: Option<usize>,
    /// Tokens of a window: 512 without it, the model's context with --protocol full
    #[arg(long, value_parser = at_least::<2>)]
    pub tokens: Option<usize>,
    #[command(flatten)]
    pub language: LanguageOptions,
    #[command(flatten)]
    pub sampling: Sampling,
    /// Seed of text that the model writes, and of draws
    #[arg(long, default_value_t = 4321)]
    pub seed: u64,
    /// Pictures, evenly spaced over the data; all without it
    #[arg(long, value_parser = at_least::<1>)]
    pub samples: Option<usize>,
    /// Pictures that run together
    #[arg(long, default_value_t = 32, value_parser = at_least::<1>)]
    pub batch: usize,
}

#[derive(Debug, Args)]
pub struct Generate {
    /// Directory or .gguf
    pub model: PathBuf,
    /// The text to continue
    #[arg(long, required_unless_present = "windows")]
    pub prompt: Option<String>,
    /// Write this many windows of text that the model makes up, from a random token each, to --output: token ids that `--data` of
    /// finetune and distill takes
    #[arg(long, requires = "output", conflicts_with_all = ["prompt", "chat", "new_tokens", "no_stop"], value_parser = at_least::<1>)]
    pub windows: Option<usize>,
    /// Tokens of such a window: one more than what --seq of the training is
    #[arg(long, default_value_t = 257, requires = "windows")]
    pub tokens: usize,
    /// The file of windows
    #[arg(short, long, value_name = "FILE", requires = "windows")]
    pub output: Option<PathBuf>,
    /// Replace it where it exists
    #[arg(long, requires = "windows")]
    pub force: bool,
    /// Put the prompt into the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Most new tokens
    #[arg(long, default_value_t = 64)]
    pub new_tokens: usize,
    #[command(flatten)]
    pub sampling: Sampling,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Go on after the model's end of sequence
    #[arg(long)]
    pub no_stop: bool,
}

#[derive(Debug, Args)]
pub struct Devices {
    /// Measure this machine and keep the result as `this-machine`
    #[arg(long)]
    pub measure: bool,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// Directory, pipeline, .gguf, .onnx, .pth or bare config.json
    pub model: PathBuf,
    /// Path of a block, sublayer or module (model.layers.3), or a tensor, its axis or group (model.norm.weight:0)
    pub part: String,
    /// The component of a pipeline
    #[arg(long)]
    pub component: Option<String>,
}
