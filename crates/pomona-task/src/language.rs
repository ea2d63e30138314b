//! Language models: next-token likelihood of token windows.

use std::ops::Range;

use pomona_exec::{Device, Feeds, Tensor, start_states};
use pomona_graph::{Bindings, Graph};

use crate::data::Windows;
use crate::error::{Result, TaskError};
use crate::loss::{nll_gradient, nll_rows};
use crate::objective::{Objective, SampleLoss};

/// Next-token cross-entropy over windows of one length: `length - 1` predictions each.
#[derive(Clone, Debug)]
pub struct NextToken {
    windows: Windows,
    length: usize,
}

impl NextToken {
    /// An objective over windows; they must have one length of at least two.
    pub fn new(windows: Windows) -> Result<Self> {
        let length = windows.ids.first().map_or(0, Vec::len);
        if length < 2 || windows.ids.iter().any(|w| w.len() != length) {
            return Err(TaskError::Unfit("windows of one length of at least 2 tokens are needed".to_owned()));
        }
        Ok(Self { windows, length })
    }

    /// The windows.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    fn targets(&self, sample: usize) -> &[u32] {
        &self.windows.ids[sample][1..]
    }
}

/// Inputs of a language model's graph for some sequences of one length, the first token at `first`.
pub fn token_feeds(graph: &Graph, ids: &[&[u32]], first: usize, device: &Device) -> Result<Feeds> {
    let missing = |name: &str| {
        TaskError::Unfit(format!("graph `{}` has no input `{name}`: it is not a language model", graph.name))
    };
    let length = ids.first().map_or(0, |w| w.len());
    let flat: Vec<i64> = ids.iter().flat_map(|w| w.iter().map(|t| i64::from(*t))).collect();
    let positions: Vec<i64> = (first..first + length).map(|p| p as i64).collect();
    let mut feeds = Feeds::new();
    let input = graph.input("input_ids").ok_or_else(|| missing("input_ids"))?;
    feeds.insert(input, Tensor::from_i64(flat, &[ids.len(), length], device)?);
    if let Some(port) = graph.input("positions") {
        feeds.insert(port, Tensor::from_i64(positions, &[length], device)?);
    }
    Ok(feeds)
}

/// Empty caches for `batch` sequences.
pub fn empty_states(graph: &Graph, batch: usize, device: &Device) -> Result<Feeds> {
    let sizes = Bindings::from([("batch".to_owned(), batch as i64), ("past".to_owned(), 0)]);
    Ok(start_states(graph, &sizes, device)?)
}

impl Objective for NextToken {
    fn samples(&self) -> usize {
        self.windows.ids.len()
    }

    fn feeds(&self, graph: &Graph, samples: Range<usize>, device: &Device) -> Result<Feeds> {
        let ids: Vec<&[u32]> = self.windows.ids[samples.clone()].iter().map(Vec::as_slice).collect();
        let mut feeds = token_feeds(graph, &ids, 0, device)?;
        feeds.extend(empty_states(graph, samples.len(), device)?);
        Ok(feeds)
    }

    fn output(&self) -> &str {
        "logits"
    }

    fn losses(&self, samples: Range<usize>, output: &Tensor) -> Result<Vec<SampleLoss>> {
        let vocab = output.shape().last().copied().unwrap_or(1);
        let row = self.length * vocab;
        output
            .with_f32(|logits| {
                let one = |(k, sample): (usize, usize)| {
                    let rows = &logits[k * row..k * row + (self.length - 1) * vocab];
                    let nll = nll_rows(rows, vocab, self.targets(sample));
                    SampleLoss { sum: nll.iter().sum(), count: nll.len() }
                };
                samples.clone().enumerate().map(one).collect::<Vec<_>>()
            })
            .map_err(Into::into)
    }

    fn gradient(&self, samples: Range<usize>, output: Tensor) -> Result<Tensor> {
        let vocab = output.shape().last().copied().unwrap_or(1);
        let (shape, device) = (output.shape().to_vec(), output.device().clone());
        let mut logits = output.to_f32()?;
        drop(output);
        let scale = 1.0 / (self.samples() * (self.length - 1)) as f64;
        let row = self.length * vocab;
        for (k, sample) in samples.enumerate() {
            let window = &mut logits[k * row..(k + 1) * row];
            let (used, unused) = window.split_at_mut((self.length - 1) * vocab);
            nll_gradient(used, vocab, self.targets(sample), scale);
            unused.fill(0.0);
        }
        Ok(Tensor::from_f32(logits, &shape, &device)?)
    }

    fn fingerprint(&self) -> String {
        self.windows.fingerprint.clone()
    }

    fn source(&self) -> String {
        self.windows.source.clone()
    }
}
