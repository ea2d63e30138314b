//! Training data for a model, from files: what they are follows from what the model takes.

mod media;
mod noise;
mod text;

use std::path::Path;

use anyhow::{Result, bail};
use pomona_models::{Component, Model};
use pomona_task::{TensorData, TextRange};
use pomona_train::Source;
use pomona_train::data::{Arrays, Augment, Drawn};

use crate::args::Usage;
use crate::train_args::TrainOptions;

/// What training data showed that held-out data have to have too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Names and numbers of folders.
    classes: Vec<(String, u32)>,
    /// Numbers a second of recordings.
    rate: Option<u32>,
}

/// Data, and what they showed.
pub struct Read<'a> {
    /// The samples.
    pub source: Box<dyn Source + 'a>,
    /// What held-out data have to have too.
    pub seen: Seen,
}

impl<'a> Read<'a> {
    /// Data that ask nothing of others.
    fn alone(source: impl Source + 'a) -> Self {
        Self { source: Box::new(source), seen: Seen::default() }
    }
}

/// Whether data are trained on or held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use<'a> {
    /// What may be drawn is drawn.
    Train,
    /// Every sample as it is, what has to be drawn always the same.
    HoldOut(&'a Seen),
}

impl Use<'_> {
    /// What is known of the training data.
    fn seen(&self) -> Option<&Seen> {
        match self {
            Use::Train => None,
            Use::HoldOut(seen) => Some(seen),
        }
    }

    /// What may happen to pictures, and from which it and noise are drawn: held-out samples see other noise than those that are
    /// trained on.
    fn drawn(self, o: &TrainOptions) -> Drawn {
        match self {
            Use::Train => Drawn { augment: o.augment, seed: o.seed },
            Use::HoldOut(_) => Drawn { augment: Augment::default(), seed: !o.seed },
        }
    }
}

/// Reads all files.
pub fn read<'a>(
    model: &'a Model,
    component: &'a Component,
    files: &[TextRange],
    (o, purpose): (&TrainOptions, Use<'_>),
) -> Result<Read<'a>> {
    let graph = &component.graph;
    let pictures = files.len() == 1
        && !is_tensors(&files[0].path)
        && (noise::is_denoiser(graph) || media::pictures(graph));
    if (o.augment != Augment::default() && !pictures) || (o.reverse_pairs && !media::pairs(graph)) {
        bail!(Usage(
            "--augment is for folders of pictures, --reverse-pairs for pairs of them: these data are neither"
                .to_owned()
        ));
    }
    if graph.output("logits").is_some() && graph.input("input_ids").is_some() {
        return text::read(model, files, o);
    }
    match files {
        [TextRange { path, lines: None }] if is_tensors(path) => {
            Ok(Read::alone(Arrays::new(TensorData::read(path, graph, usize::MAX)?, graph)))
        }
        [TextRange { path, lines: None }] if noise::is_denoiser(graph) => {
            noise::read(model, component, path, (o, purpose))
        }
        [TextRange { path, lines: None }] => media::read(component, path, (o, purpose)),
        _ => bail!(Usage(format!(
            "`{}` is no language model: --data is one .safetensors file with its inputs by name and `target`, one folder of \
             pictures or recordings, or one .csv of files and labels",
            component.architecture
        ))),
    }
}

fn is_tensors(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"))
}
