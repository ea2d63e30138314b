//! `pomona eval --task top1` and `--task agreement`.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use pomona_exec::Device;
use pomona_models::{Component, Model};
use pomona_task::images::{self, Classification, Logits, Preprocessing, accuracy};
use pomona_task::{LabelledFiles, Media};
use pomona_task::{ModelWeights, Objective, Residence};

use crate::args::{Eval, Usage};
use crate::context::{check_runs, open_model};
use crate::ui::Ui;

pub fn top1(a: &Eval, model: &Model, ui: &Ui) -> Result<()> {
    let component = model.only()?;
    let set = LabelledFiles::open(
        pictures(a, "top1", "pictures in a folder for each class")?,
        &component.config,
        Media::Pictures,
    )?;
    let on = prepared(a, set, component, ui)?;
    let device = Device::cpu();
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    let began = Instant::now();
    let found = run(ui, "evaluating", &on, &mut |advance| {
        accuracy(&component.graph, &weights, &on, a.batch, &device, advance)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let document = serde_json::json!({"task": "top1", "top1": found.top1(), "top5": found.top5(),
        "loss": found.mean_loss(), "pictures": found.count, "source": on.source(),
        "data_fingerprint": on.fingerprint(), "seconds": seconds});
    ui.result(&document, || {
        format!(
            "top-1 {:.2} %, top-5 {:.2} % on {} pictures ({}), {:.1} pictures/s\n",
            100.0 * found.top1(),
            100.0 * found.top5(),
            found.count,
            on.source(),
            found.count as f64 / seconds
        )
    })
}

pub fn agreement(a: &Eval, model: &Model, ui: &Ui) -> Result<()> {
    let component = model.only()?;
    let data = pictures(a, "agreement", "pictures")?;
    let Some(against) = &a.against else {
        return Err(Usage("--task agreement needs --against, the model to compare with".to_owned()).into());
    };
    let reference = open_model(against)?;
    check_runs(&reference)?;
    let dense = reference.only()?;
    // Both see what the reference wants to see.
    let on = prepared(a, LabelledFiles::unlabelled(data, Media::Pictures)?, dense, ui)?;
    if Preprocessing::of(component)? != *on.preprocessing() {
        ui.say(format!("{}: asks for other pictures than {}", a.model.display(), against.display()));
    }
    let device = Device::cpu();
    let wanted = reference_logits(a, dense, &on, &device, ui)?;
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    let began = Instant::now();
    let found = run(ui, "evaluating", &on, &mut |advance| {
        images::agreement(&wanted, &component.graph, &weights, &on, a.batch, &device, advance)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let document = serde_json::json!({"task": "agreement", "agreement": found.share(), "kl": found.kl(),
        "pictures": found.count, "against": against, "against_fingerprint": dense.fingerprint()?,
        "source": on.source(), "data_fingerprint": on.fingerprint(), "seconds": seconds});
    ui.result(&document, || {
        format!(
            "the same class as {} for {:.2} % of {} pictures ({}), KL divergence {:.4} nats, {:.1} pictures/s\n",
            against.display(),
            100.0 * found.share(),
            found.count,
            on.source(),
            found.kl(),
            found.count as f64 / seconds
        )
    })
}

/// Logits of the model that is compared with: from the file that keeps them, or computed and kept.
fn reference_logits(
    a: &Eval,
    dense: &Component,
    on: &Classification,
    device: &Device,
    ui: &Ui,
) -> Result<Logits> {
    let kept = a.keep_logits.as_deref();
    let identity = Logits::identity(&dense.fingerprint()?, on);
    if let Some(file) = kept.filter(|f| f.exists()) {
        return Ok(Logits::read(file, &identity)?);
    }
    let weights = ModelWeights::new(dense, device, Residence::Memory);
    let found = run(ui, "running the other model", on, &mut |advance| {
        images::logits(&dense.graph, &weights, on, a.batch, device, advance)
    })?;
    if let Some(file) = kept {
        found.write(file, &identity)?;
    }
    Ok(found)
}

fn pictures<'a>(a: &'a Eval, task: &str, what: &str) -> Result<&'a Path, Usage> {
    match &a.data {
        None => Err(Usage(format!("--task {task} needs --data, {what}"))),
        Some(data) if data.lines.is_some() => {
            Err(Usage("--data of pictures has no lines: --samples takes a part of them".to_owned()))
        }
        Some(data) => Ok(&data.path),
    }
}

/// The pictures that are asked for, as a model wants them.
fn prepared(a: &Eval, set: LabelledFiles, component: &Component, ui: &Ui) -> Result<Classification> {
    let set = a.samples.map_or_else(|| set.clone(), |n| set.even(n));
    let preprocessing = Preprocessing::of(component)?;
    ui.say(format!("pictures are prepared as {} says", preprocessing.source));
    Ok(Classification::new(set, preprocessing))
}

type Advance<'a> = &'a mut dyn FnMut(usize) -> pomona_task::Result<()>;

/// Runs over all pictures behind a bar.
fn run<T>(
    ui: &Ui,
    what: &'static str,
    on: &Classification,
    work: &mut dyn FnMut(Advance<'_>) -> pomona_task::Result<T>,
) -> Result<T> {
    let bar = ui.bar(what);
    bar.set_length(on.samples() as u64);
    let found = work(&mut |n| {
        bar.inc(n as u64);
        Ok(())
    });
    bar.finish_and_clear();
    Ok(found?)
}
