//! What several commands need: an open model with its tokenizer, weights and data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pomona_exec::Device;
use pomona_graph::Plan;
use pomona_models::tokenizer::Tokenizer;
use pomona_models::{Component, Model, SourceKind, open};
use pomona_prune::STREAM;
use pomona_task::{
    ModelWeights, NextToken, Residence, SelfText, TextRange, Windows, sample_windows, self_generated,
    widened_bytes,
};
use pomona_task::{is_token_file, rows_at_once, token_windows};

use crate::ui::Ui;

/// Program and version, as files record it.
pub const TOOL: &str = concat!("pomona ", env!("CARGO_PKG_VERSION"));

/// The model's tokenizer.
pub fn tokenizer(model: &Model) -> Result<Tokenizer> {
    let gguf = model.checkpoint().filter(|c| !c.gguf_metadata().is_empty());
    Ok(match gguf {
        Some(c) => Tokenizer::from_gguf(c.gguf_metadata())?,
        None if model.source == SourceKind::Config => {
            anyhow::bail!("{}: is a bare config, without a tokenizer: give a model", model.path.display())
        }
        None => Tokenizer::from_dir(&model.path)?,
    })
}

/// Bytes of anonymous memory that this process may use: free memory, or its own limit where that is lower.
pub fn memory_available() -> u64 {
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb * 1024)
    };
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|t| field(&t, "MemAvailable:"));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Data).current;
    free.unwrap_or(u64::MAX).min(limit.unwrap_or(u64::MAX))
}

/// Whether all weights stay in memory, and the bytes that a run needs, said before it starts.
pub fn residence(component: &Component, streamed: bool, activations: u64, ui: &Ui) -> Result<Residence> {
    let whole = widened_bytes(component);
    let available = memory_available();
    let fits = whole.saturating_add(activations).saturating_add(whole / 4) < available;
    let residence = if streamed || !fits { Residence::Streamed } else { Residence::Memory };
    let largest = largest_block(component);
    let needed = match residence {
        Residence::Memory => whole + activations,
        Residence::Streamed => largest + activations,
    };
    let how = match residence {
        Residence::Memory => "all weights as f32",
        Residence::Streamed => "one block of weights at a time",
    };
    ui.say(format!("memory: about {} ({how})", pomona_report::units::bytes(needed)));
    Ok(residence)
}

/// Bytes of the largest tensor or block, widened.
fn largest_block(component: &Component) -> u64 {
    let graph = &component.graph;
    let block = pomona_graph::blocks(graph).iter().map(|b| b.parameters).max().unwrap_or(0);
    let tensor = graph.tensors.iter().map(|t| t.elements()).max().unwrap_or(0);
    block.max(tensor).saturating_mul(4)
}

/// What a run holds at a time.
pub struct Held {
    /// Tokens of the samples that run together, and of those whose wide inner values do.
    pub rows: usize,
    pub inner: usize,
    /// Streams that are kept beside.
    pub streams: usize,
    /// Tokens whose logits are there.
    pub logits: usize,
}

/// Rough bytes of a run's activations.
pub fn held_bytes(model: &Model, held: &Held) -> u64 {
    let product = |n: usize, key: &str| n as u64 * number(model, key);
    4 * (product(held.rows * (held.streams + 6), "hidden_size")
        + product(held.inner * 3, "intermediate_size")
        + product(held.logits, "vocab_size"))
}

fn number(model: &Model, key: &str) -> u64 {
    model.config.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0)
}

/// As [`held_bytes`] for samples that run together, the logits of one at a time and once more.
pub fn activation_bytes(model: &Model, samples: usize, tokens: usize, streams: usize) -> u64 {
    let rows = samples * tokens;
    held_bytes(model, &Held { rows, inner: rows, streams, logits: 2 * tokens })
}

/// As [`activation_bytes`] for variants of a model, of which several run in one batch.
pub fn sweep_bytes(model: &Model, samples: usize, tokens: usize, variants: usize) -> u64 {
    let rows = samples * tokens;
    let width = usize::try_from(number(model, "hidden_size")).unwrap_or(0).max(1);
    let inner = (STREAM / width).min(rows * variants).max(rows);
    let logits = logit_rows(model).min(rows * variants).max(tokens) + tokens;
    held_bytes(model, &Held { rows, inner, streams: variants, logits })
}

/// Tokens whose logits are made at once.
pub fn logit_rows(model: &Model) -> usize {
    rows_at_once(usize::try_from(number(model, "vocab_size")).unwrap_or(0))
}

