//! Folders of pictures and recordings, for networks that take them.

use std::path::Path;

use anyhow::{Result, bail};
use pomona_graph::{Graph, ValueType};
use pomona_models::Component;
use pomona_task::images::{PairSet, Preprocessing};
use pomona_task::{LabelledFiles, Media};
use pomona_train::Source;
use pomona_train::data::{Drawn, Pairs, Pictures, Sounds};

use super::Use;
use crate::args::Usage;
use crate::train_args::TrainOptions;

/// A folder, or a table of files and labels, for the network's inputs and outputs.
pub fn read(
    component: &Component,
    path: &Path,
    (o, purpose): (&TrainOptions, Use),
) -> Result<Box<dyn Source>> {
    let graph = &component.graph;
    let drawn = match purpose {
        Use::Train => Drawn { augment: o.augment, seed: o.seed },
        Use::HoldOut => Drawn::default(),
    };
    match ranks(graph) {
        (Some(4), Some(4)) => {
            let said = folder(component).join("preprocessor_config.json").is_file();
            let given = said.then(|| Preprocessing::of(component)).transpose()?;
            Ok(Box::new(Pairs::new(PairSet::open(path, o.reverse_pairs)?, given, graph, drawn)?))
        }
        (Some(4), Some(2)) => {
            let set = LabelledFiles::open(path, &component.config, Media::Pictures)?;
            Ok(Box::new(Pictures::new(set, Preprocessing::of(component)?, graph, drawn)?))
        }
        (Some(2 | 3), Some(2)) => {
            let set = LabelledFiles::open(path, &component.config, Media::Sounds)?;
            let seed = (purpose == Use::Train).then_some(o.seed);
            Ok(Box::new(Sounds::new(set, graph, o.seq, seed)?))
        }
        _ => bail!(Usage(format!(
            "`{}` takes neither pictures nor waveforms alone: --data is a .safetensors file with its inputs by name and `target`",
            component.architecture
        ))),
    }
}

/// Axes of the only input, where it holds floats, and of the first output.
fn ranks(graph: &Graph) -> (Option<usize>, Option<usize>) {
    let input = match graph.inputs.as_slice() {
        [one] => Some(graph.value(one.value)).filter(|v| v.ty == ValueType::Float),
        _ => None,
    };
    (input.map(|v| v.shape.len()), graph.outputs.first().map(|p| graph.value(p.value).shape.len()))
}

fn folder(component: &Component) -> &Path {
    match component.path.is_dir() {
        true => &component.path,
        false => component.path.parent().unwrap_or(Path::new(".")),
    }
}
