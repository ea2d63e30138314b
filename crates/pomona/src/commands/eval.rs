//! `pomona eval`.

use std::time::Instant;

use anyhow::{Result, bail};
use pomona_exec::Device;
use pomona_models::Model;
use pomona_task::{
    Cut, Language, ModelWeights, PASS_TOKENS, Protocol, Residence, cache_bytes, perplexity, stretch_losses,
};
use pomona_task::{is_token_file, token_windows};

use crate::args::{Eval, Task, Usage};
use crate::context::{
    Held, check_runs, encode, held_bytes, logit_rows, open_model, own_text, residence, tokenizer, vocabulary,
};
use crate::eval_args::{Bos, ProtocolName};
use crate::ui::Ui;

/// Windows of text that a model writes itself, where no number is given.
const OWN_WINDOWS: usize = 16;
/// Tokens of a window, where no number is given.
const TOKENS: usize = 512;

pub fn run(a: &Eval, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    check_runs(&model)?;
    match a.task {
        Task::Perplexity => measure_perplexity(a, &model, ui),
        Task::Choice => super::eval_choice::choice(a, &model, ui),
        Task::Repetition => super::eval_repetition::measure(a, &model, ui),
        Task::Top1 => super::eval_images::top1(a, &model, ui),
        Task::Agreement => super::eval_images::agreement(a, &model, ui),
    }
}

fn measure_perplexity(a: &Eval, model: &Model, ui: &Ui) -> Result<()> {
    let device = Device::cpu();
    let protocol = protocol(a, model)?;
    let cut = cut(a, model, protocol, &device, ui)?;
    let tokens = cut.stretches.iter().map(|s| s.ids.len()).max().unwrap_or(0);
    let residence = residence(model.only()?, false, pass_bytes(model, tokens)?, ui)?;
    let weights = ModelWeights::new(model.only()?, &device, residence);
    let bar = ui.bar("evaluating");
    bar.set_length(cut.stretches.iter().map(|s| s.ids.len() as u64).sum());
    let began = Instant::now();
    let language = Language { graph: model.graph()?, weights: &weights, device: &device };
    let losses = stretch_losses(language, &cut.stretches, &mut |tokens| {
        bar.inc(tokens as u64);
        Ok(())
    });
    bar.finish_and_clear();
    let losses = losses?;
    let seconds = began.elapsed().as_secs_f64();
    let (value, error) = perplexity(&losses);
    let predictions: usize = losses.iter().map(|l| l.count).sum();
    let mut document = serde_json::json!({"task": "perplexity", "protocol": protocol.name(), "perplexity": value,
        "perplexity_stderr": error, "windows": losses.len(), "tokens": tokens, "predictions": predictions,
        "source": cut.source, "data_fingerprint": cut.fingerprint, "seconds": seconds});
    if let Protocol::Sliding { stride, .. } = protocol {
        document["stride"] = stride.into();
    }
    if a.language.bos == Bos::Every {
        document["bos"] = "every".into();
    }
    ui.result(&document, || {
        let error = error.map_or_else(String::new, |e| format!(" +- {e:.4}"));
        let stride = match protocol {
            Protocol::Sliding { stride, .. } => format!(", {stride} new in each"),
            _ => String::new(),
        };
        format!(
            "perplexity {value:.4}{error} on {} windows of {tokens} tokens{stride} ({}), {seconds:.1} s\n",
            losses.len(),
            cut.source
        )
    })
}

fn protocol(a: &Eval, model: &Model) -> Result<Protocol> {
    let length = a.tokens.unwrap_or(TOKENS);
    if a.language.stride.is_some() && a.language.protocol != ProtocolName::Sliding {
        return Err(Usage("--stride goes with --protocol sliding".to_owned()).into());
    }
    Ok(match a.language.protocol {
        ProtocolName::Segments => Protocol::Segments { length },
        ProtocolName::Sliding => {
            Protocol::Sliding { length, stride: a.language.stride.unwrap_or((length / 2).max(1)) }
        }
        ProtocolName::Full => match a.tokens.or_else(|| context_length(model)) {
            Some(length) => Protocol::Full { length },
            None => bail!("{}: its config has no max_position_embeddings: give --tokens", a.model.display()),
        },
    })
}

fn cut(a: &Eval, model: &Model, protocol: Protocol, device: &Device, ui: &Ui) -> Result<Cut> {
    let only_segments = |what: &str| match protocol {
        Protocol::Segments { .. } if a.language.bos == Bos::First => Ok(()),
        _ => Err(Usage(format!(
            "{what} has windows of its own: --protocol segments and --bos first go with it"
        ))),
    };
    if let Some(range) = a.data.as_ref().filter(|r| is_token_file(&r.path)) {
        only_segments("a file of token ids")?;
        return Ok(token_windows(&range.path, "evaluation", vocabulary(model)?)?.into());
    }
    let tokenizer = tokenizer(model)?;
    if let Some(range) = &a.data {
        let bos = match a.language.bos {
            Bos::First => None,
            Bos::Every if tokenizer.bos().is_some() => tokenizer.bos(),
            Bos::Every => {
                bail!("{}: its tokenizer has no token for the beginning: leave --bos out", a.model.display())
            }
        };
        let encode = |text: &str| encode(&tokenizer, text);
        return Ok(protocol.cut(range, a.windows, bos, &encode)?);
    }
    only_segments("text that the model writes")?;
    let other = a.text_from.as_deref().map(open_model).transpose()?;
    let writer = other.as_ref().unwrap_or(model);
    let weights = ModelWeights::new(writer.only()?, device, Residence::Memory);
    let request = (a.windows.unwrap_or(OWN_WINDOWS), protocol.length(), a.seed);
    Ok(own_text(writer, &tokenizer, &weights, device, request, ui)?.into())
}

/// The longest sequence that a model was made for, where its config says.
pub fn context_length(model: &Model) -> Option<usize> {
    let keys = ["max_position_embeddings", "n_positions"];
    let found = keys.iter().find_map(|k| model.config.get(*k)?.as_u64());
    found.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 1)
}

/// Bytes of activations and caches where the longest sequence has `tokens`.
pub fn pass_bytes(model: &Model, tokens: usize) -> Result<u64> {
    // A longer sequence runs in pieces of as many, shorter ones together.
    let rows = PASS_TOKENS;
    let held = Held { rows, inner: rows, streams: 0, logits: logit_rows(model).min(rows) };
    // Caches once where they are made and once where they are read.
    Ok(held_bytes(model, &held) + 2 * cache_bytes(model.graph()?, rows.max(tokens)))
}
