//! `pomona eval`.

use std::time::Instant;

use anyhow::Result;
use pomona_exec::Device;
use pomona_models::Model;
use pomona_task::{ModelWeights, Residence, SampleLoss, Windows, even_windows, window_losses};
use pomona_task::{is_token_file, token_windows};

use crate::args::{Eval, Task};
use crate::context::{
    activation_bytes, check_runs, encode, objective, open_model, own_text, residence, tokenizer, vocabulary,
};
use crate::ui::Ui;

/// Windows of text that a model writes itself, where no number is given.
const OWN_WINDOWS: usize = 16;

pub fn run(a: &Eval, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    check_runs(&model)?;
    match a.task {
        Task::Perplexity => perplexity(a, &model, ui),
        Task::Top1 => super::eval_images::top1(a, &model, ui),
        Task::Agreement => super::eval_images::agreement(a, &model, ui),
    }
}

fn perplexity(a: &Eval, model: &Model, ui: &Ui) -> Result<()> {
    let device = Device::cpu();
    let windows = windows(a, model, &device, ui)?;
    let residence = residence(model.only()?, false, activation_bytes(model, 1, a.tokens, 0), ui)?;
    let weights = ModelWeights::new(model.only()?, &device, residence);
    let source = windows.source.clone();
    let fingerprint = windows.fingerprint.clone();
    let objective = objective(windows)?;
    let bar = ui.bar("evaluating");
    bar.set_length(objective.windows().ids.len() as u64);
    let began = Instant::now();
    let losses = window_losses(model.graph()?, &weights, &objective, &device, &mut || {
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    let losses = losses?;
    let seconds = began.elapsed().as_secs_f64();
    let perplexity = SampleLoss::mean(&losses).exp();
    let predictions: usize = losses.iter().map(|l| l.count).sum();
    let document = serde_json::json!({"task": "perplexity", "perplexity": perplexity, "windows": losses.len(),
        "tokens": predictions / losses.len().max(1) + 1, "predictions": predictions, "source": source, "data_fingerprint": fingerprint,
        "seconds": seconds});
    ui.result(&document, || {
        format!(
            "perplexity {perplexity:.4} on {} windows of {} tokens ({source}), {seconds:.1} s\n",
            losses.len(),
            a.tokens
        )
    })
}

fn windows(a: &Eval, model: &Model, device: &Device, ui: &Ui) -> Result<Windows> {
    if let Some(range) = a.data.as_ref().filter(|r| is_token_file(&r.path)) {
        return Ok(token_windows(&range.path, "evaluation", vocabulary(model)?)?);
    }
    let tokenizer = tokenizer(model)?;
    if let Some(range) = &a.data {
        let encode = |text: &str| encode(&tokenizer, text);
        return Ok(even_windows(range, a.windows, a.tokens, &encode)?);
    }
    let other = a.text_from.as_deref().map(open_model).transpose()?;
    let writer = other.as_ref().unwrap_or(model);
    let weights = ModelWeights::new(writer.only()?, device, Residence::Memory);
    own_text(writer, &tokenizer, &weights, device, (a.windows.unwrap_or(OWN_WINDOWS), a.tokens, a.seed), ui)
}
