//! Pictures: with labels for classifiers, in pairs for networks from picture to picture. Files are decoded while a step runs.

use pomona_exec::{Device, Tensor};
use pomona_graph::{Activation, Graph, Op, ValueId};
use pomona_task::images::{Filter, PairSet, Picture, Preprocessing, Sizing, picture_port};
use pomona_task::{LabelledFiles, TaskError};
use rayon::prelude::*;

use super::augment::{Augment, Change};
use super::{Batch, Source, Target, classes, classified, listed};
use crate::error::Result;
use crate::loss::Kind;

/// What is drawn for pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// What may happen to them.
    pub augment: Augment,
    /// From which it is drawn.
    pub seed: u64,
}

/// Pictures with labels.
pub struct Pictures {
    set: LabelledFiles,
    preprocessing: Preprocessing,
    input: String,
    drawn: Drawn,
}

impl Pictures {
    /// For a classifier.
    ///
    /// # Errors
    /// Where the graph does not take one batch of pictures, or a label is none of its classes.
    pub fn new(
        set: LabelledFiles,
        preprocessing: Preprocessing,
        graph: &Graph,
        drawn: Drawn,
    ) -> Result<Self> {
        let port = picture_port(graph)?;
        set.check(classes(graph))?;
        Ok(Self { set, preprocessing, input: port_name(graph, port), drawn })
    }
}

fn port_name(graph: &Graph, value: ValueId) -> String {
    graph.inputs.iter().find(|p| p.value == value).map(|p| p.name.clone()).unwrap_or_default()
}

impl Source for Pictures {
    fn samples(&self) -> usize {
        self.set.len()
    }

    fn batch(&self, picks: &[usize], draw: u64) -> Result<Batch> {
        let files: Vec<_> = picks.iter().filter_map(|p| self.set.files.get(*p)).collect();
        let mut pictures = self.preprocessing.read(&files, &Device::cpu())?;
        let changes = self.drawn.augment.draw(self.drawn.seed, draw, picks.len());
        change(&mut pictures, &changes, &self.preprocessing)?;
        Ok(classified((&self.input, pictures), &self.set, picks))
    }

    fn fingerprint(&self) -> String {
        format!("{} {} {}", self.set.fingerprint(), self.drawn.augment, self.preprocessing.describe())
    }

    fn describe(&self) -> String {
        let classes = self.set.labels.iter().collect::<std::collections::BTreeSet<_>>().len();
        format!(
            "{}: {} pictures of {classes} classes, {}",
            self.set.source,
            self.set.len(),
            self.preprocessing.describe()
        )
    }
}

/// Each picture of a batch changed as was drawn.
pub(super) fn change(pictures: &mut Tensor, changes: &[Change], preprocessing: &Preprocessing) -> Result<()> {
    let [_, channels, height, width] = *pictures.shape() else { return Ok(()) };
    let black = preprocessing.black();
    Ok(pictures.update(|values| {
        let each = values.par_chunks_mut((channels * height * width).max(1)).zip(changes);
        each.for_each(|(picture, change)| change.apply(picture, [height, width], &black));
    })?)
}

/// Pairs of pictures.
pub struct Pairs {
    set: PairSet,
    /// For what goes in and what should come out.
    preprocessing: [Preprocessing; 2],
    input: String,
    drawn: Drawn,
}

