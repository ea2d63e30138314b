//! The loop: steps until a limit, with checkpoints between them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pomona_exec::block_ends;
use pomona_graph::{Graph, ValueId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{self, Progress};
use crate::data::{Source, prefetched};
use crate::error::{Result, TrainError, file_error};
use crate::log::{Events, Lines};
use crate::loss::Losses;
use crate::optimiser::Rule;
use crate::parameters::Parameters;
use crate::schedule::{Position, Schedule};
use crate::step::{Network, StepReport, Works, hold, take};

/// How the parameters move, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// When it ends.
    pub limit: Limit,
    /// Samples that run together.
    pub batch: usize,
    /// Of which this many make a step.
    pub accumulate: usize,
    /// Of the order of samples and of dropout.
    pub seed: u64,
    /// The update rule.
    pub rule: Rule,
    /// The step sizes.
    pub schedule: Schedule,
    /// Share of a matrix that a step takes away, times the rate.
    pub weight_decay: f64,
    /// Largest global norm of a gradient.
    pub clip: Option<f64>,
    /// Decay of the exponential moving average of the parameters; without it none is kept.
    pub average: Option<f64>,
    /// Whether each block runs forward once more for its gradients, so that only the blocks' ends are kept meanwhile.
    pub recompute: bool,
}

impl Course {
    /// The values that a backward run keeps where it runs the rest again; none where it keeps everything.
    pub fn kept_values(&self, student: &Graph) -> Vec<ValueId> {
        if self.recompute { block_ends(student) } else { Vec::new() }
    }
}

/// When a run ends: at whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Steps.
    pub steps: Option<u64>,
    /// Seconds of steps; what checkpoints take is not counted.
    pub seconds: Option<f64>,
}

/// A training.
pub struct Run<'a> {
    /// What is trained; weights that do not move.
    pub student: Network<'a>,
    /// Who is followed.
    pub teacher: Option<Network<'a>>,
    /// Pairs of [`crate::shared_prefix`].
    pub shared: &'a [(ValueId, ValueId)],
    /// What becomes small.
    pub losses: &'a Losses,
    /// What is read.
    pub source: &'a dyn Source,
    /// Held-out samples, and the steps between two measurements on them.
    pub valid: Option<(&'a dyn Source, u64)>,
    /// How.
    pub course: &'a Course,
    /// Where checkpoints and logs go.
    pub folder: &'a Path,
    /// What a resumed run must have in common with this one.
    pub identity: Value,
    /// Time between checkpoints.
    pub save_every: Duration,
    /// Steps between checkpoints.
    pub save_steps: Option<u64>,
    /// Go on from the last checkpoint, where there is one.
    pub resume: bool,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It came to its limit.
    Done,
    /// It was asked to stop.
    Stopped,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Why it ended.
    pub ended: Ended,
    /// Steps, time and units, of all its parts.
    pub progress: Progress,
    /// Its last checkpoint.
    pub checkpoint: PathBuf,
    /// The step from which it went on.
    pub resumed_at: u64,
}

