//! Filters: their scores, the sensitivity of layers, and plans.

use std::path::Path;

use anyhow::{Result, bail};
use pomona_exec::{Device, Tensor};
use pomona_graph::{Graph, Plan};
use pomona_models::{Component, Model};
use pomona_prune::criteria::filters::{Aggregate, FilterCriterion, Gamma};
use pomona_prune::methods::filters::{Choice, Planning, Scoring};
use pomona_prune::methods::{filters, inner_layers};
use pomona_prune::{
    DataId, FilterScores, FilterSettings, Fit, Goal, Ratios, Sample, ScoredUnit, Sensitivity, Sweep, sweep,
};
use pomona_report::{Line, LineChart, line_chart};
use pomona_task::{ModelWeights, Objective, Residence, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::args::{Method, PlanArgs, Score, ScoreOptions, Usage};
use crate::context::{TOOL, activation_bytes, component, config_hint, cost_device, open_model, residence};
use crate::filter_args::{FilterOptions, Metric};
use crate::ui::Ui;

/// What is scored and how.
pub struct Request<'a> {
    pub method: Method,
    pub criterion: Option<&'a str>,
    pub gamma: Gamma,
    pub aggregate: Aggregate,
    pub component: Option<&'a str>,
    pub options: &'a ScoreOptions,
}

/// `pomona score` of filters and of the sensitivity of layers.
pub fn run_score(a: &Score, ui: &Ui) -> Result<()> {
    let model = open_model(&a.model)?;
    let request = Request {
        method: a.method,
        criterion: a.criterion.as_deref(),
        gamma: a.filters.gamma,
        aggregate: a.filters.aggregate,
        component: a.filters.component.as_deref(),
        options: &a.options,
    };
    if a.method == Method::InnerLayers {
        let found = sensitivity(&model, &request, &a.filters.ratios, &a.out, ui)?;
        if let Some(file) = &a.filters.chart {
            pomona_store::write_atomic(file, line_chart(&chart(&found, a.filters.metric)).as_bytes())?;
            ui.say(format!("drawn in {}", file.display()));
        }
        return ui.result(&found, || sensitivity_text(&found));
    }
    let found = score(&model, &request, Some(&a.out), ui)?;
    ui.result(&found, || scores_text(&found))
}

/// Scores filters, going on from the file where it holds an unfinished run.
pub fn score(model: &Model, on: &Request<'_>, out: Option<&Path>, ui: &Ui) -> Result<FilterScores> {
    let criterion = criterion(on)?;
    let part = component(model, on.component)?;
    runnable(model, part)?;
    if criterion.needs_weights() {
        part.weights("scoring")?;
    }
    let device = Device::by_name(&on.options.run_on)?;
    let graph = &part.graph;
    let unit = if on.method == Method::Heads { ScoredUnit::Heads } else { ScoredUnit::Channels };
    let logits = filters::reads_logits(criterion, &filters::groups_of(graph, unit)?.0);
    // Without data each tensor is passed over once: there is nothing to keep.
    let residence = match criterion.needs_loss() || logits {
        true => {
            let activations = activation_bytes(model, on.options.windows(), on.options.tokens, 1);
            residence(part, on.options.streamed, activations, ui)?
        }
        false => Residence::Streamed,
    };
    let weights = ModelWeights::new(part, &device, residence);
    let data: Option<Box<dyn Objective>> = match (criterion.needs_loss(), logits) {
        (true, _) => Some(loss(model, part, (&weights, &device), on.options, ui)?),
        (_, true) => Some(super::pictures::seen(model, part, (&weights, &device), on.options, ui)?),
        _ => None,
    };
    let samples = data.as_ref().map_or(0, |d| d.samples());
    let settings = FilterSettings {
        criterion,
        aggregate: on.aggregate,
        samples,
        seed: on.options.seed,
        unit,
        gamma: logits.then_some(on.gamma),
    };
    let fingerprint = part.fingerprint()?;
    let scoring = Scoring {
        graph,
        weights: &weights,
        objective: data.as_deref(),
        device: &device,
        fingerprint: &fingerprint,
        component: several(model, part),
        tool: TOOL,
        at_once: samples.div_ceil(5).clamp(1, if logits { AT_ONCE } else { 32 }),
        save_every: on.options.save_every,
    };
    let bar = ui.bar("scoring");
    let found = filters::score(&scoring, &settings, out, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        Ok(())
    });
    bar.finish_and_clear();
    Ok(found?)
}

