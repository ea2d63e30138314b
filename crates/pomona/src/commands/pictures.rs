//! Samples that a network is run on without a loss: text, tensors, or pictures.

use anyhow::{Result, bail};
use pomona_exec::Device;
use pomona_models::{Component, Model};
use pomona_task::images::{Classification, Preprocessing};
use pomona_task::{LabelledFiles, Media};
use pomona_task::{ModelWeights, Objective, TensorData};

use crate::args::{ScoreOptions, Usage};
use crate::context::{calibration, objective};
use crate::ui::Ui;

/// Windows of text for a language model, written by itself without data; none for any other model.
pub fn text(
    model: &Model,
    part: &Component,
    (weights, device): (&ModelWeights<'_>, &Device),
    options: &ScoreOptions,
    ui: &Ui,
) -> Result<Option<Box<dyn Objective>>> {
    if part.graph.output("logits").is_none() || part.graph.input("input_ids").is_none() {
        return Ok(None);
    }
    let size = (options.windows(), options.tokens, options.seed);
    let windows = calibration(model, weights, device, options.data.as_ref(), size, ui)?;
    Ok(Some(Box::new(objective(windows)?)))
}

/// What a criterion sees that runs the model forward: windows of text for a language model; for any other tensors of a
/// .safetensors file, or pictures of a directory, drawn with the seed.
pub fn seen(
    model: &Model,
    part: &Component,
    (weights, device): (&ModelWeights<'_>, &Device),
    options: &ScoreOptions,
    ui: &Ui,
) -> Result<Box<dyn Objective>> {
    if let Some(text) = text(model, part, (weights, device), options, ui)? {
        return Ok(text);
    }
    let Some(range) = &options.data else {
        bail!(Usage(
            "this criterion looks at the logits of attentions: it needs --data, a directory of pictures or FILE.safetensors with \
             a tensor for each input"
                .to_owned()
        ));
    };
    let path = &range.path;
    if path.is_dir() || path.extension().is_some_and(|e| e == "csv") {
        let preprocessing = Preprocessing::of(part)?;
        ui.say(format!("pictures are prepared as {} says", preprocessing.source));
        let set = LabelledFiles::unlabelled(path, Media::Pictures)?.drawn(options.pictures(), options.seed);
        return Ok(Box::new(Classification::new(set, preprocessing)));
    }
    Ok(Box::new(TensorData::read(path, &part.graph, options.pictures())?))
}
