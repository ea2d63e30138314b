//! `pomona apply`.

use anyhow::{Context, Result};
use pomona_graph::{Plan, apply};
use pomona_models::{Model, SaveOptions, SavedReport, save};
use pomona_report::units;

use crate::args::{Apply, WriteOptions};
use crate::context::{open_model, read_plan};
use crate::ui::Ui;

pub fn run(a: &Apply, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    model.components.iter().try_for_each(|c| c.weights("applying a plan").map(|_| ()))?;
    let plan = read_plan(&a.plan)?;
    let named = || a.plan.display().to_string();
    let component = model.planned(&plan).with_context(named)?;
    // Said before any work, with the plan's name.
    apply(&component.graph, &plan.edits).with_context(named)?;
    let saved = apply_plan(&model, &plan, &a.write, ui)?;
    ui.result(&document(&saved), || describe(&saved))
}

/// Carries out a plan and saves the result.
pub fn apply_plan(model: &Model, plan: &Plan, write: &WriteOptions, ui: &Ui) -> Result<SavedReport> {
    let component = model.planned(plan)?;
    let (edited, recipe) = apply(&component.graph, &plan.edits)?;
    let options = options(write, Some(plan.clone()));
    let bar = ui.byte_bar("writing");
    let saved = save(model, &edited, &recipe, &options, &write.out, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(saved?)
}

/// Save options of the command line.
pub fn options(write: &WriteOptions, plan: Option<Plan>) -> SaveOptions {
    SaveOptions {
        format: super::output_format(write.format),
        dtype: write.dtype.map(super::encoding),
        shard_size: write.shard_size.max(1 << 20),
        force: write.force,
        opset: write.opset,
        drop_unused: write.drop_unused,
        plan,
        ..SaveOptions::default()
    }
}

/// What was saved, for `--json`.
pub fn document(saved: &SavedReport) -> serde_json::Value {
    serde_json::json!({"path": saved.path, "format": saved.format.name(), "bytes": saved.bytes,
        "tensors": saved.tensors, "notes": saved.notes})
}

/// What was saved, in words.
pub fn describe(saved: &SavedReport) -> String {
    let mut out = format!(
        "wrote {} ({}, {}, {} tensors)\n",
        saved.path.display(),
        saved.format.name(),
        units::bytes(saved.bytes),
        saved.tensors
    );
    for note in &saved.notes {
        out += &format!("note: {note}\n");
    }
    out
}
