//! `pomona verify`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use pomona_exec::Device;
use pomona_graph::{Plan, apply, compose};
use pomona_models::recipe_exec::materialise_rows;
use pomona_models::{Model, verify_output};
use pomona_task::{ModelWeights, run_through, smallest_feeds};
use serde_json::json;

use crate::args::Verify;
use crate::context::{activation_bytes, open_model, read_plan, residence};
use crate::ui::Ui;

/// Rows of a tensor that are compared at a time, in elements.
const CHUNK: usize = 4 << 20;

pub fn run(a: &Verify, ui: &Ui) -> Result<()> {
    if !a.output.exists() {
        bail!("{}: does not exist: give a directory that pomona wrote", a.output.display());
    }
    let output = verify_output(&a.output)?;
    let compared = match (&a.against, &a.plan) {
        (Some(model), Some(plan)) => {
            let (model, read) = (open_model(model)?, read_plan(plan)?);
            model.check_plan(&read).with_context(|| plan.display().to_string())?;
            Some(against(&output, &model, &read, ui)?)
        }
        _ => None,
    };
    let ran = smallest_run(&output, ui)?;
    let path = &a.output;
    let document = json!({"path": path, "shapes": "equal", "tensors_compared": compared, "ran": ran});
    ui.result(&document, || {
        let mut text = format!("{}: opens, every shape is as declared\n", path.display());
        if let Some(n) = compared {
            text += &format!("{n} tensors equal the source's under the plan\n");
        }
        text + if ran { "ran once with finite results\n" } else { "not run: its computation is not known\n" }
    })
}

/// Opens and runs an output once.
pub fn quick(path: &Path, ui: &Ui) -> Result<bool> {
    smallest_run(&verify_output(path)?, ui)
}

/// Every tensor of the output against the source's, made by the plan's recipe; row chunk by row chunk.
fn against(output: &Model, source: &Model, plan: &Plan, ui: &Ui) -> Result<usize> {
    let component = source.planned(plan)?;
    let (edited, recipe) = apply(&component.graph, &plan.edits)?;
    let whole = compose(&recipe, &component.import)?;
    let output = match output.components.as_slice() {
        [one] => one,
        _ => output.component(Some(&component.name))?,
    };
    let ours = &output.graph;
    let bar = ui.bar("comparing");
    bar.set_length(edited.tensors.len() as u64);
    for t in &edited.tensors {
        bar.inc(1);
        let made = whole.output(&t.name).context("the recipe misses a tensor")?;
        let found = ours.find_tensor(&t.name);
        let Some(found) = found else { bail!("tensor `{}` is missing in the output", t.name) };
        let dtype = &ours.tensor(found).dtype;
        let rows = t.shape.first().copied().unwrap_or(1);
        let width: usize = t.shape.get(1..).unwrap_or_default().iter().product();
        let step = (CHUNK / width.max(1)).max(1);
        for start in (0..rows).step_by(step) {
            let range = start..(start + step).min(rows);
            // In the output's own type: an output that rounds is compared with the rounded source.
            let expr = match pomona_graph::is_plain_dtype(dtype) {
                true => made.expr.clone().cast(dtype.clone()),
                false => made.expr.clone(),
            };
            let wanted = materialise_rows(&expr, component.checkpoint.as_ref(), range.clone())?;
            let got = output.materialise_rows(&t.name, range.clone())?;
            let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            if let Some(at) = got.iter().zip(&wanted).position(|p| !equal(p)) {
                bail!(
                    "tensor `{}` differs from the source in row {}: {} against {}",
                    t.name,
                    range.start + at / width.max(1),
                    got[at],
                    wanted[at]
                );
            }
        }
    }
    bar.finish_and_clear();
    Ok(edited.tensors.len())
}

/// The smallest legal input through every component, part by part where it is larger than memory.
fn smallest_run(model: &Model, ui: &Ui) -> Result<bool> {
    let device = Device::cpu();
    let mut all = true;
    for component in &model.components {
        if component.is_opaque() {
            all = false;
            continue;
        }
        let residence = residence(component, false, activation_bytes(model, 1, 2, 0), ui)?;
        let weights = ModelWeights::new(component, &device, residence);
        let feeds = smallest_feeds(&component.graph, &device)?;
        run_through(&component.graph, &weights, feeds)?;
    }
    Ok(all)
}
