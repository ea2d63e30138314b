//! `pomona eval --task repetition`.

use std::time::Instant;

use anyhow::Result;
use pomona_exec::Device;
use pomona_models::Model;
use pomona_models::tokenizer::Tokenizer;
use pomona_task::{
    Decoding, ModelWeights, Repetition, Windows, even_windows, generate, is_token_file, repetition,
    token_windows,
};
use serde_json::{Value, json};

use super::eval::pass_bytes;
use crate::args::{Eval, Usage};
use crate::context::{encode, residence, tokenizer, vocabulary};
use crate::ui::Ui;

/// Tokens of the runs that are counted.
pub const NGRAM: usize = 4;
/// Pieces of the data, where no number is given.
const PROMPTS: usize = 16;

pub fn measure(a: &Eval, model: &Model, ui: &Ui) -> Result<()> {
    let (given, added) = (a.language.prompt_tokens, a.language.new_tokens);
    let tokenizer = tokenizer(model)?;
    let windows = windows(a, model, &tokenizer)?;
    let prompts: Vec<Vec<u32>> = windows.ids.iter().map(|w| w[..given].to_vec()).collect();
    let device = Device::cpu();
    let residence = residence(model.only()?, false, pass_bytes(model, prompts.len() * (given + added))?, ui)?;
    let weights = ModelWeights::new(model.only()?, &device, residence);
    let bar = ui.bar("writing text");
    bar.set_length(added as u64);
    // An end of sequence does not end anything here: texts of one length compare.
    let decoding =
        Decoding { new_tokens: added, choice: a.sampling.choice(), seed: a.seed, stop: Vec::new() };
    let began = Instant::now();
    let made = generate(model.graph()?, &weights, &device, &prompts, &decoding, &mut |_| {
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    let made = made?;
    let seconds = began.elapsed().as_secs_f64();
    let found: Vec<Repetition> = made.ids.iter().map(|ids| repetition(ids, NGRAM)).collect();
    // What stands in the data behind the same prompts, where it is known: the control.
    let own: Vec<Repetition> = windows
        .ids
        .iter()
        .filter(|w| w.len() >= given + added)
        .map(|w| repetition(&w[given..given + added], NGRAM))
        .collect();
    let looping = found.iter().filter(|r| r.ends_in_loop).count();
    let (share, error) = repeated(&found);
    let document = json!({"task": "repetition", "ngram": NGRAM, "repeated": share, "repeated_stderr": error,
        "ending_in_a_loop": looping, "longest_loop": longest(&found, &made.ids, &tokenizer)?,
        "data_repeated": (!own.is_empty()).then(|| repeated(&own).0), "prompts": prompts.len(),
        "prompt_tokens": given, "new_tokens": added, "temperature": a.sampling.temperature,
        "top_k": a.sampling.top_k, "top_p": a.sampling.top_p, "seed": a.seed, "source": windows.source,
        "data_fingerprint": windows.fingerprint, "tokens_per_second": made.tokens_per_second(), "seconds": seconds});
    ui.result(&document, || {
        let loops = found.iter().filter_map(|r| r.longest).max_by_key(|l| l.tokens);
        let loops = loops.map_or_else(String::new, |l| format!(" (the longest {} tokens of {})", l.tokens, l.period));
        let own = if own.is_empty() { String::new() } else { format!(", {:.2} % in the data", 100.0 * repeated(&own).0) };
        format!(
            "repeated runs of {NGRAM} tokens {:.2} +- {:.2} %{own}; {looping} of {} texts end in a loop{loops}; {given} tokens given, {added} added ({}), {seconds:.1} s\n",
            100.0 * share,
            100.0 * error,
            found.len(),
            windows.source
        )
    })
}

fn windows(a: &Eval, model: &Model, tokenizer: &Tokenizer) -> Result<Windows> {
    let (given, added) = (a.language.prompt_tokens, a.language.new_tokens);
    let Some(range) = &a.data else {
        return Err(
            Usage("--task repetition needs --data, a text whose pieces are continued".to_owned()).into()
        );
    };
    if is_token_file(&range.path) {
        let mut windows = token_windows(&range.path, "evaluation", vocabulary(model)?)?;
        windows.ids.truncate(a.windows.unwrap_or(usize::MAX));
        if windows.ids.iter().any(|w| w.len() < given) {
            return Err(Usage(format!(
                "{}: its windows are shorter than {given} tokens",
                range.path.display()
            ))
            .into());
        }
        return Ok(Windows::new(windows.ids, windows.source));
    }
    let count = a.windows.unwrap_or(PROMPTS);
    Ok(even_windows(range, Some(count), given + added, &|text| encode(tokenizer, text))?)
}

/// Mean share over texts of one length, and its standard error.
fn repeated(all: &[Repetition]) -> (f64, f64) {
    let shares: Vec<f64> = all.iter().map(|r| r.repeated as f64 / r.ngrams.max(1) as f64).collect();
    let n = shares.len().max(1) as f64;
    let mean = shares.iter().sum::<f64>() / n;
    let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}

/// The longest loop of all texts, with its phrase.
fn longest(all: &[Repetition], ids: &[Vec<u32>], tokenizer: &Tokenizer) -> Result<Option<Value>> {
    let found = all.iter().zip(ids).filter_map(|(r, ids)| Some((r.longest?, ids)));
    let Some((l, ids)) = found.max_by_key(|(l, _)| l.tokens) else { return Ok(None) };
    let phrase = tokenizer.decode(&ids[l.start..l.start + l.period])?;
    Ok(Some(json!({"tokens": l.tokens, "period": l.period, "phrase": phrase})))
}