/// Runs to the end, or until `stop` is set: then after the step at work. `observe` sees every step.
///
/// # Errors
/// A loss or gradient that is not finite ([`TrainError::NotFinite`]), data that cannot be read, a disk that refuses, a
/// checkpoint of another run.
pub fn train(
    run: &Run<'_>,
    parameters: &mut Parameters,
    stop: &AtomicBool,
    observe: &mut dyn FnMut(&StepReport),
) -> Result<Finished> {
    let folder = run.folder;
    std::fs::create_dir_all(folder).map_err(|e| file_error(folder, format!("cannot be made: {e}")))?;
    let mut progress = Progress::start(run.identity.clone());
    let mut last: Option<PathBuf> = None;
    if run.resume
        && let Some((_, path)) = checkpoint::list(folder)?.pop()
    {
        progress = checkpoint::load(&path, &run.identity, parameters)?;
        last = Some(path);
    }
    let resumed_at = progress.step;
    let mut lines = Lines::open(&folder.join("log.jsonl"), progress.step)?;
    let mut events = Events::create(folder, progress.step)?;
    let works = Works {
        student: run.student,
        teacher: run.teacher,
        shared: run.shared,
        losses: run.losses,
        course: run.course,
    };
    let size = (run.course.batch, run.course.accumulate);
    if let (Some((held, _)), 0) = (run.valid, progress.step) {
        lines.start(hold(&works, parameters, held, size.0)?)?;
    }
    let ended = prefetched(run.source, run.course.seed, size, progress.step, |batches| -> Result<Ended> {
        let mut saved = Instant::now();
        loop {
            if run.course.limit.is_reached(&progress) {
                return Ok(Ended::Done);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(Ended::Stopped);
            }
            let began = Instant::now();
            let made = batches.recv().map_err(|_| TrainError::Unfit("the data ended".to_owned()))?;
            let batches = match made {
                Ok(batches) => batches,
                // Nothing that was learnt goes with a file that cannot be read.
                Err(e) if progress.step > resumed_at => {
                    let path = checkpoint::save(folder, &progress, parameters)?;
                    return Err(TrainError::DataLost { step: progress.step, path, of: Box::new(e) });
                }
                Err(e) => return Err(e),
            };
            let rate = run.course.schedule.at(run.course.limit.position(&progress));
            let taken = take(&works, parameters, &batches, (progress.step, rate))?;
            let taken = taken.map_err(|what| TrainError::NotFinite {
                step: progress.step + 1,
                what,
                batch: batches.iter().map(|b| b.from.as_str()).collect::<Vec<_>>().join(" and "),
                kept: match &last {
                    Some(path) => format!("the last good state is {}", path.display()),
                    None => "no state was kept before it".to_owned(),
                },
            })?;
            let units: usize = batches.iter().map(|b| b.units).sum();
            let seconds = began.elapsed().as_secs_f64();
            progress.step += 1;
            progress.seconds += seconds;
            progress.units += units as u64;
            let held = run.valid.filter(|(_, every)| {
                progress.step.is_multiple_of((*every).max(1)) || run.course.limit.is_reached(&progress)
            });
            let valid = held.map(|(held, _)| hold(&works, parameters, held, size.0)).transpose()?;
            let report = StepReport {
                valid,
                step: progress.step,
                epoch: progress.step as f64 * (size.0 * size.1) as f64 / run.source.samples().max(1) as f64,
                loss: taken.loss,
                losses: taken.losses,
                rate,
                norm: taken.norm,
                units,
                seconds: [seconds, progress.seconds],
            };
            lines.add(&report)?;
            events.add(report.step, &scalars(&report, run.source.unit()))?;
            observe(&report);
            let due = saved.elapsed() >= run.save_every
                || run.save_steps.is_some_and(|n| progress.step.is_multiple_of(n.max(1)));
            if due && !run.course.limit.is_reached(&progress) {
                last = Some(checkpoint::save(folder, &progress, parameters)?);
                saved = Instant::now();
            }
        }
    })?;
    progress.complete = ended == Ended::Done;
    let there = last
        .filter(|_| checkpoint::list(folder).is_ok_and(|l| l.last().is_some_and(|l| l.0 == progress.step)));
    let checkpoint = match there {
        Some(path) => path,
        None => checkpoint::save(folder, &progress, parameters)?,
    };
    Ok(Finished { ended, progress, checkpoint, resumed_at })
}

fn scalars(report: &StepReport, unit: &str) -> Vec<(String, f64)> {
    let mut out = vec![("loss/sum".to_owned(), report.loss)];
    out.extend(report.losses.iter().map(|(k, v)| (format!("loss/{k}"), *v)));
    out.extend(report.valid.map(|v| ("loss/held-out".to_owned(), v)));
    out.push(("rate".to_owned(), report.rate));
    out.push(("gradient_norm".to_owned(), report.norm));
    out.push((format!("{unit}_per_second"), report.units as f64 / report.seconds[0].max(1e-9)));
    out
}

impl Limit {
    fn is_reached(&self, progress: &Progress) -> bool {
        self.steps.is_some_and(|n| progress.step >= n) || self.seconds.is_some_and(|s| progress.seconds >= s)
    }

    fn position(&self, progress: &Progress) -> Position {
        let done = progress.step;
        match (self.steps, self.seconds) {
            (Some(of), _) => Position::Steps { done, of },
            (None, Some(all)) => Position::Seconds { done, spent: progress.seconds / all.max(1e-9) },
            (None, None) => Position::Steps { done, of: u64::MAX },
        }
    }

    /// Share of the run that is done, for an estimate of the end.
    pub fn share(&self, step: u64, seconds: f64) -> f64 {
        let steps = self.steps.map_or(0.0, |n| step as f64 / n.max(1) as f64);
        let time = self.seconds.map_or(0.0, |s| seconds / s.max(1e-9));
        steps.max(time).min(1.0)
    }
}
