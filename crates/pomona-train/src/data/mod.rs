//! What a training reads: samples by number, and batches of them.

mod arrays;
mod augment;
mod examples;
mod noised;
mod order;
mod packed;
mod pictures;
mod prefetch;
mod records;
mod sounds;

use pomona_exec::Tensor;
use pomona_graph::Graph;
use pomona_task::LabelledFiles;

use crate::error::Result;
use crate::loss::Kind;

pub use arrays::Arrays;
pub use augment::Augment;
pub use examples::Examples;
pub use noised::{Beside, Frozen, Latents, Noised};
pub use order::Order;
pub use packed::Packed;
pub use pictures::{Drawn, Pairs, Pictures};
pub(crate) use prefetch::prefetched;
pub use records::{Chat, Encode, Layout, Pair, Records, read_records};
pub use sounds::Sounds;

/// A token that no loss looks at.
pub const IGNORED: u32 = u32::MAX;

/// What should come out.
#[derive(Clone, Debug)]
pub enum Target {
    /// A token for each position, batch by tokens, flat; [`IGNORED`] where none is predicted.
    Tokens(Vec<u32>),
    /// The output itself.
    Values(Box<Tensor>),
    /// Nothing: only other networks say what is right.
    None,
}

/// Samples that run together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Values of the graph's inputs, by name.
    pub inputs: Vec<(String, Tensor)>,
    /// What should come out.
    pub target: Target,
    /// Samples.
    pub samples: usize,
    /// What losses are averaged over: predicted tokens, or samples.
    pub units: usize,
    /// Where the samples are from, for messages.
    pub from: String,
}

/// Samples by number. The same number always gives the same sample; what is drawn for it follows from the draw.
pub trait Source: Sync {
    /// Number of samples.
    fn samples(&self) -> usize;

    /// Some samples together. `draw` is the number of the batch in its run: noise, and whatever else is to differ from
    /// epoch to epoch, follows from it, so that a resumed run draws the same.
    ///
    /// # Errors
    /// Where data are read late and cannot be.
    fn batch(&self, picks: &[usize], draw: u64) -> Result<Batch>;

    /// Identity of the data: equal for equal samples.
    fn fingerprint(&self) -> String;

    /// For people: files, and how much there is.
    fn describe(&self) -> String;

    /// The loss that fits what the data say; none where they say nothing.
    fn loss(&self) -> Option<Kind> {
        Some(Kind::CrossEntropy)
    }

    /// Bytes of what it keeps in memory beside samples: networks that encode them.
    fn holds(&self) -> u64 {
        0
    }

    /// What is counted beside samples.
    fn unit(&self) -> &'static str {
        "samples"
    }
}

/// Some samples of a source, evenly spaced.
pub struct Few<'a> {
    of: &'a dyn Source,
    picks: Vec<usize>,
}

impl<'a> Few<'a> {
    /// At most `count` of them.
    pub fn evenly(of: &'a dyn Source, count: usize) -> Self {
        let (all, count) = (of.samples(), count.min(of.samples()));
        Self { of, picks: (0..count).map(|k| k * all / count).collect() }
    }
}

impl Source for Few<'_> {
    fn samples(&self) -> usize {
        self.picks.len()
    }

    fn batch(&self, picks: &[usize], draw: u64) -> Result<Batch> {
        self.of.batch(&picks.iter().filter_map(|p| self.picks.get(*p).copied()).collect::<Vec<_>>(), draw)
    }

    fn fingerprint(&self) -> String {
        format!("{} {:?}", self.of.fingerprint(), self.picks)
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.picks.len(), self.of.describe())
    }

    fn loss(&self) -> Option<Kind> {
        self.of.loss()
    }

    fn holds(&self) -> u64 {
        self.of.holds()
    }

    fn unit(&self) -> &'static str {
        self.of.unit()
    }
}

/// Rows of token ids of one length as the inputs of a language model.
pub(crate) fn token_inputs(ids: Vec<i64>, batch: usize, length: usize) -> Result<Vec<(String, Tensor)>> {
    let device = pomona_exec::Device::cpu();
    let positions = (0..length as i64).collect();
    Ok(vec![
        ("input_ids".to_owned(), Tensor::from_i64(ids, &[batch, length], &device)?),
        ("positions".to_owned(), Tensor::from_i64(positions, &[length], &device)?),
    ])
}

/// The number of classes that a network tells apart: the last axis of its first output.
pub(crate) fn classes(graph: &Graph) -> Option<i64> {
    graph.outputs.first().and_then(|p| graph.value(p.value).shape.last()?.as_int())
}

/// Labelled files that were read, with their classes.
pub(crate) fn classified((input, values): (&str, Tensor), set: &LabelledFiles, picks: &[usize]) -> Batch {
    Batch {
        inputs: vec![(input.to_owned(), values)],
        target: Target::Tokens(picks.iter().filter_map(|p| set.labels.get(*p).copied()).collect()),
        samples: picks.len(),
        units: picks.len(),
        from: format!("{}, numbers {}", set.source, listed(picks)),
    }
}

/// `3, 7, 12`: sample numbers for messages.
pub(crate) fn listed(picks: &[usize]) -> String {
    picks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
