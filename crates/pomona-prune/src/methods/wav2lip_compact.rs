//! Compact Wav2Lip: every residual convolution of the generator out, then every width to a quarter.
//!
//! Source: Kim et al., "A Unified Compression Framework for Efficient Speech-Driven Talking-Face Generation", arXiv:2304.00471,
//! and the layers of the published compressed network. What goes is read off the structure: a residual convolution is a
//! convolution that adds to what it reads, wherever it stands; a width is a coupled group of channels.
//!
//! The paper trains the small network from scratch, by distillation, and so does not say which channels stay. Here a criterion
//! of filters decides (L1 of the layers that make the channel, if nothing else is asked for), measured after the residual
//! convolutions have gone, so that layers which go have no vote; without weights the first quarter stays.

use std::time::Duration;

use pomona_exec::{Device, ExecError, Tensor, WeightProvider};
use pomona_graph::{Edit, Graph, Op, Plan, TensorId, ValueId, apply, span};
use pomona_task::{EditedWeights, Weights};

use crate::budget::report;
use crate::criteria::filters::{Aggregate, FilterCriterion};
use crate::error::{PruneError, Result};
use crate::filter_scores::{FILTER_SCORES_VERSION, FilterScores, FilterSettings, GroupScores, ScoredUnit};
use crate::ladder::{Fit, Ladder, LadderOptions};
use crate::methods::filters::{Asked, Scoring, Stamp, finish, open_groups, removed_lines, score};

/// The method's name on the command line and in plans.
pub const NAME: &str = "wav2lip-compact";
/// The criterion that keeps the first channels.
pub const FIRST: &str = "first";
/// One channel in this many stays.
const QUARTER: usize = 4;

/// What a plan is made for.
pub struct Planning<'a> {
    /// The generator, symbolic or bound.
    pub graph: &'a Graph,
    /// Which quarter stays.
    pub stays: Stays<'a>,
    /// Its name in a pipeline; none where it stands alone.
    pub component: Option<&'a str>,
    /// Fingerprint of the generator.
    pub fingerprint: &'a str,
    /// The program, with its version.
    pub tool: &'a str,
}

/// Which quarter of the channels stays.
#[derive(Clone, Copy)]
pub enum Stays<'a> {
    /// The first.
    First,
    /// The one worth most. Weights and where they are held may be missing where the criterion reads none.
    Best {
        /// What a channel is worth.
        criterion: FilterCriterion,
        /// How its measures in several tensors become one score.
        aggregate: Aggregate,
        /// Seed of a random order.
        seed: u64,
        /// The generator's weights.
        weights: Option<(&'a dyn Weights, &'a Device)>,
    },
}

impl Stays<'_> {
    fn name(&self) -> &'static str {
        match self {
            Stays::First => FIRST,
            Stays::Best { criterion, .. } => criterion.name(),
        }
    }
}

/// The plan. It needs no target.
///
/// # Errors
/// [`PruneError::Unfit`] where the network has no residual convolution, a width that has no quarter, or no weights for the
/// criterion.
pub fn plan(on: &Planning<'_>) -> Result<Plan> {
    let graph = on.graph;
    // Step 1: every residual convolution goes.
    let residual = residual_convolutions(graph);
    if residual.is_empty() {
        return Err(PruneError::Unfit(format!(
            "{NAME} takes the generator of Wav2Lip with its residual convolutions; `{}` has none",
            graph.name
        )));
    }
    let mut edits = Vec::new();
    // From the network's end to its beginning, so that what a bypass reads is still there.
    for part in residual.iter().rev() {
        let (from, to) = (graph.value_ref(part.from), graph.value_ref(part.to));
        span(graph, &from, &to)?;
        edits.push(Edit::Bypass { from, to });
    }
    // Step 2: a quarter of every width stays.
    let (shallow, recipe) = apply(graph, &edits)?;
    let groups = open_groups(&shallow)?;
    if let Some(g) = groups.iter().find(|g| !g.len.is_multiple_of(QUARTER)) {
        return Err(PruneError::Unfit(format!(
            "`{}` has {} channels, which have no quarter: nef, naf and ndf must be multiples of {QUARTER}",
            g.name, g.len
        )));
    }
    let scores = match &on.stays {
        // Of equals the later ones go.
        Stays::First => equal(on, groups.iter().map(|g| (g.name.as_str(), g.len))),
        Stays::Best { criterion, aggregate, seed, weights } => {
            let settings = FilterSettings {
                criterion: *criterion,
                aggregate: *aggregate,
                samples: 0,
                seed: *seed,
                unit: ScoredUnit::Channels,
                gamma: None,
            };
            let cpu = Device::cpu();
            let (base, device): (&dyn Weights, &Device) = match weights {
                Some(given) => *given,
                None => (&Absent(criterion.name()), &cpu),
            };
            let left = EditedWeights::new(graph, base, (&shallow, &recipe), device);
            scored(on, &shallow, (&left, device), &settings)?
        }
    };
    let ladder = Ladder::new(&shallow, groups, &scores, &LadderOptions::default())?;
    let heights = ladder.heights(Fit::AtMost, |_| 1.0 - 1.0 / QUARTER as f64);
    let kept = ladder.kept(&heights);
    let whole = |(i, g): &(usize, &pomona_graph::ChannelGroup)| {
        kept.get(i).is_none_or(|channels| channels.len() * QUARTER != g.len)
    };
    if let Some((_, g)) = ladder.groups.iter().enumerate().find(whole) {
        return Err(PruneError::Unfit(format!(
            "a quarter of `{}` cannot be left: an operator ties its channels, or criterion {} measures nothing there",
            g.name,
            on.stays.name()
        )));
    }
    edits.extend(ladder.edits(&shallow, &heights));
    let removed: Vec<String> = residual.into_iter().map(|r| r.path).collect();
    let words = format!("{} residual convolutions out, a quarter of every width", removed.len());
    let stamp = Stamp {
        tool: on.tool,
        fingerprint: on.fingerprint,
        component: on.component,
        method: NAME,
        criterion: Some(on.stays.name()),
        removed: removed.into_iter().chain(removed_lines(&ladder, &heights)).collect(),
    };
    finish(graph, &report(graph)?, edits, Asked { words, goal: None, device: None }, stamp)
}