impl Pairs {
    /// For a network from picture to picture. Both pictures are resized to its sizes as wholes, so that they stay one above the
    /// other, and have the range of its last activation: 0 to 1 for a sigmoid, -1 to 1 for others; what its files say of the
    /// input's range (`given`) holds there.
    ///
    /// # Errors
    /// Where the graph is no such network, its sizes are not known, or pictures of different sizes were to be shifted.
    pub fn new(set: PairSet, given: Option<Preprocessing>, graph: &Graph, drawn: Drawn) -> Result<Self> {
        let input = picture_port(graph)?;
        let unfit = |message: &str| TaskError::Unfit(format!("graph `{}` {message}", graph.name));
        let output = match graph.outputs.as_slice() {
            [one] if graph.value(one.value).shape.len() == 4 => one.value,
            _ => return Err(unfit("does not give one batch of pictures").into()),
        };
        let centred = !matches!(last_activation(graph, output), Some(Activation::Sigmoid));
        let of = |value: ValueId| -> Result<Preprocessing> {
            let shape = &graph.value(value).shape;
            let size = |axis: usize| {
                shape[axis].bind(&graph.defaults).ok().and_then(|d| usize::try_from(d.as_int()?).ok())
            };
            let (Some(channels), Some(height), Some(width)) = (size(1), size(2), size(3)) else {
                return Err(unfit("has pictures of no known size").into());
            };
            if !matches!(channels, 1 | 3) {
                return Err(
                    unfit(&format!("has pictures of {channels} channels; 1 or 3 were expected")).into()
                );
            }
            let middle = if centred { 0.5 } else { 0.0 };
            Ok(Preprocessing {
                sizing: Sizing::Exact([height, width]),
                filter: Filter::Bicubic,
                crop: None,
                rescale: 1.0 / 255.0,
                mean: vec![middle; channels],
                deviation: vec![if centred { 0.5 } else { 1.0 }; channels],
                source: "the network's sizes and last activation".to_owned(),
            })
        };
        let [mut first, second] = [of(input)?, of(output)?];
        if drawn.augment.shift > 0 && first.sizing != second.sizing {
            return Err(unfit(
                "takes and gives pictures of different sizes, which no shift in pixels keeps together",
            )
            .into());
        }
        if let Some(given) = given.filter(|g| g.channels() == first.channels()) {
            first = Preprocessing { sizing: first.sizing, crop: None, ..given };
        }
        let preprocessing = [first, second];
        Ok(Self { set, preprocessing, input: port_name(graph, input), drawn })
    }
}

/// The function behind which a value stands.
fn last_activation(graph: &Graph, value: ValueId) -> Option<Activation> {
    let (id, _) = graph.producers().get(value.0 as usize).copied().flatten()?;
    match graph.node(id).op {
        Op::Activation { function } => Some(function),
        _ => None,
    }
}

impl Source for Pairs {
    fn samples(&self) -> usize {
        self.set.len()
    }

    fn batch(&self, picks: &[usize], draw: u64) -> Result<Batch> {
        let read = |i: &usize| -> Result<[(Vec<f32>, [usize; 2]); 2]> {
            let [first, second] = self.set.read(*i)?;
            let made = |picture: &Picture, p: &Preprocessing| {
                p.apply(picture).map_err(|message| {
                    let path = self.set.path(*i).unwrap_or(std::path::Path::new("")).to_owned();
                    TaskError::Data { path, message }
                })
            };
            Ok([made(&first, &self.preprocessing[0])?, made(&second, &self.preprocessing[1])?])
        };
        let pairs: Vec<_> = picks.par_iter().map(read).collect::<Result<_>>()?;
        let changes = self.drawn.augment.draw(self.drawn.seed, draw, picks.len());
        let mut sides = [Vec::new(), Vec::new()];
        let mut sizes = [[0, 0]; 2];
        for pair in pairs {
            for (side, (values, size)) in pair.into_iter().enumerate() {
                sides[side].extend(values);
                sizes[side] = size;
            }
        }
        let mut made = Vec::with_capacity(2);
        for (side, values) in sides.into_iter().enumerate() {
            let [height, width] = sizes[side];
            let p = &self.preprocessing[side];
            let shape = [picks.len(), p.channels(), height, width];
            let mut tensor = Tensor::from_f32(values, &shape, &Device::cpu())?;
            change(&mut tensor, &changes, p)?;
            made.push(tensor);
        }
        let target = made.pop().map_or(Target::None, |t| Target::Values(Box::new(t)));
        Ok(Batch {
            inputs: made.into_iter().map(|t| (self.input.clone(), t)).collect(),
            target,
            samples: picks.len(),
            units: picks.len(),
            from: format!("{}, numbers {}", self.set.source, listed(picks)),
        })
    }

    fn fingerprint(&self) -> String {
        let [a, b] = &self.preprocessing;
        format!("{} {} {} {}", self.set.fingerprint(), self.drawn.augment, a.describe(), b.describe())
    }

    fn describe(&self) -> String {
        let [a, b] = &self.preprocessing;
        format!("{}: in {}, out {}", self.set.source, a.describe(), b.describe())
    }

    /// As pix2pix: absolute differences blur less.
    fn loss(&self) -> Option<Kind> {
        Some(Kind::L1)
    }
}
