//! Options of `pomona eval` for language models.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pomona_task::Choice;
use pomona_task::choice::Layout;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolName {
    /// Windows that do not overlap (128 tokens in Shortened LLaMA)
    Segments,
    /// Windows that overlap; every token but the first is predicted once
    Sliding,
    /// Every token from everything before it, up to the model's context
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bos {
    /// Where the tokenizer puts it: before the text
    First,
    /// Before every window
    Every,
}

#[derive(Clone, Debug, Args)]
pub struct LanguageOptions {
    /// perplexity: what is predicted from how much text before it
    #[arg(long, value_enum, default_value = "segments")]
    pub protocol: ProtocolName,
    /// perplexity, sliding: new tokens of each window; half a window without it
    #[arg(long, value_name = "TOKENS")]
    pub stride: Option<usize>,
    /// perplexity: where the token for the beginning stands
    #[arg(long, value_enum, default_value = "first")]
    pub bos: Bos,
    /// choice: layout of the questions (arc, piqa, winogrande, hellaswag, openbookqa, boolq, siqa, instruction, plain);
    /// found out from their keys with auto
    #[arg(long, default_value = "auto", value_parser = layout)]
    pub layout: LayoutChoice,
    /// choice: the prompt, with {question}, {passage} where there is one and \n; that of lm-evaluation-harness without it
    #[arg(long)]
    pub prompt: Option<String>,
    /// choice: the first N questions only
    #[arg(long, value_name = "N", value_parser = super::args::at_least::<1>)]
    pub limit: Option<usize>,
    /// repetition: tokens of the text that are given
    #[arg(long, default_value_t = 32, value_parser = super::args::at_least::<1>)]
    pub prompt_tokens: usize,
    /// repetition: tokens that the model adds to each, past an end of sequence too
    #[arg(long, default_value_t = 128, value_parser = super::args::at_least::<4>)]
    pub new_tokens: usize,
    /// choice: keep every option's log-likelihood in this file, a JSON line a question
    #[arg(long, value_name = "FILE")]
    pub keep_answers: Option<PathBuf>,
}

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, Args)]
pub struct Sampling {
    /// 0 takes the most likely token each time
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Only the K most likely tokens; 0 for all
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
}

impl Sampling {
    /// As the decoder takes it.
    pub fn choice(&self) -> Choice {
        match self.temperature > 0.0 {
            true => Choice::Sample { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p },
            false => Choice::Greedy,
        }
    }
}

/// A layout, or none for the one that the keys tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutChoice(pub Option<Layout>);

fn layout(s: &str) -> Result<LayoutChoice, String> {
    if s == "auto" { Ok(LayoutChoice(None)) } else { s.parse().map(|l| LayoutChoice(Some(l))) }
}
