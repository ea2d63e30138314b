//! `pomona eval --task choice`.

use std::time::Instant;

use anyhow::Result;
use pomona_exec::Device;
use pomona_models::Model;
use pomona_models::tokenizer::Tokenizer;
use pomona_task::choice::{Answers, Questions, Share, read_questions, requests};
use pomona_task::{Language, ModelWeights, TaskError, log_likelihoods, passes_beside};

use super::eval::{context_length, pass_bytes};
use crate::args::{Eval, Usage};
use crate::context::{residence, tokenizer};
use crate::ui::Ui;

pub fn choice(a: &Eval, model: &Model, ui: &Ui) -> Result<()> {
    let Some(data) = &a.data else {
        return Err(Usage("--task choice needs --data, a file of questions".to_owned()).into());
    };
    let questions = read_questions(data, a.language.layout.0, a.language.limit)?;
    let own = a.language.prompt.as_ref().map(|p| p.replace("\\n", "\n"));
    let template = questions.layout.template(own.as_deref())?;
    let tokenizer = tokenizer(model)?;
    let longest = context_length(model).unwrap_or(usize::MAX);
    let encode = |text: &str| -> pomona_task::Result<Vec<u32>> {
        tokenizer.encode(text, false).map_err(|e| TaskError::Unfit(e.to_string()))
    };
    let (all, shortened) = requests(&questions.all, template, front(&tokenizer), longest, &encode)
        .map_err(|e| anyhow::Error::from(e).context(data.path.display().to_string()))?;
    let tokens = all.iter().map(|r| r.context.len() + r.continuation.len()).max().unwrap_or(0);
    let device = Device::cpu();
    let activations = pass_bytes(model, tokens)?.saturating_mul(passes_beside() as u64);
    let residence = residence(model.only()?, false, activations, ui)?;
    let weights = ModelWeights::new(model.only()?, &device, residence);
    let bar = ui.bar("evaluating");
    bar.set_length(all.len() as u64);
    let began = Instant::now();
    let language = Language { graph: model.graph()?, weights: &weights, device: &device };
    let found = log_likelihoods(language, &all, &mut |done| {
        bar.inc(done as u64);
        Ok(())
    });
    bar.finish_and_clear();
    let answers = Answers::new(&questions.all, &found?);
    if let Some(file) = &a.language.keep_answers {
        pomona_store::write_atomic(file, lines(&answers)?.as_bytes())?;
    }
    report(&questions, (template, shortened), &answers, began.elapsed().as_secs_f64(), ui)
}

/// What stands in front of every text, and what stands for an empty one.
fn front(tokenizer: &Tokenizer) -> (Option<u32>, Option<u32>) {
    let special = tokenizer.special();
    (special.bos.filter(|_| special.add_bos), special.bos.or(special.eos.first().copied()))
}

fn lines(answers: &Answers) -> Result<String> {
    let mut out = String::new();
    for scored in &answers.scored {
        out += &serde_json::to_string(scored)?;
        out.push('\n');
    }
    Ok(out)
}

fn report(
    questions: &Questions,
    (template, shortened): (&str, usize),
    answers: &Answers,
    seconds: f64,
    ui: &Ui,
) -> Result<()> {
    let (acc, norm, characters) = (answers.acc(), answers.acc_norm(), answers.acc_characters());
    let options: usize = answers.scored.iter().map(|s| s.log_likelihoods.len()).sum();
    let document = serde_json::json!({"task": "choice", "layout": questions.layout.name(), "prompt": template,
        "questions": questions.all.len(), "options": options, "acc": acc.value, "acc_stderr": acc.standard_error,
        "acc_norm": norm.value, "acc_norm_stderr": norm.standard_error, "acc_norm_characters": characters.value,
        "chance": answers.chance(), "shortened": shortened, "source": questions.source,
        "data_fingerprint": questions.fingerprint, "seconds": seconds});
    let percent = |s: Share| format!("{:.2} +- {:.2} %", 100.0 * s.value, 100.0 * s.standard_error);
    ui.result(&document, || {
        let cut = match shortened {
            0 => String::new(),
            n => format!("; {n} prompts were longer than the context and lost their beginning"),
        };
        format!(
            "acc {}, acc_norm {}, chance {:.2} % on {} questions ({}, layout {}), {seconds:.1} s{cut}\n",
            percent(acc),
            percent(norm),
            100.0 * answers.chance(),
            questions.all.len(),
            questions.source,
            questions.layout.name()
        )
    })
}
