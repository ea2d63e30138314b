//! Folders of pictures and recordings, for networks that take them.

use std::path::Path;

use anyhow::{Result, bail};
use pomona_graph::{Graph, ValueType};
use pomona_models::Component;
use pomona_task::images::{PairSet, Preprocessing};
use pomona_task::{LabelledFiles, Media, Sound};
use pomona_train::Source;
use pomona_train::data::{Pairs, Pictures, Sounds};
use serde_json::{Value, json};

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
    let drawn = purpose.drawn(o);
    match ranks(graph) {
        (Some(4), Some(4)) => {
            let said = component.directory().join("preprocessor_config.json").is_file();
            let given = said.then(|| Preprocessing::of(component)).transpose()?;
            Ok(Box::new(Pairs::new(PairSet::open(path, o.reverse_pairs)?, given, graph, drawn)?))
        }
        (Some(4), Some(2)) => {
            let set = labelled(component, path, Media::Pictures, (o, purpose))?;
            Ok(Box::new(Pictures::new(set, Preprocessing::of(component)?, graph, drawn)?))
        }
        (Some(2 | 3), Some(2)) => {
            let set = labelled(component, path, Media::Sounds, (o, purpose))?;
            let train = purpose == Use::Train;
            // Held-out recordings have the rate of those that are trained on.
            let rate = if train { None } else { rate_of(component, o)? };
            Ok(Box::new(Sounds::new(set, graph, o.seq, (rate, train.then_some(o.seed)))?))
        }
        _ => bail!(Usage(format!(
            "`{}` takes neither pictures nor waveforms alone: --data is a .safetensors file with its inputs by name and `target`",
            component.architecture
        ))),
    }
}

/// Files with their classes. Those of held-out data have the numbers that the training data's folders have.
pub fn labelled(
    component: &Component,
    path: &Path,
    media: Media,
    (o, purpose): (&TrainOptions, Use),
) -> Result<LabelledFiles> {
    let training = match (purpose, o.data.as_slice()) {
        (Use::HoldOut, [one]) => LabelledFiles::classes(&one.path, &component.config, media)?,
        _ => Vec::new(),
    };
    if training.is_empty() {
        return Ok(LabelledFiles::open(path, &component.config, media)?);
    }
    let own = LabelledFiles::classes(path, &Value::Null, media)?;
    if let Some((stranger, _)) = own.iter().find(|(class, _)| training.iter().all(|(c, _)| c != class)) {
        bail!("{}: has the folder {stranger}, a class that the training data do not have", path.display());
    }
    let numbers: serde_json::Map<String, Value> =
        training.into_iter().map(|(class, n)| (class, n.into())).collect();
    Ok(LabelledFiles::open(path, &json!({"label2id": numbers}), media)?)
}

fn rate_of(component: &Component, o: &TrainOptions) -> Result<Option<u32>> {
    let [one] = o.data.as_slice() else { return Ok(None) };
    let set = LabelledFiles::open(&one.path, &component.config, Media::Sounds)?;
    Ok(set.files.first().map(|f| Sound::read(f)).transpose()?.map(|s| s.rate))
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
