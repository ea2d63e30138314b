//! The end of a language model: from the stream that its vocabulary-wide layer reads to the logits.

use pomona_exec::{Feeds, Tensor, log_sum_exp};
use pomona_graph::{Dim, Graph, ValueId};

use super::{Language, not_a_number};
use crate::error::{Result, TaskError};
use crate::objective::rows_at_once;

/// Where logits begin and end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// What the vocabulary-wide layer reads, `[batch, tokens, width]`; the logits themselves where there is no such layer.
    pub input: ValueId,
    logits: ValueId,
}

impl Head {
    /// Walks from the logits back over operators of one input to the first that made the vocabulary's axis.
    pub fn of(graph: &Graph) -> Result<Head> {
        let logits = graph.output("logits").ok_or_else(|| {
            TaskError::Unfit(format!(
                "graph `{}` has no output `logits`: it is not a language model",
                graph.name
            ))
        })?;
        let last = |v: ValueId| -> Option<&Dim> { graph.value(v).shape.last() };
        let producers = graph.producers();
        let mut at = logits;
        while let Some((id, 0)) = producers.get(at.0 as usize).copied().flatten() {
            let node = graph.node(id);
            let ([input], [_]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { break };
            if graph.value(*input).shape.len() != 3 {
                break;
            }
            if last(*input) != last(logits) {
                return Ok(Head { input: *input, logits });
            }
            at = *input;
        }
        Ok(Head { input: logits, logits })
    }

    /// Negative log-likelihoods, in nats, of picked tokens: a row of the hidden stream (batch by tokens, flat) and the
    /// token that is to follow it. Rows that are picked several times are computed once.
    pub fn nll(&self, lm: Language<'_>, hidden: &Tensor, picks: &[(usize, u32)]) -> Result<Vec<f64>> {
        let mut rows: Vec<usize> = picks.iter().map(|(row, _)| *row).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut order: Vec<usize> = (0..picks.len()).collect();
        order.sort_by_key(|i| picks[*i].0);
        let mut out = vec![0.0; picks.len()];
        let mut next = 0;
        /// Where the vocabulary's size is no number.
        const ROWS: usize = 128;
        let vocab = lm.graph.value(self.logits).shape.last().and_then(Dim::as_int);
        let many = vocab.and_then(|v| usize::try_from(v).ok()).map_or(ROWS, rows_at_once);
        for some in rows.chunks(many) {
            let logits = self.logits(lm, hidden, some)?;
            let vocab = logits.shape().last().copied().unwrap_or(1);
            let found = logits.with_f32(|values| {
                let sums = log_sum_exp(values, vocab);
                let mut found = Vec::new();
                while let Some(&pick) = order.get(next)
                    && let Ok(k) = some.binary_search(&picks[pick].0)
                {
                    let logit = values[k * vocab..(k + 1) * vocab].get(picks[pick].1 as usize);
                    found.push((pick, logit.map_or(f64::INFINITY, |l| sums[k] - f64::from(*l))));
                    next += 1;
                }
                found
            })?;
            for (pick, nll) in found {
                if nll.is_nan() {
                    return Err(not_a_number());
                }
                if nll == f64::INFINITY && picks[pick].1 as usize >= vocab {
                    let token = picks[pick].1;
                    return Err(TaskError::Unfit(format!(
                        "token {token} is outside the model's vocabulary of {vocab}: tokenizer and model do not belong together"
                    )));
                }
                out[pick] = nll;
            }
        }
        Ok(out)
    }

    fn logits(&self, lm: Language<'_>, hidden: &Tensor, rows: &[usize]) -> Result<Tensor> {
        let width = hidden.shape().last().copied().unwrap_or(1);
        let picked = hidden.with_f32(|values| {
            let mut picked = Vec::with_capacity(rows.len() * width);
            rows.iter().for_each(|r| picked.extend_from_slice(&values[r * width..(r + 1) * width]));
            picked
        })?;
        self.of_stream(lm, Tensor::from_f32(picked, &[1, rows.len(), width], lm.device)?)
    }

    /// Logits of a stream `[batch, tokens, width]`.
    pub fn of_stream(&self, lm: Language<'_>, stream: Tensor) -> Result<Tensor> {
        if self.input == self.logits {
            return Ok(stream);
        }
        let feeds = Feeds::from([(self.input, stream)]);
        Ok(lm.run(&feeds, &[self.logits])?.remove(0))
    }
}
