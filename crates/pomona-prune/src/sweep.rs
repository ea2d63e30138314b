//! Leave-one-out scoring of a chain of parts in one pass over the weights.
//!
//! The variants "without part i" share all computation before i, and afterwards all need the same weights at the same
//! time. So the sweep goes along the chain once: at part j it advances the dense activations and those of every variant
//! that left out an earlier part, then starts variant j from the activations that came in. Each part's weights are read
//! once, n(n+1)/2 part executions replace n(n-1), and memory is the boundary activations, never the model.

use std::ops::Range;

use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Graph, ValueId};
use pomona_task::{Objective, SampleLoss, Weights};
use serde::{Deserialize, Serialize};

use crate::error::{PruneError, Result};
use crate::scores::{pack, unpack};
use crate::unit::Unit;
use crate::work::WorkFiles;

/// What a sweep runs on.
pub struct Chain<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Its weights.
    pub weights: &'a dyn Weights,
    /// Data and loss.
    pub objective: &'a dyn Objective,
    /// Where it runs.
    pub device: &'a Device,
    /// Parts, each beginning where the one before ends.
    pub units: &'a [Unit],
    /// Where the state of an unfinished run is kept; nowhere without.
    pub work: Option<&'a WorkFiles>,
}

/// Losses of a sweep, a sample each.
#[derive(Clone, Debug, Default)]
pub struct SweepLosses {
    /// With everything that is not removed.
    pub dense: Vec<SampleLoss>,
    /// Without each candidate, in the order of the candidates.
    pub without: Vec<Vec<SampleLoss>>,
}

/// Name of a sweep's state.
const SWEEP: &str = "sweep";

/// Sum and count of each sample.
type PackedLosses = Vec<(f64, usize)>;

/// How far a sweep is: parts passed, the variants under way (the whole model first, as none), losses of finished ones.
#[derive(Serialize, Deserialize)]
struct At {
    samples: [usize; 2],
    removed: Vec<bool>,
    candidates: Vec<usize>,
    parts: usize,
    steps: usize,
    open: Vec<Option<usize>>,
    losses: Vec<(Option<usize>, PackedLosses)>,
}

impl At {
    fn new(samples: &Range<usize>, removed: &[bool], candidates: &[usize]) -> Self {
        Self {
            samples: [samples.start, samples.end],
            removed: removed.to_vec(),
            candidates: candidates.to_vec(),
            parts: 0,
            steps: 0,
            open: vec![None],
            losses: Vec::new(),
        }
    }

    fn pass(&mut self, parts: usize, steps: usize) {
        self.parts = parts;
        self.steps += steps;
    }
}

/// A sweep under way: the stream of each open variant.
struct Sweep {
    at: At,
    streams: Vec<Tensor>,
}

/// Main-stream values of a chain.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub from: ValueId,
    pub to: ValueId,
}

/// The links of a chain; an error where the parts do not follow one another.
pub(crate) fn links(units: &[Unit]) -> Result<Vec<Link>> {
    let mut out: Vec<Link> = Vec::with_capacity(units.len());
    for unit in units {
        let (Some(from), Some(to)) = (unit.from, unit.to) else {
            return Err(PruneError::Unfit(format!(
                "`{}` cannot be run: this architecture opens as an opaque model, without a forward pass; use \
                 --criterion magnitude or random",
                unit.region.path
            )));
        };
        if out.last().is_some_and(|l| l.to != from) {
            return Err(PruneError::Unfit(format!(
                "`{}` does not follow the part before it directly: leave-one-out scoring needs a chain of blocks",
                unit.region.path
            )));
        }
        out.push(Link { from, to });
    }
    Ok(out)
}

