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

/// Whether data are trained on or held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// What may be drawn is drawn.
    Train,
    /// Every sample as it is, what has to be drawn always the same.
    HoldOut,
}

impl Use {
    /// What may happen to pictures, and from which it and noise are drawn: held-out samples see other noise than those that are
    /// trained on.
    fn drawn(self, o: &TrainOptions) -> Drawn {
        match self {
            Use::Train => Drawn { augment: o.augment, seed: o.seed },
            Use::HoldOut => Drawn { augment: Augment::default(), seed: !o.seed },
        }
    }
}

/// Reads all files.
pub fn read<'a>(
    model: &'a Model,
    component: &'a Component,
    files: &[TextRange],
    (o, purpose): (&TrainOptions, Use),
) -> Result<Box<dyn Source + 'a>> {
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
            Ok(Box::new(Arrays::new(TensorData::read(path, graph, usize::MAX)?, graph)))
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
