//! Log-likelihoods of tokens under a language model, with no more work than they need: the vocabulary-wide layer sees
//! only the positions that are asked for, a context that several continuations share is run once, and what has one
//! length runs together.

mod continuations;
mod head;
mod stretches;

pub use continuations::{Request, log_likelihoods, passes_beside};
pub(crate) use head::Head;
pub use stretches::{Stretch, stretch_losses};

use pomona_exec::{Device, Feeds, Options, Tensor};
use pomona_graph::{Bindings, Graph, ValueId};

use crate::error::{Result, TaskError};
use crate::objective::Weights;
use crate::parts::evaluate_in_parts;

/// Tokens, those in caches included, that run together at most; a longer sequence runs alone.
pub const PASS_TOKENS: usize = 1024;

/// A language model that is run.
#[derive(Clone, Copy)]
pub struct Language<'a> {
    /// Its graph: input `input_ids` `[batch, tokens]`, output `logits` `[batch, tokens, vocabulary]`.
    pub graph: &'a Graph,
    /// Its weights.
    pub weights: &'a dyn Weights,
    /// Where it runs.
    pub device: &'a Device,
}

impl Language<'_> {
    pub(crate) fn run(&self, feeds: &Feeds, wanted: &[ValueId]) -> Result<Vec<Tensor>> {
        evaluate_in_parts(self.graph, self.weights, feeds, wanted, &Options::default())
    }
}

/// Bytes of the caches of `tokens` tokens; 0 where a size is not known.
pub fn cache_bytes(graph: &Graph, tokens: usize) -> u64 {
    let sizes = Bindings::from([("batch".to_owned(), 1), ("past".to_owned(), tokens as i64)]);
    let elements = |state: &pomona_graph::StatePort| {
        let dims = graph.value(state.input).shape.iter();
        dims.map(|d| d.bind(&sizes).ok()?.as_int()).try_fold(1_u64, |n, d| Some(n * u64::try_from(d?).ok()?))
    };
    graph.states.iter().filter_map(elements).sum::<u64>() * 4
}

fn not_a_number() -> TaskError {
    TaskError::Unfit("the model gives NaN: its weights are damaged".to_owned())
}