impl Chain<'_> {
    /// Losses without each candidate, for a range of samples, where `removed` parts are gone already.
    /// `advance` is called with the number of part executions done.
    pub fn leave_one_out(
        &self,
        samples: Range<usize>,
        removed: &[bool],
        candidates: &[usize],
        advance: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<SweepLosses> {
        let links = links(self.units)?;
        let feeds = self.objective.feeds(self.graph, samples.clone(), self.device)?;
        let mut sweep = match self.resumed(&samples, removed, candidates) {
            Some(sweep) => {
                advance(sweep.at.steps)?;
                sweep
            }
            None => {
                let first = self.run(&feeds, &[], links[0].from)?;
                let at = At::new(&samples, removed, candidates);
                self.weights.release();
                Sweep { at, streams: vec![first] }
            }
        };
        for (j, link) in links.iter().enumerate().skip(sweep.at.parts) {
            if !removed[j] {
                let incoming = sweep.streams[0].clone();
                self.advance(&feeds, *link, &mut sweep.streams)?;
                self.weights.release();
                let steps = sweep.streams.len();
                if candidates.contains(&j) {
                    sweep.at.open.push(Some(j));
                    sweep.streams.push(incoming);
                }
                sweep.at.pass(j + 1, steps);
                self.keep(&sweep)?;
                advance(steps)?;
            }
        }
        let last = links[links.len() - 1].to;
        let (rows, streams) = match sweep.streams.first() {
            Some(first) => self.heads_at_once(&feeds, first)?,
            None => (1, 1),
        };
        while !sweep.streams.is_empty() {
            let some = streams.min(sweep.streams.len());
            let losses = self.head_losses(&feeds, &samples, last, &sweep.streams[..some], rows)?;
            sweep.streams.drain(..some);
            let done: Vec<_> = sweep.at.open.drain(..some).collect();
            let steps = done.iter().flatten().count();
            sweep.at.losses.extend(done.into_iter().zip(losses.iter().map(|l| pack(l))));
            sweep.at.pass(links.len(), steps);
            self.keep(&sweep)?;
            advance(steps)?;
        }
        self.weights.release();
        let of = |which: Option<usize>| {
            let found = sweep.at.losses.iter().find(|(w, _)| *w == which);
            found.map(|(_, l)| unpack(l)).unwrap_or_default()
        };
        Ok(SweepLosses { dense: of(None), without: candidates.iter().map(|c| of(Some(*c))).collect() })
    }

    /// The sweep that an interrupted run was in, where it was this one.
    fn resumed(&self, samples: &Range<usize>, removed: &[bool], candidates: &[usize]) -> Option<Sweep> {
        let (at, streams) = self.work?.load::<At>(SWEEP, self.device)?;
        let fresh = At::new(samples, removed, candidates);
        let same = at.samples == fresh.samples && at.removed == removed && at.candidates == candidates;
        (same && at.open.len() == streams.len()).then_some(Sweep { at, streams })
    }

    fn keep(&self, sweep: &Sweep) -> Result<()> {
        let Some(work) = self.work.filter(|w| w.due()) else { return Ok(()) };
        let began = std::time::Instant::now();
        work.save(SWEEP, &sweep.at, &sweep.streams.iter().collect::<Vec<_>>())?;
        work.saved(began);
        Ok(())
    }

    /// Part executions that [`Chain::leave_one_out`] will report to `advance`.
    pub fn leave_one_out_steps(&self, removed: &[bool], candidates: &[usize]) -> usize {
        let mut open = 0;
        let mut steps = candidates.len();
        for (j, gone) in removed.iter().enumerate() {
            if !gone {
                steps += open + 1;
                open += usize::from(candidates.contains(&j));
            }
        }
        steps
    }

    /// One value, with some values given.
    pub(crate) fn run(&self, feeds: &Feeds, given: &[(ValueId, Tensor)], wanted: ValueId) -> Result<Tensor> {
        if let Some((_, tensor)) = given.iter().find(|(v, _)| *v == wanted) {
            return Ok(tensor.clone());
        }
        let mut feeds = feeds.clone();
        feeds.extend(given.iter().cloned());
        let mut out = evaluate(self.graph, self.weights, &feeds, &[wanted], &Options::default())?;
        out.pop().ok_or_else(|| PruneError::Unfit("the executor gave no value".to_owned()))
    }

    /// Value of the objective's output port.
    pub(crate) fn output(&self) -> Result<ValueId> {
        let name = self.objective.output();
        self.graph.output(name).ok_or_else(|| {
            PruneError::Unfit(format!(
                "graph `{}` has no output `{name}`, which the loss reads",
                self.graph.name
            ))
        })
    }
}
