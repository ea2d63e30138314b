//! Folders of pictures and recordings, for networks that take them.

use std::path::Path;

use anyhow::{Result, bail};
use pomona_graph::{Graph, ValueType};
use pomona_models::Component;
use pomona_task::images::{PairSet, Preprocessing};
use pomona_task::{LabelledFiles, Media};
use pomona_train::data::{Pairs, Pictures, Sounds};

use super::{Read, Seen, Use};
use crate::args::Usage;
use crate::train_args::TrainOptions;

/// A folder, or a table of files and labels, for the network's inputs and outputs.
pub fn read(
    component: &Component,
    path: &Path,
    (o, purpose): (&TrainOptions, Use<'_>),
) -> Result<Read<'static>> {
    let graph = &component.graph;
    let drawn = purpose.drawn(o);
    match ranks(graph) {
        (Some(4), Some(4)) => {
            let said = component.directory().join("preprocessor_config.json").is_file();
            let given = said.then(|| Preprocessing::of(component)).transpose()?;
            Ok(Read::alone(Pairs::new(PairSet::open(path, o.reverse_pairs)?, given, graph, drawn)?))
        }
        (Some(4), Some(2)) => {
            let set = labelled(component, path, Media::Pictures, purpose)?;
            let seen = Seen { classes: set.classes.clone(), rate: None };
            let source = Pictures::new(set, Preprocessing::of(component)?, graph, drawn)?;
            Ok(Read { source: Box::new(source), seen })
        }
        (Some(2 | 3), Some(2)) => {
            let set = labelled(component, path, Media::Sounds, purpose)?;
            let classes = set.classes.clone();
            // Held-out recordings have the rate of those that are trained on.
            let rate = purpose.seen().and_then(|s| s.rate);
            let seed = (purpose == Use::Train).then_some(o.seed);
            let source = Sounds::new(set, graph, o.seq, (rate, seed))?;
            let seen = Seen { classes, rate: Some(source.rate()) };
            Ok(Read { source: Box::new(source), seen })
        }
        _ => bail!(Usage(format!(
            "`{}` takes neither pictures nor waveforms alone: --data is a .safetensors file with its inputs by name and `target`",
            component.architecture
        ))),
    }
}

/// Files with their classes. Those of held-out data have the numbers that the training data's folders have.
pub fn labelled(component: &Component, path: &Path, media: Media, purpose: Use<'_>) -> Result<LabelledFiles> {
    let known = purpose.seen().map_or(&[][..], |s| &s.classes);
    Ok(LabelledFiles::open_as(path, known, &component.config, media)?)
}

/// Whether a network takes pictures alone.
pub fn pictures(graph: &Graph) -> bool {
    ranks(graph).0 == Some(4)
}

/// Whether it gives pictures too.
pub fn pairs(graph: &Graph) -> bool {
    ranks(graph) == (Some(4), Some(4))
}

/// Axes of the only input, where it holds floats, and of the first output.
fn ranks(graph: &Graph) -> (Option<usize>, Option<usize>) {
    let input = match graph.inputs.as_slice() {
        [one] => Some(graph.value(one.value)).filter(|v| v.ty == ValueType::Float),
        _ => None,
    };
    (input.map(|v| v.shape.len()), graph.outputs.first().map(|p| graph.value(p.value).shape.len()))
}
