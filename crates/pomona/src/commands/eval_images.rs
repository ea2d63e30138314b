//! `pomona eval --task top1`.

use std::time::Instant;

use anyhow::Result;
use pomona_exec::Device;
use pomona_models::Model;
use pomona_task::images::{Classification, ImageSet, Preprocessing, accuracy};
use pomona_task::{ModelWeights, Objective, Residence};

use crate::args::{Eval, Usage};
use crate::ui::Ui;

pub fn top1(a: &Eval, model: &Model, ui: &Ui) -> Result<()> {
    let component = model.only()?;
    let Some(data) = &a.data else {
        return Err(Usage("--task top1 needs --data, pictures in a folder for each class".to_owned()).into());
    };
    if data.lines.is_some() {
        return Err(
            Usage("--data of pictures has no lines: --samples takes a part of them".to_owned()).into()
        );
    }
    let mut set = ImageSet::open(&data.path, &component.config)?;
    if let Some(n) = a.samples {
        set = set.even(n);
    }
    let preprocessing = Preprocessing::of(component)?;
    ui.say(format!("pictures are prepared as {} says", preprocessing.source));
    let device = Device::cpu();
    let weights = ModelWeights::new(component, &device, Residence::Memory);
    let on = Classification::new(set, preprocessing);
    let bar = ui.bar("evaluating");
    bar.set_length(on.samples() as u64);
    let began = Instant::now();
    let found = accuracy(&component.graph, &weights, &on, a.batch, &device, &mut |n| {
        bar.inc(n as u64);
        Ok(())
    });
    bar.finish_and_clear();
    let (found, seconds) = (found?, began.elapsed().as_secs_f64());
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
