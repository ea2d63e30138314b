//! `pomona plan`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use pomona_graph::{GraphDiff, Plan, apply, diff};
use pomona_models::{Model, OutputFormat, check_format, representable, stock_names};
use pomona_prune::methods::bk_sdm::{self, Variant};
use pomona_prune::methods::depth::{self, Planning};
use pomona_prune::{Goal, Scores};
use pomona_report::{compare_costs, removal};
use serde_json::Value;

use crate::args::{Method, PlanArgs, Usage};
use crate::context::{TOOL, component, cost_device, open_model};
use crate::ui::Ui;

pub fn run(a: &PlanArgs, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    if a.out.exists() && !a.force {
        bail!("{}: exists: choose another name, or --force to replace it", a.out.display());
    }
    if a.criterion.is_some() && a.method != Method::Wav2lipCompact {
        bail!(Usage("--criterion is for wav2lip-compact: other methods plan by --scores".to_owned()));
    }
    let plan = match (a.method.bk_sdm(), &a.scores, &a.target) {
        _ if a.method.is_width() => super::filters::run_plan(&model, a)?,
        _ if a.method == Method::Wav2lipCompact => {
            if a.scores.is_some() || a.target.is_some() {
                bail!(Usage("wav2lip-compact takes no --scores and no --target".to_owned()));
            }
            let stays =
                super::compact::Request { criterion: a.criterion.as_deref(), seed: a.seed, streamed: false };
            super::compact::plan(&model, a.component.as_deref(), &stays, ui)?
        }
        (Some(variant), None, None) => structural(&model, variant, a.component.as_deref())?,
        (Some(_), _, _) => {
            bail!(Usage("bk-sdm goes by the structure: it takes no --scores and no --target".to_owned()))
        }
        (None, Some(file), Some(target)) => {
            let scores = Scores::read(file)?;
            scores.check(file, model.matches(&scores.fingerprint)?)?;
            scores.check_parts(file, model.graph()?)?;
            plan(&model, &scores, target, a.protect)?
        }
        (None, _, _) => bail!(Usage("--method depth needs --scores and --target".to_owned())),
    };
    pomona_store::write_atomic(&a.out, plan.to_json()?.as_bytes())?;
    let effect = effect(&model, &plan)?;
    ui.result(&effect.document(&plan)?, || summary(&plan, &effect, ui) + &effect.formats)
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

/// A plan that follows from the structure of a U-Net alone.
pub fn structural(model: &Model, variant: Variant, name: Option<&str>) -> Result<Plan> {
    let component = component(model, name)?;
    let several = model.components.len() > 1;
    let on = bk_sdm::Planning {
        graph: &component.graph,
        component: several.then_some(component.name.as_str()),
        fingerprint: &component.fingerprint()?,
        tool: TOOL,
    };
    Ok(bk_sdm::plan(&on, variant)?)
}

/// What a plan does to a model, beside its costs.
pub struct Effect {
    diff: GraphDiff,
    /// New path or prefix of a path by the old one, where a stock library can hold the result under new numbers.
    renamed: BTreeMap<String, String>,
    /// Which formats can hold the result, said before any work.
    formats: String,
}

impl Effect {
    /// The plan, with the removal diff beside its own keys.
    pub fn document(&self, plan: &Plan) -> Result<Value> {
        let mut document = serde_json::to_value(plan)?;
        document["diff"] = serde_json::to_value(&self.diff)?;
        document["renamed"] = serde_json::to_value(&self.renamed)?;
        Ok(document)
    }
}

/// Works out what a plan does.
pub fn effect(model: &Model, plan: &Plan) -> Result<Effect> {
    let component = model.planned(plan)?;
    let (edited, _) = apply(&component.graph, &plan.edits)?;
    let has = |key: &str| component.config.get(key).is_some();
    let library = match (has("_class_name"), has("architecture")) {
        (true, _) => "diffusers",
        // A state dict beside a config of our own.
        (_, true) => "the architecture's own code",
        _ => "transformers",
    };
    let onnx = component.config.get("onnx").is_some();
    let mut formats = match representable(model, &edited)? {
        Err(_) if onnx => match check_format(model, &edited, OutputFormat::Onnx) {
            Ok(_) => "the result is an ONNX file again\n".to_owned(),
            Err(e) => format!("{e}\n"),
        },
        Ok(()) => format!("{library} can load the result\n"),
        Err(reasons) => format!("{library} cannot load the result: {}\n", reasons.join("; ")),
    };
    let ports = (component.graph.input("input_ids"), component.graph.output("logits"));
    let language_model = matches!(ports, (Some(_), Some(_))) || component.is_opaque();
    match check_format(model, &edited, OutputFormat::Gguf) {
        Ok(_) => formats += "llama.cpp can load the result (--format gguf)\n",
        Err(e) if language_model => formats += &format!("{e}\n"),
        Err(_) => {}
    }
    let renamed = stock_names(model, &edited)?.unwrap_or_default();
    Ok(Effect { diff: diff(&component.graph, &edited), renamed, formats })
}

/// Cost before and after, what goes, and what was reached.
pub fn summary(plan: &Plan, effect: &Effect, ui: &Ui) -> String {
    let mut out = compare_costs(&plan.before, &plan.after, &[], ui.style());
    match plan.method.as_str() {
        "filters" | "snp" | "heads" => {
            let what = if plan.method == "heads" { "heads" } else { "channels" };
            out += "\n";
            for line in &plan.removed {
                out += &format!("{line} {what} go\n");
            }
        }
        "depth" => out += &format!("\nremoves {}: {}\n", plan.removed.len(), plan.removed.join(", ")),
        _ => {
            out += &format!("\n{}", removal(&effect.diff, ui.style()));
            for (old, new) in &effect.renamed {
                out += &format!("{new} <- {old}\n");
            }
        }
    }
    if let Some(t) = &plan.target {
        out += &format!("target {}, reached {}\n", t.asked, t.reached);
    }
    out
}
