//! One step: micro-batches forward and backward, their gradients summed, clipped, and taken.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use pomona_exec::{
    BatchMoments, ChannelMoments, Device, ExecError, Feeds, Mode, Options, Tensor, WeightProvider, Wrt,
    evaluate, gradients_of_loss,
};
use pomona_graph::{BatchStatistics, Graph, Node, Op, ValueId};
use pomona_task::empty_states;
use serde::Serialize;

use crate::clip::{clip, norm};
use crate::data::{Batch, Source};
use crate::error::{Result, TrainError};
use crate::loss::{Losses, Outcome, resolve};
use crate::parameters::{Parameters, Weights};
use crate::run::Course;
use crate::sums::add;

/// A network that is run.
#[derive(Clone, Copy)]
pub struct Network<'a> {
    /// Its graph.
    pub graph: &'a Graph,
    /// Its weights.
    pub weights: &'a dyn WeightProvider,
}

/// What a step did.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Times that the data were read by its end.
    pub epoch: f64,
    /// The weighted sum of the terms.
    pub loss: f64,
    /// Each term without its weight.
    pub losses: BTreeMap<String, f64>,
    /// Step size.
    pub rate: f64,
    /// Global norm of the gradient before clipping.
    pub norm: f64,
    /// The loss on held-out data, where it was measured after this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// Predicted tokens, or samples.
    pub units: usize,
    /// Seconds of the step, and of the run so far.
    pub seconds: [f64; 2],
}

/// What a step works with.
pub(crate) struct Works<'a> {
    pub student: Network<'a>,
    pub teacher: Option<Network<'a>>,
    /// Teacher's values that are fed to the student.
    pub shared: &'a [(ValueId, ValueId)],
    pub losses: &'a Losses,
    pub course: &'a Course,
}

/// Losses of a step by term, the weighted sum, and the gradient's norm.
pub(crate) struct Taken {
    pub losses: BTreeMap<String, f64>,
    pub loss: f64,
    pub norm: f64,
}

/// Moves the parameters; leaves them as they are where a loss or the gradient is not finite, and names what.
pub(crate) fn take(
    works: &Works<'_>,
    parameters: &mut Parameters,
    batches: &[Batch],
    (step, rate): (u64, f64),
) -> Result<std::result::Result<Taken, String>> {
    let units: usize = batches.iter().map(|b| b.units).sum();
    let names = resolve::names(works.losses);
    let mut terms = vec![0.0; names.len()];
    let mut gradients: Vec<Option<Tensor>> = vec![None; parameters.list.len()];
    let mut moments = Vec::with_capacity(batches.len());
    for (i, batch) in batches.iter().enumerate() {
        let share = batch.units as f64 / units.max(1) as f64;
        let seed = draw(works.course.seed, step, i as u64);
        let found = micro(works, parameters, batch, share, seed)?;
        terms.iter_mut().zip(&found.losses).for_each(|(t, l)| *t += l);
        moments.push(found.moments);
        for (at, gradient) in found.gradients {
            let sum = &mut gradients[at];
            match sum {
                None => *sum = Some(gradient),
                Some(sum) => gradient.with_f32(|more| sum.update(|sum| add(sum, more)))??,
            }
        }
    }
    if let Some(bad) = terms.iter().position(|t| !t.is_finite()) {
        return Ok(Err(format!("the loss {}", names[bad])));
    }
    let norm = norm(gradients.iter().flatten())?;
    if !norm.is_finite() {
        return Ok(Err("the gradient".to_owned()));
    }
    if let Some(limit) = works.course.clip {
        clip(gradients.iter_mut().flatten(), norm, limit)?;
    }
    for (p, gradient) in parameters.list.iter_mut().zip(&gradients) {
        let Some(gradient) = gradient else { continue };
        let decay = if p.decays { works.course.weight_decay } else { 0.0 };
        works.course.rule.step(&mut p.value, gradient, &mut p.state, rate, decay)?;
    }
    moments.iter().try_for_each(|seen| parameters.running.follow(seen))?;
    if let Some(decay) = works.course.average {
        parameters.average(decay, step)?;
    }
    let loss = works.losses.terms().zip(&terms).map(|(t, l)| t.weight * l).sum();
    Ok(Ok(Taken { loss, losses: names.into_iter().zip(terms).collect(), norm }))
}

