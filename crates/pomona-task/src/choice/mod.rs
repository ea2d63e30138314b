//! Multiple choice by log-likelihood: the option that the model finds likeliest after the question is its answer. Prompts
//! and scoring are those of EleutherAI's lm-evaluation-harness.

mod layout;
mod prompt;
mod read;
mod score;

pub use layout::Layout;
pub use prompt::{Pair, requests};
pub use read::{Questions, read_questions};
pub use score::{Answers, Share};

/// A question with its options, whatever the layout of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Line of the file, or place in its list, from 1.
    pub line: usize,
    /// The question.
    pub text: String,
    /// A text that the question is about; empty without one.
    pub passage: String,
    /// What stands before each option, where that differs by option (WinoGrande); else empty.
    pub stems: Vec<String>,
    /// The options.
    pub options: Vec<String>,
    /// The right one.
    pub answer: usize,
}
