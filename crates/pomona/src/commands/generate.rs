//! `pomona generate`.

use anyhow::{Result, bail};
use pomona_exec::Device;
use pomona_models::tokenizer::{ChatMessage, ChatOptions};
use pomona_task::{Decoding, ModelWeights, TaskError, generate, repetition};

use crate::args::Generate;
use crate::context::{activation_bytes, check_runs, open_model, residence, tokenizer};
use crate::ui::Ui;

use super::eval_repetition::NGRAM;

pub fn run(a: &Generate, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    check_runs(&model)?;
    if let (Some(windows), Some(out)) = (a.windows, &a.output) {
        return super::written::run(a, &model, windows, out, ui);
    }
    let prompt = a.prompt.as_deref().unwrap_or_default();
    let tokenizer = tokenizer(&model)?;
    let ids = if a.chat {
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        let text = tokenizer.render_chat(&[ChatMessage::new("user", prompt)], &options)?;
        // The template writes the special tokens itself.
        tokenizer.encode(&text, false)?
    } else {
        tokenizer.encode(prompt, true)?
    };
    if ids.is_empty() {
        bail!("the prompt has no tokens: give some text");
    }
    let device = Device::cpu();
    let residence = residence(model.only()?, false, activation_bytes(&model, 1, ids.len(), 0), ui)?;
    let weights = ModelWeights::new(model.only()?, &device, residence);
    let stop = if a.no_stop { Vec::new() } else { tokenizer.special().eos.clone() };
    let decoding = Decoding { new_tokens: a.new_tokens, choice: a.sampling.choice(), seed: a.seed, stop };
    let mut stream = tokenizer.stream();
    let mut text = String::new();
    let made =
        generate(model.graph()?, &weights, &device, std::slice::from_ref(&ids), &decoding, &mut |token| {
            let fault = |e: String| TaskError::Unfit(e);
            let piece = if tokenizer.is_eos(token) {
                String::new()
            } else {
                stream.push(token).map_err(|e| fault(e.to_string()))?
            };
            text += &piece;
            ui.stream(&piece).map_err(|e| fault(e.to_string()))
        })?;
    let rest = stream.finish()?;
    ui.stream(&rest)?;
    text += &rest;
    let rate = made.tokens_per_second();
    let prefill = made.prompt_tokens_per_second();
    if ui.json() {
        let repeats = repetition(&made.ids[0], NGRAM);
        let longest = repeats.longest.map(|l| serde_json::json!({"tokens": l.tokens, "period": l.period}));
        let document = serde_json::json!({"prompt_ids": ids, "ids": made.ids[0], "text": text,
            "repeated_4grams": repeats.repeated as f64 / repeats.ngrams.max(1) as f64, "longest_loop": longest,
            "tokens_per_second": rate, "prompt_tokens_per_second": prefill});
        return ui.result(&document, String::new);
    }
    ui.stream("\n")?;
    ui.say(format!("{} tokens, {rate:.1} tokens/s (prompt {prefill:.1} tokens/s)", made.ids[0].len()));
    Ok(())
}
