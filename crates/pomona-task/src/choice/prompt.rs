//! From questions to tokens: prompts, and where a continuation begins.

use super::{Layout, Question};
use crate::error::{Result, TaskError};
use crate::likelihood::Request;

/// A prompt and what is scored after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The prompt.
    pub context: String,
    /// What is scored, the space before it included.
    pub continuation: String,
}

impl Question {
    /// Prompt and continuation of every option; `template` has `{question}` and may have `{passage}`.
    pub fn pairs(&self, template: &str) -> Vec<Pair> {
        let prompt = filled(template, &self.text, &self.passage);
        let context = |k: usize| self.stems.get(k).unwrap_or(&prompt).clone();
        let pair =
            |(k, option): (usize, &String)| Pair { context: context(k), continuation: format!(" {option}") };
        self.options.iter().enumerate().map(pair).collect()
    }
}

fn filled(template: &str, question: &str, passage: &str) -> String {
    // One walk, so that braces in a question are left alone.
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        out += &rest[..at];
        rest = &rest[at..];
        let (text, mark) = match rest {
            r if r.starts_with("{question}") => (question, "{question}"),
            r if r.starts_with("{passage}") => (passage, "{passage}"),
            _ => ("{", "{"),
        };
        out += text;
        rest = &rest[mark.len()..];
    }
    out + rest
}

impl Layout {
    /// The prompt to use: the set's own, or one that the user gives.
    ///
    /// # Errors
    /// A prompt without `{question}`, or one for a set whose options stand in the question.
    pub fn template(self, own: Option<&str>) -> Result<&str> {
        match (self.prompt(), own) {
            (None, Some(_)) => Err(TaskError::Unfit(format!(
                "layout {}: the options stand in the question, which is the prompt: leave --prompt out",
                self.name()
            ))),
            (_, Some(own)) if !own.contains("{question}") => {
                Err(TaskError::Unfit(format!("the prompt `{own}` has no `{{question}}`")))
            }
            (_, Some(own)) => Ok(own),
            (theirs, None) => Ok(theirs.unwrap_or("")),
        }
    }
}

/// Tokens of a pair. Both texts are tokenized together and the context alone; the continuation is what the context's
/// number of tokens leaves, so that spaces between them belong to the continuation. What is longer than `longest` tokens
/// loses its beginning. `front` is what the tokenizer puts in front of every text; `lone` stands for an empty context.
fn request(
    pair: &Pair,
    (front, lone): (Option<u32>, Option<u32>),
    longest: usize,
    encode: &dyn Fn(&str) -> Result<Vec<u32>>,
) -> Result<(Request, bool)> {
    let bare = pair.context.trim_end();
    let spaces = &pair.context[bare.len()..];
    let whole = format!("{bare}{spaces}{}", pair.continuation);
    let with_front =
        |text: &str| -> Result<Vec<u32>> { Ok(front.into_iter().chain(encode(text)?).collect()) };
    let (mut context, mut continuation) = if bare.is_empty() {
        let lone = lone.ok_or_else(|| {
            TaskError::Unfit(
                "the prompt is empty, and the tokenizer has no token for the beginning".to_owned(),
            )
        })?;
        (vec![lone], encode(&whole)?)
    } else {
        let context = with_front(bare)?;
        let mut all = with_front(&whole)?;
        let continuation = all.split_off(context.len().min(all.len()));
        (context, continuation)
    };
    if continuation.is_empty() {
        return Err(TaskError::Unfit(format!(
            "the continuation `{}` has no tokens of its own",
            pair.continuation
        )));
    }
    // The last token is predicted, never read.
    let over = (context.len() + continuation.len()).saturating_sub(longest.saturating_add(1));
    let dropped = over.min(context.len() - 1);
    context.drain(..dropped);
    if over > dropped {
        return Err(TaskError::Unfit(format!(
            "the continuation has {} tokens, and the model's context is {longest}",
            continuation.len()
        )));
    }
    continuation.shrink_to_fit();
    Ok((Request { context, continuation }, over > 0))
}

/// Requests of all options of all questions, in order, and how many had to lose their beginning. `longest` is the
/// model's context in tokens; `encode` tokenizes without special tokens.
///
/// # Errors
/// What cannot be tokenized or does not fit the model, with the question's line.
pub fn requests(
    questions: &[Question],
    template: &str,
    (front, lone): (Option<u32>, Option<u32>),
    longest: usize,
    encode: &dyn Fn(&str) -> Result<Vec<u32>>,
) -> Result<(Vec<Request>, usize)> {
    let mut all = Vec::new();
    let mut shortened = 0;
    for question in questions {
        for pair in question.pairs(template) {
            let (request, lost) = request(&pair, (front, lone), longest, encode)
                .map_err(|e| TaskError::Unfit(format!("question of line {}: {e}", question.line)))?;
            shortened += usize::from(lost);
            all.push(request);
        }
    }
    Ok((all, shortened))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A token a word, the space before it included.
    fn words(text: &str) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = Vec::new();
        for c in text.chars() {
            if ids.is_empty() || c == ' ' {
                ids.push(0);
            }
            let last = ids.last_mut().unwrap();
            *last = last.wrapping_mul(31).wrapping_add(u32::from(c));
        }
        Ok(ids)
    }

    #[test]
    fn spaces_before_a_continuation_are_its_own() {
        let pair = Pair { context: "a b ".to_owned(), continuation: "c".to_owned() };
        let (found, lost) = request(&pair, (None, None), 99, &words).unwrap();
        assert_eq!(found.context, words("a b").unwrap());
        assert_eq!(found.continuation, words(" c").unwrap());
        assert!(!lost);
    }

    #[test]
    fn a_long_context_loses_its_beginning() {
        let pair = Pair { context: "a b c d".to_owned(), continuation: " e f".to_owned() };
        let at = |longest| request(&pair, (Some(9), None), longest, &words);
        let (whole, lost) = at(6).unwrap();
        assert_eq!((whole.context.len(), lost), (5, false), "the last token is not read");
        let (cut, lost) = at(3).unwrap();
        assert_eq!((cut.context, lost), (words("a b c d").unwrap()[2..].to_vec(), true));
        assert!(at(1).unwrap_err().to_string().contains("2 tokens"), "nothing of the context is left");
    }

    #[test]
    fn an_empty_context_is_the_first_token() {
        let pair = Pair { context: String::new(), continuation: " e".to_owned() };
        let (found, _) = request(&pair, (None, Some(7)), 9, &words).unwrap();
        assert_eq!((found.context, found.continuation.len()), (vec![7], 1));
        assert!(request(&pair, (None, None), 9, &words).is_err());
    }

    #[test]
    fn templates_are_filled_once() {
        let q =
            Question { text: "{passage}?".to_owned(), options: vec!["x".to_owned()], ..Question::default() };
        assert_eq!(q.pairs("Q {question}{ A")[0].context, "Q {passage}?{ A");
        assert!(Layout::Arc.template(Some("Q:")).is_err());
        assert!(Layout::Winogrande.template(Some("{question}")).is_err());
        assert_eq!(Layout::Siqa.template(None).unwrap(), "Q: {question}\nA:");
    }
}
