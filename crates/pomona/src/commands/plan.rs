//! `pomona plan`.

use anyhow::{Result, bail};
use pomona_graph::{Graph, Plan, apply};
use pomona_models::{Model, OutputFormat, check_format, representable};
use pomona_prune::methods::depth::{self, Planning};
use pomona_prune::{Goal, Scores};
use pomona_report::compare_costs;

use crate::args::PlanArgs;
use crate::context::{TOOL, cost_device, open_model};
use crate::ui::Ui;

pub fn run(a: &PlanArgs, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    let scores = Scores::read(&a.scores)?;
    scores.check(&a.scores, model.matches(&scores.fingerprint)?)?;
    if a.out.exists() && !a.force {
        bail!("{} exists: choose another name, or --force to replace it", a.out.display());
    }
    let plan = plan(&model, &scores, &a.target, a.protect)?;
    pomona_store::write_atomic(&a.out, plan.to_json()?.as_bytes())?;
    let formats = formats(&model, &plan)?;
    ui.result(&plan, || summary(&plan, ui) + &formats)
}

/// The smallest plan that meets a goal.
pub fn plan(model: &Model, scores: &Scores, goal: &Goal, protect: Option<[usize; 2]>) -> Result<Plan> {
    let device = match goal {
        Goal::Latency { device, .. } => Some(cost_device(device)?),
        _ => None,
    };
    Ok(depth::plan(&Planning {
        graph: model.graph()?,
        scores,
        protect: protect.unwrap_or(scores.settings.protect),
        goal,
        device: device.as_ref(),
        fingerprint: &model.fingerprint()?,
        tool: TOOL,
    })?)
}

/// Cost before and after, what goes, and what was reached.
pub fn summary(plan: &Plan, ui: &Ui) -> String {
    let mut out = compare_costs(&plan.before, &plan.after, &[], ui.style());
    out += &format!("\nremoves {}: {}\n", plan.removed.len(), plan.removed.join(", "));
    if let Some(t) = &plan.target {
        out += &format!("target {}, reached {}\n", t.asked, t.reached);
    }
    out
}

/// Which formats can hold the result, said before any work.
pub fn formats(model: &Model, plan: &Plan) -> Result<String> {
    let (edited, _): (Graph, _) = apply(model.graph()?, &plan.edits)?;
    let mut out = String::new();
    match representable(model, &edited)? {
        Ok(()) => out += "transformers can load the result\n",
        Err(reasons) => out += &format!("transformers cannot load the result: {}\n", reasons.join("; ")),
    }
    match check_format(model, &edited, OutputFormat::Gguf) {
        Ok(_) => out += "llama.cpp can load the result (--format gguf)\n",
        Err(e) => out += &format!("{e}\n"),
    }
    Ok(out)
}
