//! Losses of stretches of text, each predicted from its own beginning.

use super::head::Head;
use super::{Language, PASS_TOKENS};
use crate::error::{Result, TaskError};
use crate::language::{empty_states, token_feeds};
use crate::objective::SampleLoss;

/// Tokens, of which those from `from` on are predicted, each from all before it in the stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Token ids.
    pub ids: Vec<u32>,
    /// First predicted one, 1 at least: nothing stands before the first.
    pub from: usize,
}

/// The loss of every stretch. Neighbours of one length run together; a stretch longer than [`PASS_TOKENS`] runs piece by
/// piece with caches. `advance` is told of tokens that were run.
///
/// # Errors
/// Where the graph is no language model or cannot be run, and where it gives NaN.
pub fn stretch_losses(
    lm: Language<'_>,
    stretches: &[Stretch],
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<SampleLoss>> {
    let head = Head::of(lm.graph)?;
    let mut losses = Vec::with_capacity(stretches.len());
    while losses.len() < stretches.len() {
        let rest = &stretches[losses.len()..];
        let length = rest[0].ids.len();
        if length < 2 {
            return Err(TaskError::Unfit("a stretch of text has fewer than 2 tokens".to_owned()));
        }
        let fitting = rest.iter().take_while(|s| s.ids.len() == length).count();
        let batch = &rest[..fitting.min(PASS_TOKENS / length).max(1)];
        losses.extend(batch_losses(lm, &head, batch, advance)?);
    }
    Ok(losses)
}

/// Stretches of one length.
fn batch_losses(
    lm: Language<'_>,
    head: &Head,
    batch: &[Stretch],
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<SampleLoss>> {
    let length = batch[0].ids.len();
    let mut losses = vec![SampleLoss { sum: 0.0, count: 0 }; batch.len()];
    let mut states = empty_states(lm.graph, batch.len(), lm.device)?;
    let mut at = 0;
    while at < length {
        let end = (at + (PASS_TOKENS / batch.len()).max(1)).min(length);
        // Caches are the only way to a later piece.
        let end = if lm.graph.states.is_empty() { length } else { end };
        let ids: Vec<&[u32]> = batch.iter().map(|s| &s.ids[at..end]).collect();
        let mut feeds = token_feeds(lm.graph, &ids, at, lm.device)?;
        feeds.extend(states);
        let mut wanted = vec![head.input];
        if end < length {
            wanted.extend(lm.graph.states.iter().map(|s| s.output));
        }
        let mut found = lm.run(&feeds, &wanted)?.into_iter();
        drop(feeds);
        let Some(hidden) = found.next() else { break };
        states = lm.graph.states.iter().map(|s| s.input).zip(found).collect();
        let mut picks = Vec::new();
        let mut of = Vec::new();
        for (b, stretch) in batch.iter().enumerate() {
            for target in (at + 1).max(stretch.from)..(end + 1).min(length) {
                picks.push((b * (end - at) + target - 1 - at, stretch.ids[target]));
                of.push(b);
            }
        }
        for (b, nll) in of.into_iter().zip(head.nll(lm, &hidden, &picks)?) {
            losses[b].sum += nll;
            losses[b].count += 1;
        }
        advance((end - at) * batch.len())?;
        at = end;
    }
    Ok(losses)
}
