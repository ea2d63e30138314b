//! Decoding with a KV cache: greedy or sampled, one or several sequences at a time.

use std::time::{Duration, Instant};

use pomona_exec::{Device, Tensor};
use pomona_graph::{Graph, ValueId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::data::Windows;
use crate::error::{Result, TaskError};
use crate::language::{empty_states, token_feeds};
use crate::likelihood::{Head, Language};
use crate::objective::Weights;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// The most likely one; the first of equals.
    Greedy,
    /// Drawn from the distribution.
    Sample {
        /// Divides the logits.
        temperature: f32,
        /// Only the most likely ones; 0 for all.
        top_k: usize,
        /// Only the most likely ones that together have this probability.
        top_p: f32,
    },
}

/// A decoding run.
#[derive(Clone, Debug)]
pub struct Decoding {
    /// Most tokens to add.
    pub new_tokens: usize,
    /// How tokens are chosen.
    pub choice: Choice,
    /// Seed of the draws.
    pub seed: u64,
    /// Tokens that end a sequence; they are kept as its last.
    pub stop: Vec<u32>,
}

/// What a decoding run made.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    /// New tokens of each sequence.
    pub ids: Vec<Vec<u32>>,
    /// Tokens of the prompts, all sequences.
    pub prompt_tokens: usize,
    /// Time for the prompts.
    pub prefill: Duration,
    /// Time for the new tokens after the first.
    pub decode: Duration,
}

impl Generated {
    /// New tokens a second after the prompt, over all sequences.
    pub fn tokens_per_second(&self) -> f64 {
        let tokens: usize = self.ids.iter().map(|s| s.len().saturating_sub(1)).sum();
        tokens as f64 / self.decode.as_secs_f64().max(1e-9)
    }

    /// Tokens of the prompts a second, over all sequences.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill.as_secs_f64().max(1e-9)
    }
}