/// Samples whose queries and keys are in memory together.
const AT_ONCE: usize = 8;

/// The criterion by name: `reverse` is the opposite of the method's own.
fn criterion(on: &Request<'_>) -> Result<FilterCriterion> {
    let snp = matches!(on.method, Method::Snp | Method::Heads);
    Ok(match on.criterion {
        None if snp => FilterCriterion::Snp,
        Some("reverse") if snp => FilterCriterion::SnpReverse,
        name => name.unwrap_or("l1").parse().map_err(|e: String| Usage(format!("--criterion: {e}")))?,
    })
}

fn runnable(model: &Model, part: &Component) -> Result<()> {
    if part.is_opaque() {
        bail!(
            "`{}` opens as an opaque model: its axis groups are not known; {}`--method depth` cuts its blocks",
            model.architecture,
            config_hint(model)
        );
    }
    Ok(())
}

fn several<'a>(model: &Model, part: &'a Component) -> Option<&'a str> {
    (model.components.len() > 1).then_some(part.name.as_str())
}

/// Data with a loss: text for a language model, tensors with a target for any other.
fn loss(
    model: &Model,
    part: &Component,
    (weights, device): (&ModelWeights<'_>, &Device),
    options: &ScoreOptions,
    ui: &Ui,
) -> Result<Box<dyn Objective>> {
    if let Some(text) = super::pictures::text(model, part, (weights, device), options, ui)? {
        return Ok(text);
    }
    match &options.data {
        Some(range) => Ok(Box::new(TensorData::read(&range.path, &part.graph, options.windows())?)),
        None => bail!(Usage(
            "this criterion needs --data FILE.safetensors with a tensor for each input and `target`"
                .to_owned()
        )),
    }
}

/// Measures the sensitivity of every layer.
fn sensitivity(model: &Model, on: &Request<'_>, ratios: &[f64], out: &Path, ui: &Ui) -> Result<Sensitivity> {
    let part = component(model, on.component)?;
    runnable(model, part)?;
    part.weights("measuring sensitivity")?;
    let scores = score(model, on, None, ui)?;
    let device = Device::by_name(&on.options.run_on)?;
    let residence = residence(part, on.options.streamed, activation_bytes(model, 1, 1, 1), ui)?;
    let weights = ModelWeights::new(part, &device, residence);
    let (samples, data) = match &on.options.data {
        Some(range) => {
            let data = TensorData::read(&range.path, &part.graph, on.options.windows())?;
            let samples =
                (0..data.samples()).map(|i| data.sample(i, &device)).collect::<pomona_task::Result<_>>()?;
            (samples, DataId { fingerprint: data.fingerprint(), source: data.source() })
        }
        None => noise(&part.graph, on.options.windows(), on.options.seed, &device)?,
    };
    ui.say(format!("measured on {}", data.source));
    let on = Sweep {
        graph: &part.graph,
        weights: &weights,
        scores: &scores,
        samples: &samples,
        data,
        device: &device,
    };
    let bar = ui.bar("measuring");
    let found = sweep(&on, ratios, Some(out), &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        Ok(())
    });
    bar.finish_and_clear();
    Ok(found?)
}

