//! Text for language models: windows, packed documents, prompts with responses.

use anyhow::{Result, bail};
use pomona_models::Model;
use pomona_models::tokenizer::{ChatMessage, ChatOptions, Tokenizer};
use pomona_task::{TaskError, TextRange, holds_windows, token_windows};
use pomona_train::TrainError;
use pomona_train::data::{Examples, Packed, Pair, Records, read_records};

use super::Read;
use crate::args::Usage;
use crate::context::{tokenizer, vocabulary};
use crate::train_args::TrainOptions;

/// Reads all files.
pub fn read(model: &Model, files: &[TextRange], o: &TrainOptions) -> Result<Read<'static>> {
    if let [one] = files
        && holds_windows(&one.path)
    {
        let windows = token_windows(&one.path, "training", vocabulary(model)?)?;
        return Ok(Read::alone(Packed::windows(&windows)));
    }
    let tokenizer = tokenizer(model)?;
    let end = tokenizer.special().eos.first().copied();
    let encode = |text: &str, begins: bool| tokenizer.encode(text, begins).map_err(unfit);
    let chat = |messages: &[(String, String)]| render(&tokenizer, messages);
    let (mut texts, mut pairs) = (Vec::new(), Vec::new());
    for range in files {
        match read_records(range, o.layout, &chat)? {
            Records::Texts(more) => texts.extend(more),
            Records::Pairs(more) => pairs.extend(more),
        }
    }
    match (texts.is_empty(), pairs.is_empty()) {
        (_, true) => {
            let stream = Records::stream(&texts, end, &encode)?;
            Ok(Read::alone(Packed::new(stream, o.seq, files)?))
        }
        (true, false) => Ok(Read::alone(Examples::new(&pairs, o.seq, end, &encode, files)?)),
        (false, false) => bail!(Usage(
            "--data has both texts, which are packed, and prompts with responses, which are not: train on one kind".to_owned()
        )),
    }
}

fn unfit(e: impl ToString) -> TrainError {
    TrainError::Task(TaskError::Unfit(e.to_string()))
}

/// All messages but the last through the chat template, up to where the answer begins; the last is the answer.
fn render(tokenizer: &Tokenizer, messages: &[(String, String)]) -> pomona_train::Result<Pair> {
    let Some(((_, answer), before)) = messages.split_last() else {
        return Err(unfit("a conversation has no messages"));
    };
    let before: Vec<ChatMessage> = before.iter().map(|(role, text)| ChatMessage::new(role, text)).collect();
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    let prompt = tokenizer.render_chat(&before, &options).map_err(unfit)?;
    Ok(Pair { prompt, response: answer.clone(), begins: false })
}