/// The weighted sum of the losses on held-out samples, `batch` at a time; nothing is drawn and nothing moves.
pub(crate) fn hold(
    works: &Works<'_>,
    parameters: &Parameters,
    source: &dyn Source,
    batch: usize,
) -> Result<f64> {
    let picks: Vec<usize> = (0..source.samples()).collect();
    let (mut sum, mut units) = (0.0, 0);
    for (first, some) in picks.chunks(batch.max(1)).enumerate() {
        let made = source.batch(some, first as u64)?;
        let (feeds, seen) = given(works, &made)?;
        let weights = Weights { parameters, frozen: works.student.weights };
        let wanted = works.losses.student_values();
        let values = evaluate(works.student.graph, &weights, &feeds, wanted, &Options::default())?;
        let found = works.losses.measure(&values, &seen, &made, 1.0, parameters)?;
        let loss: f64 = works.losses.terms().zip(&found.losses).map(|(t, l)| t.weight * l).sum();
        sum += loss * made.units as f64;
        units += made.units;
    }
    Ok(sum / units.max(1) as f64)
}

/// A seed for what is drawn in a micro-batch: of the run's seed and the place alone.
fn draw(seed: u64, step: u64, micro: u64) -> u64 {
    let mut z = seed ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ micro.wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

struct Micro {
    losses: Vec<f64>,
    gradients: Vec<(usize, Tensor)>,
    /// What BatchNorms saw.
    moments: BTreeMap<String, ChannelMoments>,
}

fn micro(works: &Works<'_>, parameters: &Parameters, batch: &Batch, share: f64, seed: u64) -> Result<Micro> {
    let (feeds, seen) = given(works, batch)?;
    let weights = Weights { parameters, frozen: works.student.weights };
    let tensors = parameters.graph_tensors();
    let wrt = Wrt { values: &[], weights: &tensors };
    // Where they do not follow, batches' own statistics would leave the running ones, which the output is run with, behind.
    let left = |n: &Node| matches!(n.op, Op::BatchNorm { statistics: BatchStatistics::Running, .. });
    let stays = parameters.running.is_empty() && works.student.graph.nodes.iter().any(left);
    let mode = if stays { Mode::Inference } else { Mode::Training { seed } };
    let checkpoints = works.course.kept_values(works.student.graph);
    let moments = (!parameters.running.is_empty()).then(|| Arc::new(BatchMoments::default()));
    let options = Options { mode, checkpoints, moments: moments.clone(), ..Options::default() };
    let wanted = works.losses.student_values();
    let kept: RefCell<Option<std::result::Result<Outcome, TrainError>>> = RefCell::new(None);
    let upstream = |values: &[Tensor]| match works.losses.measure(values, &seen, batch, share, parameters) {
        Ok(mut outcome) => {
            let gradients = std::mem::take(&mut outcome.gradients);
            *kept.borrow_mut() = Some(Ok(outcome));
            Ok(gradients)
        }
        Err(e) => {
            *kept.borrow_mut() = Some(Err(e));
            Err(ExecError::Tensor("the loss cannot be measured".to_owned()))
        }
    };
    let found = gradients_of_loss(works.student.graph, &weights, &feeds, wanted, wrt, &options, upstream);
    let outcome = match (found, kept.into_inner()) {
        (_, Some(Err(e))) => return Err(e),
        (Err(e), _) => return Err(e.into()),
        (Ok(_), None) => return Err(TrainError::Unfit("no loss was measured".to_owned())),
        (Ok(found), Some(Ok(outcome))) => (found, outcome),
    };
    let (found, outcome) = outcome;
    let of_graph = found.weights.into_iter().filter_map(|(id, g)| Some((*parameters.of_graph.get(&id)?, g)));
    Ok(Micro {
        losses: outcome.losses,
        gradients: of_graph.chain(outcome.projections).collect(),
        moments: moments.map(|m| m.take()).unwrap_or_default(),
    })
}

/// What the student is fed, and what the losses read of the teacher.
fn given(works: &Works<'_>, batch: &Batch) -> Result<(Feeds, Vec<Tensor>)> {
    let mut feeds = feeds(works.student.graph, batch)?;
    let Some(teacher) = works.teacher else { return Ok((feeds, Vec::new())) };
    let mut wanted = works.losses.teacher_values().to_vec();
    wanted.extend(works.shared.iter().map(|(t, _)| *t));
    let own = self::feeds(teacher.graph, batch)?;
    let mut seen = evaluate(teacher.graph, teacher.weights, &own, &wanted, &Options::default())?;
    let prefix = seen.split_off(works.losses.teacher_values().len());
    feeds.extend(works.shared.iter().map(|(_, s)| *s).zip(prefix));
    Ok((feeds, seen))
}

/// The inputs that a graph has, and empty states.
pub(crate) fn feeds(graph: &Graph, batch: &Batch) -> Result<Feeds> {
    let given = batch.inputs.iter().filter_map(|(name, t)| Some((graph.input(name)?, t.clone())));
    let mut feeds: Feeds = given.collect();
    feeds.extend(empty_states(graph, batch.samples, &Device::cpu())?);
    Ok(feeds)
}