/// Uniform noise on [-1, 1] for every input: what there is where no pictures are given.
fn noise(graph: &Graph, count: usize, seed: u64, device: &Device) -> Result<(Vec<Sample>, DataId)> {
    let bound = graph.bind(&pomona_cost::default_bindings(graph))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let mut sample = Sample::new();
        for port in &bound.inputs {
            let value = bound.value(port.value);
            if value.ty != pomona_graph::ValueType::Float {
                bail!(Usage(format!("input `{}` takes no noise: give --data FILE.safetensors", port.name)));
            }
            let shape: Vec<usize> =
                value.shape.iter().map(|d| d.size(&port.name)).collect::<Result<_, _>>()?;
            let values = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..=1.0)).collect();
            sample.insert(port.name.clone(), Tensor::from_f32(values, &shape, device)?);
        }
        samples.push(sample);
    }
    let source = format!("{count} samples of noise, seed {seed}");
    Ok((samples, DataId { fingerprint: format!("noise-{count}-{seed}"), source }))
}

fn scores_text(scores: &FilterScores) -> String {
    let mut out = String::new();
    if let Some(data) = &scores.data {
        out += &format!("calibrated on {}\n", data.source);
    }
    for g in &scores.groups {
        let (low, high) =
            g.scores.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), s| (l.min(*s), h.max(*s)));
        out += &match g.scores.is_empty() {
            true => format!("{:<48} nothing to measure: stays whole\n", g.name),
            false => format!(
                "{:<48} {:>5} {}  {low:.4} to {high:.4}\n",
                g.name,
                g.scores.len(),
                scores.settings.unit.name()
            ),
        };
    }
    out + &format!("{} groups by {}\n", scores.groups.len(), scores.settings.criterion.name())
}

fn sensitivity_text(found: &Sensitivity) -> String {
    let mut out =
        format!("measured on {}\n{:<40} level  share     L1    PSNR    SSIM\n", found.data.source, "layer");
    let number = |v: Option<f64>, digits: usize| v.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    for r in &found.rows {
        let level = r.level.map_or("-".to_owned(), |l| l.to_string());
        out += &format!(
            "{:<40} {level:>5} {:>5.0}% {:>7.4} {:>6} {:>7}\n",
            r.layer,
            r.ratio * 100.0,
            r.l1,
            number(r.psnr, 2),
            number(r.ssim, 4)
        );
    }
    out
}

/// The sweep as a picture: a line a ratio over the layers in order.
pub fn chart(found: &Sensitivity, metric: Metric) -> LineChart {
    let layers = found.layers();
    let value = |r: &pomona_prune::SensitivityRow| match metric {
        Metric::L1 => Some(r.l1),
        Metric::Psnr => r.psnr,
        Metric::Ssim => r.ssim,
    };
    let line = |ratio: &f64| Line {
        name: format!("{:.0} % cut", ratio * 100.0),
        values: layers
            .iter()
            .map(|(l, _)| found.rows.iter().find(|r| r.layer == *l && r.ratio == *ratio).and_then(value))
            .collect(),
    };
    // The first layer that works at a finer resolution than the one before: behind the bottleneck.
    let up = layers.windows(2).position(|w| w[1].1.zip(w[0].1).is_some_and(|(b, a)| b < a));
    let unit = match metric {
        Metric::L1 => "mean |difference| from the uncut output",
        Metric::Psnr => "PSNR against the uncut output, dB",
        Metric::Ssim => "SSIM against the uncut output",
    };
    LineChart {
        title: format!("Sensitivity of each layer, by {}", found.settings.filters.criterion.name()),
        unit: unit.to_owned(),
        places: layers.iter().map(|(l, level)| place(l, *level)).collect(),
        marks: up.map(|i| (i + 1, "decoder".to_owned())).into_iter().collect(),
        lines: found.settings.ratios.iter().map(line).collect(),
    }
}

/// A name that fits below a chart: longer paths by their level and end.
fn place(path: &str, level: Option<usize>) -> String {
    match level {
        Some(level) if path.len() > 12 => {
            let parts: Vec<&str> = path.rsplitn(3, '.').collect();
            format!("level {level}, {}.{}", parts.get(1).unwrap_or(&""), parts[0])
        }
        _ => path.to_owned(),
    }
}

/// `pomona plan` of filters and inner layers.
pub fn run_plan(model: &Model, a: &PlanArgs) -> Result<Plan> {
    let scores = match &a.scores {
        Some(file) => {
            let scores = FilterScores::read(file)?;
            let name = scores.component.as_deref().or(a.component.as_deref());
            let part = component(model, name)?;
            scores.check(file, fits(part, &scores.fingerprint)?)?;
            Some(scores)
        }
        None => None,
    };
    plan(model, a.method, scores.as_ref(), (a.target.as_ref(), &a.filters), a.component.as_deref())
}

