//! `pomona compress`: score, plan, apply, verify.

use std::path::Path;

use anyhow::{Result, bail};
use pomona_graph::{Plan, apply};
use pomona_models::{Model, check_format};
use pomona_prune::{FilterScores, Goal};

use crate::args::{Compress, Method, Usage};
use crate::context::{beside, open_model};
use crate::ui::Ui;

pub fn run(a: &Compress, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    if a.write.out.exists() && !a.write.force {
        bail!("{}: exists: choose another name, or --force to replace it", a.write.out.display());
    }
    pomona_models::check_unused(&model, a.write.drop_unused)?;
    let scores_path = beside(&a.write.out, "scores.json");
    let (plan, kept) = match (a.method.bk_sdm(), &a.target) {
        _ if a.method.is_width() => {
            // Levels that are taken out need no scores.
            let cuts = a.method != Method::InnerLayers || a.target.is_some() || !a.filters.ratio.is_empty();
            let scores = match cuts {
                true => Some(filter_scores(&model, a, &scores_path, ui)?),
                false => None,
            };
            let wanted = (a.target.as_ref(), &a.filters);
            let plan =
                super::filters::plan(&model, a.method, scores.as_ref(), wanted, a.component.as_deref())?;
            (plan, cuts.then_some(scores_path))
        }
        _ if a.method == Method::Wav2lipCompact => {
            if a.target.is_some() {
                bail!(Usage("wav2lip-compact takes no --target".to_owned()));
            }
            let stays = super::compact::Request {
                criterion: a.criterion.as_deref(),
                seed: a.options.seed,
                streamed: a.options.streamed,
            };
            (super::compact::plan(&model, a.component.as_deref(), &stays, ui)?, None)
        }
        (Some(variant), None) => (super::plan::structural(&model, variant, a.component.as_deref())?, None),
        (Some(_), Some(_)) => bail!(Usage("bk-sdm goes by the structure: it takes no --target".to_owned())),
        (None, None) => bail!(Usage("--method depth needs a --target".to_owned())),
        (None, Some(target)) => (scored(&model, a, target, &scores_path, ui)?, Some(scores_path)),
    };
    let effect = super::plan::effect(&model, &plan)?;
    let (edited, _) = apply(&model.planned(&plan)?.graph, &plan.edits)?;
    check_format(&model, &edited, super::output_format(a.write.format))?;
    let plan_path = beside(&a.write.out, "plan.json");
    pomona_store::write_atomic(&plan_path, plan.to_json()?.as_bytes())?;
    let saved = super::apply::apply_plan(&model, &plan, &a.write, ui)?;
    let ran = super::verify::quick(&saved.path, ui)?;
    let document = serde_json::json!({"plan": effect.document(&plan)?, "output": super::apply::document(&saved), "ran": ran,
        "scores": kept, "plan_file": plan_path});
    ui.result(&document, || {
        let mut text = super::plan::summary(&plan, &effect, ui) + &super::apply::describe(&saved);
        let scores = kept.map(|k| format!(" scores in {},", k.display())).unwrap_or_default();
        text += &format!("verified;{scores} plan in {}\n", plan_path.display());
        text
    })
}

/// Scores filters, or goes on from the scores beside the output.
fn filter_scores(model: &Model, a: &Compress, kept: &Path, ui: &Ui) -> Result<FilterScores> {
    let request = super::filters::Request {
        method: a.method,
        criterion: a.criterion.as_deref(),
        gamma: a.gamma,
        aggregate: a.aggregate,
        component: a.component.as_deref(),
        options: &a.options,
    };
    super::filters::score(model, &request, Some(kept), ui)
}

/// Scores a model, or goes on from the scores beside the output, and plans for the target.
fn scored(model: &Model, a: &Compress, target: &Goal, kept: &Path, ui: &Ui) -> Result<Plan> {
    let mut options = a.options.clone();
    // A target in blocks says how often an iterative run must score.
    if let (Some(0), Goal::Blocks(n)) = (options.iterative, target) {
        options.iterative = Some(*n);
    }
    let criterion = a
        .criterion
        .as_deref()
        .unwrap_or("perplexity")
        .parse()
        .map_err(|e: String| Usage(format!("--criterion: {e}")))?;
    let scores = super::score::score(model, criterion, &options, Some(kept), ui)?;
    super::plan::plan(model, &scores, target, None)
}
