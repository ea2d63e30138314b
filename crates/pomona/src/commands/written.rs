//! `pomona generate --windows`: text that a model writes itself, as windows of token ids in a file that `--data` takes.

use std::path::Path;

use anyhow::{Context, Result, bail};
use pomona_exec::Device;
use pomona_models::Model;
use pomona_task::ModelWeights;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::Generate;
use crate::context::{activation_bytes, beside, own_text, residence, tokenizer};
use crate::ui::Ui;

/// Windows that are written together: a batch reads the weights once for all.
const TOGETHER: usize = 32;

/// What is there of a file that is not complete, with what it was asked for with.
#[derive(Serialize, Deserialize)]
struct Part {
    model: String,
    tokens: usize,
    seed: u64,
    training: Vec<Vec<u32>>,
}

/// Writes `windows` windows of `tokens` tokens to `out`. A run that is stopped goes on after the last 32.
pub fn run(a: &Generate, model: &Model, windows: usize, out: &Path, ui: &Ui) -> Result<()> {
    if out.exists() && !a.force {
        bail!("{}: exists: choose another name, or --force to replace it", out.display());
    }
    if a.tokens < 2 {
        bail!(crate::args::Usage("--tokens: a window has 2 tokens at least".to_owned()));
    }
    let path = beside(out, "part");
    let wanted =
        Part { model: model.only()?.fingerprint()?, tokens: a.tokens, seed: a.seed, training: Vec::new() };
    let mut part = known(&path, &wanted).unwrap_or(wanted);
    part.training.truncate(windows);
    let device = Device::cpu();
    let residence = residence(model.only()?, false, activation_bytes(model, TOGETHER, a.tokens, 0), ui)?;
    let weights = ModelWeights::new(model.only()?, &device, residence);
    let tokenizer = tokenizer(model)?;
    while part.training.len() < windows {
        let done = part.training.len();
        ui.say(format!("{done} of {windows} windows"));
        // A whole batch of its own seed, so that its windows are the same whichever run writes them and however many are kept.
        let seed = a.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add((done / TOGETHER) as u64);
        let more = own_text(model, &tokenizer, &weights, &device, (TOGETHER, a.tokens, seed), ui)?;
        part.training.extend(more.ids.into_iter().take(windows - done));
        pomona_store::write_atomic(&path, &serde_json::to_vec(&part)?)?;
    }
    pomona_store::write_atomic(out, &serde_json::to_vec(&json!({"training": part.training}))?)?;
    if path.exists() {
        std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    let done = json!({"output": out, "windows": windows, "tokens": a.tokens, "seed": a.seed});
    ui.result(&done, || format!("wrote {windows} windows of {} tokens to {}\n", a.tokens, out.display()))
}

fn known(path: &Path, wanted: &Part) -> Option<Part> {
    let mut found: Part = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let same = (&found.model, found.tokens, found.seed) == (&wanted.model, wanted.tokens, wanted.seed);
    found.training.truncate(found.training.len() / TOGETHER * TOGETHER);
    let whole = found.training.iter().all(|w| w.len() == found.tokens);
    (same && whole).then_some(found)
}
