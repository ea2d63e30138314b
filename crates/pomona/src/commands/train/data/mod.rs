//! Training data for a model, from files: what they are follows from what the model takes.

mod media;
mod noise;
mod text;

use std::path::Path;

use anyhow::{Result, bail};
use pomona_models::{Component, Model};
use pomona_task::{TensorData, TextRange};
use pomona_train::Source;
use pomona_train::data::Arrays;

use crate::args::Usage;
use crate::train_args::TrainOptions;

/// Whether data are trained on or held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// What may be drawn is drawn.
    Train,
    /// Every sample as it is.
    HoldOut,
}

/// Reads all files.
pub fn read<'a>(
    model: &'a Model,
    component: &'a Component,
    files: &[TextRange],
    (o, purpose): (&TrainOptions, Use),
) -> Result<Box<dyn Source + 'a>> {
    let graph = &component.graph;
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