/// Continues prompts of one length. `each` sees every new token of the first sequence as it is made.
pub fn generate(
    graph: &Graph,
    weights: &dyn Weights,
    device: &Device,
    prompts: &[Vec<u32>],
    decoding: &Decoding,
    each: &mut dyn FnMut(u32) -> Result<()>,
) -> Result<Generated> {
    let length = prompts.first().map_or(0, Vec::len);
    if length == 0 || prompts.iter().any(|p| p.len() != length) {
        return Err(TaskError::Unfit("prompts of one length of at least one token are needed".to_owned()));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(decoding.seed);
    let language = Language { graph, weights, device };
    let head = Head::of(graph)?;
    let wanted: Vec<ValueId> =
        std::iter::once(head.input).chain(graph.states.iter().map(|s| s.output)).collect();
    let mut states = empty_states(graph, prompts.len(), device)?;
    let mut made = Generated { ids: vec![Vec::new(); prompts.len()], ..Generated::default() };
    made.prompt_tokens = length * prompts.len();
    let mut done = vec![false; prompts.len()];
    let mut next: Vec<Vec<u32>> = prompts.to_vec();
    let mut position = 0;
    for round in 0..decoding.new_tokens {
        let began = Instant::now();
        let slices: Vec<&[u32]> = next.iter().map(Vec::as_slice).collect();
        let mut feeds = token_feeds(graph, &slices, position, device)?;
        feeds.extend(states);
        let tokens = next[0].len();
        position += tokens;
        let mut found = language.run(&feeds, &wanted)?.into_iter();
        drop(feeds);
        // Only the last position of a prompt is continued: the vocabulary-wide layer sees no other.
        let stream = found.next().map(|s| s.slice(1, tokens - 1..tokens)).transpose()?;
        let stream = stream.ok_or_else(|| TaskError::Unfit("a run gave nothing".to_owned()))?;
        states = graph.states.iter().map(|s| s.input).zip(found).collect();
        let chosen = choose_rows(&head.of_stream(language, stream)?, decoding.choice, &mut rng)?;
        let spent = began.elapsed();
        if round == 0 {
            made.prefill += spent
        } else {
            made.decode += spent
        }
        for (b, token) in chosen.iter().enumerate() {
            if !done[b] {
                made.ids[b].push(*token);
                done[b] = decoding.stop.contains(token);
                if b == 0 {
                    each(*token)?;
                }
            }
        }
        if done.iter().all(|d| *d) {
            break;
        }
        next = chosen.into_iter().map(|t| vec![t]).collect();
    }
    Ok(made)
}

/// A token for the last position of each sequence.
fn choose_rows(logits: &Tensor, choice: Choice, rng: &mut ChaCha8Rng) -> Result<Vec<u32>> {
    let [batch, tokens, vocab] = *logits.shape() else {
        return Err(TaskError::Unfit(format!("logits are {logits:?}; [batch, tokens, vocab] was expected")));
    };
    let last = logits.slice(1, tokens - 1..tokens)?.to_f32()?;
    if last.iter().any(|v| v.is_nan()) {
        return Err(TaskError::Unfit("the model gives NaN: its weights are damaged".to_owned()));
    }
    Ok((0..batch).map(|b| choose(&last[b * vocab..(b + 1) * vocab], choice, rng)).collect())
}

fn choose(row: &[f32], choice: Choice, rng: &mut ChaCha8Rng) -> u32 {
    let greedy = || {
        let best = row
            .iter()
            .enumerate()
            .fold((0, f32::NEG_INFINITY), |b, (i, v)| if *v > b.1 { (i, *v) } else { b });
        best.0 as u32
    };
    let Choice::Sample { temperature, top_k, top_p } = choice else { return greedy() };
    if temperature <= 0.0 {
        return greedy();
    }
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
    if top_k > 0 {
        order.truncate(top_k);
    }
    let max = row[order[0] as usize];
    let weight = |i: &u32| f64::from((row[*i as usize] - max) / temperature).exp();
    let total: f64 = order.iter().map(weight).sum();
    if top_p < 1.0 {
        let mut sum = 0.0;
        let keep = order.iter().position(|i| {
            sum += weight(i) / total;
            sum >= f64::from(top_p)
        });
        order.truncate(keep.map_or(order.len(), |k| k + 1));
    }
    let total: f64 = order.iter().map(weight).sum();
    let mut point = rng.random::<f64>() * total;
    for i in &order {
        point -= weight(i);
        if point <= 0.0 {
            return *i;
        }
    }
    order[order.len() - 1]
}

/// Calibration text that the model writes itself: from one random token each, sampled at temperature 1.
///
/// `allowed` tells which tokens may begin a window (no control tokens).
pub fn self_generated(
    graph: &Graph,
    weights: &dyn Weights,
    device: &Device,
    request: &SelfText<'_>,
    advance: &mut dyn FnMut() -> Result<()>,
) -> Result<Windows> {
    let SelfText { count, length, seed, .. } = *request;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    if request.starts.is_empty() || count == 0 || length < 2 {
        return Err(TaskError::Unfit(
            "text can be generated from at least one token, to windows of 2 or more".to_owned(),
        ));
    }
    let prompts: Vec<Vec<u32>> =
        (0..count).map(|_| vec![request.starts[rng.random_range(0..request.starts.len())]]).collect();
    let decoding = Decoding {
        new_tokens: length - 1,
        choice: Choice::Sample { temperature: 1.0, top_k: 0, top_p: 1.0 },
        seed: rng.random(),
        stop: Vec::new(),
    };
    let made = generate(graph, weights, device, &prompts, &decoding, &mut |_| advance())?;
    let ids = prompts.into_iter().zip(made.ids).map(|(p, n)| p.into_iter().chain(n).collect()).collect();
    Ok(Windows::new(ids, format!("text that the model wrote, seed {seed}")))
}

/// What [`self_generated`] writes.
#[derive(Clone, Copy, Debug)]
pub struct SelfText<'a> {
    /// Number of windows.
    pub count: usize,
    /// Tokens of each, the first included.
    pub length: usize,
    /// Seed of first tokens and draws.
    pub seed: u64,
    /// Tokens that may begin a window.
    pub starts: &'a [u32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_follow_their_rules() {
        let row = [0.0, 3.0, 3.0, 1.0];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(choose(&row, Choice::Greedy, &mut rng), 1, "the first of equals");
        let mut draw = |top_k, top_p| {
            let choice = Choice::Sample { temperature: 1.0, top_k, top_p };
            let mut seen = [0; 4];
            for _ in 0..4000 {
                seen[choose(&row, choice, &mut rng) as usize] += 1;
            }
            seen
        };
        let [a, b, c, d] = draw(2, 1.0);
        assert_eq!((a, d), (0, 0));
        assert!(b > 1700 && c > 1700);
        let all = draw(0, 1.0);
        // e^0, e^3, e^3, e^1 of their sum.
        let expected = [0.0228, 0.4576, 0.4576, 0.0620].map(|p| p * 4000.0);
        assert!(all.iter().zip(expected).all(|(n, e)| (f64::from(*n) - e).abs() < 120.0), "{all:?}");
        let nucleus = draw(0, 0.9);
        assert_eq!((nucleus[0], nucleus[3]), (0, 0));
    }
}
