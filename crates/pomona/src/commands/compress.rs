//! `pomona compress`: score, plan, apply, verify.

use std::path::PathBuf;

use anyhow::{Result, bail};
use pomona_graph::apply;
use pomona_models::check_format;

use crate::args::Compress;
use crate::context::open_model;
use crate::ui::Ui;

pub fn run(a: &Compress, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    if a.write.out.exists() && !a.write.force {
        bail!("{} exists: choose another name, or --force to replace it", a.write.out.display());
    }
    let mut options = a.options.clone();
    // A target in blocks says how often an iterative run must score.
    if let (Some(0), pomona_prune::Goal::Blocks(n)) = (options.iterative, &a.target) {
        options.iterative = Some(*n);
    }
    let kept = beside(&a.write.out, "scores.json");
    let scores = super::score::score(&model, a.criterion, &options, Some(&kept), ui)?;
    let plan = super::plan::plan(&model, &scores, &a.target, None)?;
    let (edited, _) = apply(model.graph()?, &plan.edits)?;
    check_format(&model, &edited, super::output_format(a.write.format))?;
    let plan_path = beside(&a.write.out, "plan.json");
    pomona_store::write_atomic(&plan_path, plan.to_json()?.as_bytes())?;
    let saved = super::apply::apply_plan(&model, &plan, &a.write, ui)?;
    let ran = super::verify::quick(&saved.path, ui)?;
    let document = serde_json::json!({"plan": plan, "output": super::apply::document(&saved), "ran": ran,
        "scores": kept, "plan_file": plan_path});
    ui.result(&document, || {
        let mut text = super::plan::summary(&plan, ui) + &super::apply::describe(&saved);
        text += &format!("verified; scores in {}, plan in {}\n", kept.display(), plan_path.display());
        text
    })
}

/// `OUT.name` beside OUT: kept, because a new target needs only a new plan.
fn beside(out: &std::path::Path, name: &str) -> PathBuf {
    let mut file = out.file_name().unwrap_or_default().to_owned();
    file.push(format!(".{name}"));
    out.with_file_name(file)
}