/// Whether scores of this fingerprint are of this component: made from its files, or from its config alone.
fn fits(part: &Component, fingerprint: &str) -> Result<bool> {
    Ok(part.matches(fingerprint)?)
}

/// Plans filters or inner layers.
pub fn plan(
    model: &Model,
    method: Method,
    scores: Option<&FilterScores>,
    (target, options): (Option<&Goal>, &FilterOptions),
    name: Option<&str>,
) -> Result<Plan> {
    let part = component(model, scores.and_then(|s| s.component.as_deref()).or(name))?;
    runnable(model, part)?;
    let fingerprint = part.fingerprint()?;
    let device = match target {
        Some(Goal::Latency { device, .. }) => Some(cost_device(device)?),
        _ => None,
    };
    let graph = &part.graph;
    let component = several(model, part);
    if method == Method::InnerLayers {
        let cut = match (scores, target, options.ratio.as_slice()) {
            (None, None, []) => None,
            (Some(scores), target, ratio) => {
                let share = match (target, ratio) {
                    (Some(goal), []) => inner_layers::Share::Target(goal),
                    (None, [(all, r)]) if all == "*" => inner_layers::Share::Ratio(*r),
                    _ => bail!(Usage(
                        "inner-layers takes one --ratio SHARE for all its levels, or a --target".to_owned()
                    )),
                };
                let from = options.from_level.unwrap_or(1);
                Some(inner_layers::Cut { scores, limits: options.limits(), from, share })
            }
            (None, _, _) => bail!(Usage("cutting filters of inner levels needs --scores".to_owned())),
        };
        if cut.is_none() && options.drop_levels == 0 {
            bail!(Usage(
                "nothing is asked for: --drop-levels N takes levels out, --scores with --ratio or --target cuts filters"
                    .to_owned()
            ));
        }
        let on = inner_layers::Planning {
            graph,
            drop: options.drop_levels,
            cut,
            device: device.as_ref(),
            fingerprint: &fingerprint,
            component,
            tool: TOOL,
        };
        return Ok(inner_layers::plan(&on)?);
    }
    let (method, unit, fit) = match method {
        Method::Snp => ("snp", ScoredUnit::Channels, Fit::Nearest),
        Method::Heads => ("heads", ScoredUnit::Heads, Fit::Nearest),
        _ => ("filters", ScoredUnit::Channels, Fit::AtMost),
    };
    let Some(scores) = scores else {
        bail!(Usage(format!(
            "--method {method} needs --scores (`pomona score --method {method} --criterion random` makes some from a config alone, \
             for sizes)"
        )));
    };
    if scores.settings.unit != unit {
        bail!(Usage(format!(
            "--method {method} cuts {}; the scores are of {}: `pomona score --method {method}`",
            unit.name(),
            scores.settings.unit.name()
        )));
    }
    let file = options.ratio_file.as_deref().map(Ratios::read).transpose()?;
    let listed = file.as_ref().map(|f| f.of(&filters::groups_of(graph, unit)?.0)).transpose()?;
    let choice = match (target, options.ratio.as_slice(), &listed) {
        (Some(goal), [], None) => Choice::Target(goal, options.order()),
        (None, [], Some(list)) => Choice::Ratios(list, file.as_ref().map(Ratios::words)),
        (None, list, None) if !list.is_empty() => Choice::Ratios(list, None),
        _ => bail!(Usage(format!(
            "--method {method} needs a --target, --ratio [NAME=]SHARE or --ratio-file FILE"
        ))),
    };
    let on = Planning {
        graph,
        scores,
        limits: options.limits(),
        choice,
        fit,
        method,
        device: device.as_ref(),
        fingerprint: &fingerprint,
        component,
        tool: TOOL,
    };
    Ok(filters::plan(&on)?)
}