/// Calibration windows: from a text, or written by the model.
pub fn calibration(
    model: &Model,
    weights: &ModelWeights<'_>,
    device: &Device,
    data: Option<&TextRange>,
    (count, length, seed): (usize, usize, u64),
    ui: &Ui,
) -> Result<Windows> {
    match data {
        Some(range) if is_token_file(&range.path) => {
            Ok(token_windows(&range.path, "calibration", vocabulary(model)?)?)
        }
        Some(range) => {
            let tokenizer = tokenizer(model)?;
            let encode = |text: &str| encode(&tokenizer, text);
            Ok(sample_windows(range, count, length, seed, &encode)?)
        }
        None => own_text(model, &tokenizer(model)?, weights, device, (count, length, seed), ui),
    }
}

/// Text that the model writes itself.
pub fn own_text(
    model: &Model,
    tokenizer: &Tokenizer,
    weights: &ModelWeights<'_>,
    device: &Device,
    (count, length, seed): (usize, usize, u64),
    ui: &Ui,
) -> Result<Windows> {
    // Control tokens decode to nothing; a window begins with a token that stands for text.
    let is_text = |id: &u32| tokenizer.decode(&[*id]).is_ok_and(|t| !t.trim().is_empty());
    let starts: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(is_text).collect();
    let bar = ui.bar("writing text");
    bar.set_length(length.saturating_sub(1) as u64);
    let request = SelfText { count, length, seed, starts: &starts };
    let windows = self_generated(model.graph()?, weights, device, &request, &mut || {
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    Ok(windows?)
}

/// Number of tokens that the model predicts among.
pub fn vocabulary(model: &Model) -> Result<usize> {
    let graph = model.graph()?;
    let logits = graph.output("logits").and_then(|v| graph.value(v).shape.last());
    Ok(logits.context("the model has no output `logits`: it is not a language model")?.size("vocabulary")?)
}

/// Token ids of a text, with what the tokenizer puts in front of a sequence.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> pomona_task::Result<Vec<u32>> {
    tokenizer.encode(text, true).map_err(|e| pomona_task::TaskError::Unfit(e.to_string()))
}

/// Refuses what needs a forward pass where there is none.
pub fn check_runs(model: &Model) -> Result<()> {
    if model.is_opaque() {
        anyhow::bail!(
            "{}: `{}` opens as an opaque model, whose computation is not known: it can be inspected, and cut by --criterion \
             magnitude or random; {}known are {}",
            model.path.display(),
            model.architecture,
            config_hint(model),
            pomona_models::known_types().join(", ")
        );
    }
    Ok(())
}

/// What makes the computation of a bare state dict known.
pub fn config_hint(model: &Model) -> String {
    if model.source != SourceKind::StateDict || !model.is_opaque() {
        return String::new();
    }
    let beside = model.path.with_extension("json");
    format!("{} beside it with {{\"architecture\": NAME}} makes it known; ", beside.display())
}

/// Opens a model; the message names the path.
pub fn open_model(path: &Path) -> Result<Model> {
    let name = path.display().to_string();
    open(path).map_err(|e| {
        let named = e.to_string().contains(&name);
        let error = anyhow::Error::from(e);
        if named { error } else { error.context(name) }
    })
}

/// `OUT.name` beside OUT.
pub fn beside(out: &Path, name: &str) -> PathBuf {
    let mut file = out.file_name().unwrap_or_default().to_owned();
    file.push(format!(".{name}"));
    out.with_file_name(file)
}

/// Most bytes of a plan: every filter of a large network by its number.
const MAX_PLAN: u64 = 64 << 20;

/// Reads a plan; the message names the file.
pub fn read_plan(path: &Path) -> Result<Plan> {
    let unread = || format!("{}: cannot be read", path.display());
    let size = std::fs::metadata(path).with_context(unread)?.len();
    if size > MAX_PLAN {
        anyhow::bail!("{}: has {size} bytes; a plan has at most {MAX_PLAN}", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(unread)?;
    Plan::from_json(&text).with_context(|| path.display().to_string())
}

/// The component that a command is about: the named one, the only one, or a pipeline's denoising network.
pub fn component<'a>(model: &'a Model, name: Option<&str>) -> Result<&'a Component> {
    let unet = model.components.iter().find(|c| c.name == "unet");
    Ok(match (name, unet) {
        (None, Some(unet)) => unet,
        (name, _) => model.component(name)?,
    })
}

/// An objective over windows.
pub fn objective(windows: Windows) -> Result<NextToken> {
    Ok(NextToken::new(windows)?)
}

/// Where `pomona devices --measure` keeps this machine.
pub fn measured_device_path() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("pomona").join("this-machine.json")
}

/// A device for predictions: built in, measured here, or a JSON file.
pub fn cost_device(name: &str) -> Result<pomona_cost::Device> {
    let measured = measured_device_path();
    let mut further = Vec::new();
    if measured.is_file() {
        further.push(pomona_cost::load_device(&measured)?);
    }
    if name.ends_with(".json") {
        return Ok(pomona_cost::load_device(Path::new(name))?);
    }
    Ok(pomona_cost::find_device(name, &further)?)
}
