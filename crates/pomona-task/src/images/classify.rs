//! Classification: cross-entropy of labels, and the share of pictures whose label is among the likeliest.

use std::ops::Range;

use pomona_exec::{Device, Feeds, Options, Tensor, evaluate};
use pomona_graph::{Graph, ValueId, ValueType};

use super::preprocess::Preprocessing;
use crate::error::{Result, TaskError};
use crate::labelled::LabelledFiles;
use crate::loss::{nll_gradient, nll_rows};
use crate::objective::{Objective, SampleLoss, Weights};

const LOGITS: &str = "logits";

/// Labelled pictures as a model takes them. Files are decoded when they are fed.
#[derive(Clone, Debug)]
pub struct Classification {
    set: LabelledFiles,
    preprocessing: Preprocessing,
}

/// How often the label was right.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accuracy {
    /// Pictures.
    pub count: usize,
    /// Those whose label had the largest logit.
    pub first: usize,
    /// Those whose label was among the five largest.
    pub five: usize,
    /// Sum of the cross-entropies, nats.
    pub loss: f64,
}

impl Accuracy {
    /// Share of the pictures that the likeliest class is right for.
    pub fn top1(&self) -> f64 {
        self.first as f64 / self.count.max(1) as f64
    }

    /// Share of the pictures whose label is among the five likeliest.
    pub fn top5(&self) -> f64 {
        self.five as f64 / self.count.max(1) as f64
    }

    /// Mean cross-entropy.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count.max(1) as f64
    }
}

/// The only input of the graph, which must be a batch of pictures `[batch, channels, height, width]`.
pub fn picture_port(graph: &Graph) -> Result<ValueId> {
    let is_picture = |v: ValueId| {
        let value = graph.value(v);
        value.shape.len() == 4 && value.ty == ValueType::Float
    };
    match graph.inputs.as_slice() {
        [one] if is_picture(one.value) => Ok(one.value),
        ports => {
            let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
            Err(TaskError::Unfit(format!(
                "graph `{}` has the inputs {}; one batch of pictures was expected: it is not an image network",
                graph.name,
                names.join(", ")
            )))
        }
    }
}

impl Classification {
    /// Pictures for a network.
    pub fn new(set: LabelledFiles, preprocessing: Preprocessing) -> Self {
        Self { set, preprocessing }
    }

    /// The pictures.
    pub fn set(&self) -> &LabelledFiles {
        &self.set
    }

    /// How pictures become the network's input.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    fn rows(&self, samples: Range<usize>, output: &Tensor) -> Result<usize> {
        match output.shape() {
            [n, classes] if *n == samples.len() => {
                self.set.check_some(samples, Some(*classes as i64))?;
                Ok(*classes)
            }
            other => Err(TaskError::Unfit(format!(
                "the output `{LOGITS}` has shape {other:?}; a row of classes for each of {} pictures was expected",
                samples.len()
            ))),
        }
    }
}

impl Objective for Classification {
    fn samples(&self) -> usize {
        self.set.len()
    }

    fn feeds(&self, graph: &Graph, samples: Range<usize>, device: &Device) -> Result<Feeds> {
        Ok(Feeds::from([(picture_port(graph)?, self.preprocessing.read(&self.set.files[samples], device)?)]))
    }

    fn output(&self) -> &str {
        LOGITS
    }

    fn losses(&self, samples: Range<usize>, output: &Tensor) -> Result<Vec<SampleLoss>> {
        let classes = self.rows(samples.clone(), output)?;
        let nll = output.with_f32(|v| nll_rows(v, classes, &self.set.labels[samples]))?;
        Ok(nll.into_iter().map(|sum| SampleLoss { sum, count: 1 }).collect())
    }

    fn gradient(&self, samples: Range<usize>, output: Tensor) -> Result<Tensor> {
        let classes = self.rows(samples.clone(), &output)?;
        let (shape, device) = (output.shape().to_vec(), output.device().clone());
        let mut logits = output.to_f32()?;
        nll_gradient(&mut logits, classes, &self.set.labels[samples], 1.0 / self.samples().max(1) as f64);
        Ok(Tensor::from_f32(logits, &shape, &device)?)
    }

    fn fingerprint(&self) -> String {
        self.set.fingerprint()
    }

    fn source(&self) -> String {
        self.set.source.clone()
    }
}

/// What is done with a batch: its samples, their logits, the number of classes.
type Each<'a> = &'a mut dyn FnMut(Range<usize>, &Tensor, usize) -> Result<()>;

/// Runs a classifier over all pictures, in batches: `each` gets the pictures, their logits row by row, and the number of
/// classes.
///
/// # Errors
/// Where a picture cannot be read, the graph is no image classifier, or it cannot be run.
pub(super) fn each_batch(
    graph: &Graph,
    weights: &dyn Weights,
    on: &Classification,
    (batch, device): (usize, &Device),
    each: Each<'_>,
) -> Result<()> {
    let output = graph.output(LOGITS).ok_or_else(|| {
        TaskError::Unfit(format!("graph `{}` has no output `{LOGITS}`: it is not a classifier", graph.name))
    })?;
    for start in (0..on.samples()).step_by(batch.max(1)) {
        let samples = start..(start + batch.max(1)).min(on.samples());
        let feeds = on.feeds(graph, samples.clone(), device)?;
        let out = evaluate(graph, weights, &feeds, &[output], &Options::default())?.remove(0);
        weights.release();
        let classes = on.rows(samples.clone(), &out)?;
        each(samples, &out, classes)?;
    }
    Ok(())
}

/// Accuracy over all pictures, in batches; `advance` is told of each with its size.
///
/// # Errors
/// Where a picture cannot be read, the graph is no image classifier, or it cannot be run.
pub fn accuracy(
    graph: &Graph,
    weights: &dyn Weights,
    on: &Classification,
    batch: usize,
    device: &Device,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Accuracy> {
    let mut found = Accuracy::default();
    each_batch(graph, weights, on, (batch, device), &mut |samples, out, classes| {
        found.loss += on.losses(samples.clone(), out)?.iter().map(|l| l.sum).sum::<f64>();
        found.count += samples.len();
        let labels = &on.set.labels[samples.clone()];
        let ranks = out.with_f32(|v| v.chunks(classes).zip(labels).map(rank).collect::<Vec<usize>>())?;
        found.first += ranks.iter().filter(|r| **r == 0).count();
        found.five += ranks.iter().filter(|r| **r < 5).count();
        advance(samples.len())
    })?;
    Ok(found)
}

/// How many classes come before the label: larger logits, and equal ones with a lower number.
fn rank((row, label): (&[f32], &u32)) -> usize {
    let label = *label as usize;
    let own = row[label];
    row.iter().enumerate().filter(|(i, v)| **v > own || (**v == own && *i < label) || v.is_nan()).count()
}