/// A convolution, with its norm, that adds to what it reads, and the activation behind the sum.
struct Residual {
    /// Path of the convolution.
    path: String,
    from: ValueId,
    to: ValueId,
}

/// The residual convolutions, in the order of the graph.
fn residual_convolutions(graph: &Graph) -> Vec<Residual> {
    let (producers, consumers) = (graph.producers(), graph.consumers());
    let maker = |v: ValueId| producers.get(v.0 as usize).copied().flatten().map(|(n, _)| graph.node(n));
    let found = graph.nodes.iter().filter_map(|sum| {
        let (Op::Add {}, [a, b], [out]) = (&sum.op, sum.inputs.as_slice(), sum.outputs.as_slice()) else {
            return None;
        };
        [(*a, *b), (*b, *a)].into_iter().find_map(|(branch, from)| {
            let mut node = maker(branch)?;
            if let Op::BatchNorm { .. } = node.op {
                node = maker(*node.inputs.first()?)?;
            }
            if !matches!(node.op, Op::Conv(_)) || node.inputs != [from] {
                return None;
            }
            // What the convolution reads went through this activation already: a second time it does nothing.
            let behind = match consumers.get(out.0 as usize).map(Vec::as_slice) {
                Some([(only, _)]) => Some(graph.node(*only)),
                _ => None,
            };
            let relu = |op: &Op| matches!(op, Op::Activation { function: pomona_graph::Activation::Relu });
            let same = behind.filter(|n| relu(&n.op) && maker(from).is_some_and(|m| relu(&m.op)));
            let to = same.and_then(|n| n.outputs.first().copied()).unwrap_or(*out);
            Some(Residual { path: node.path.clone(), from, to })
        })
    });
    found.collect()
}

/// Scores under which every channel is worth the same.
fn equal<'g>(on: &Planning<'_>, groups: impl Iterator<Item = (&'g str, usize)>) -> FilterScores {
    let one = |(name, len): (&str, usize)| GroupScores { name: name.to_owned(), scores: vec![1.0; len] };
    FilterScores {
        filters_version: FILTER_SCORES_VERSION,
        tool: on.tool.to_owned(),
        fingerprint: on.fingerprint.to_owned(),
        component: on.component.map(str::to_owned),
        settings: FilterSettings {
            criterion: FilterCriterion::Random,
            aggregate: Aggregate::Makers,
            samples: 0,
            seed: 0,
            unit: ScoredUnit::Channels,
            gamma: None,
        },
        data: None,
        groups: groups.map(one).collect(),
        complete: true,
    }
}

fn scored(
    on: &Planning<'_>,
    shallow: &Graph,
    (weights, device): (&dyn Weights, &Device),
    settings: &FilterSettings,
) -> Result<FilterScores> {
    if settings.criterion.needs_loss() {
        return Err(PruneError::Unfit(format!(
            "criterion {} needs data and a loss, which {NAME} has not: choose l1, l2, geometric-median, bn-scale or random",
            settings.criterion.name()
        )));
    }
    let scoring = Scoring {
        graph: shallow,
        weights,
        objective: None,
        device,
        fingerprint: on.fingerprint,
        component: on.component,
        tool: on.tool,
        at_once: 1,
        save_every: Duration::MAX,
    };
    score(&scoring, settings, None, &mut |_, _| Ok(()))
}

/// No weights, for a criterion that should read none.
struct Absent(&'static str);

impl WeightProvider for Absent {
    fn get(&self, _: TensorId) -> pomona_exec::Result<Tensor> {
        Err(ExecError::Weight {
            tensor: String::new(),
            message: format!(
                "a bare config has no weights for criterion {}: first and random need none",
                self.0
            ),
        })
    }
}

impl Weights for Absent {
    fn release(&self) {}
}
