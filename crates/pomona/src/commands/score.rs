//! `pomona score`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use pomona_exec::Device;
use pomona_models::Model;
use pomona_prune::methods::depth::{self, Scoring};
use pomona_prune::{Criterion, Scores, Settings, units};
use pomona_task::{ModelWeights, NextToken, Objective, Residence};

use crate::args::{Method, Score, ScoreOptions, Usage};
use crate::context::{
    TOOL, activation_bytes, calibration, check_runs, objective as next_token, open_model, residence,
    sweep_bytes,
};
use crate::ui::Ui;

pub fn run(a: &Score, ui: &Ui) -> Result<()> {
    match a.method {
        Method::Depth => {}
        Method::Wav2lipCompact => {
            bail!(Usage("wav2lip-compact scores what stays as it plans: it needs no scores".to_owned()))
        }
        method if method.is_width() => return super::filters::run_score(a, ui),
        _ => bail!(Usage("bk-sdm goes by the structure: it needs no scores".to_owned())),
    }
    let model = open_model(&a.model)?;
    let began = Instant::now();
    let named = a.criterion.as_deref();
    let named = named.ok_or_else(|| Usage("--method depth needs a --criterion".to_owned()))?;
    let scores = score(
        &model,
        named.parse().map_err(|e: String| Usage(format!("--criterion: {e}")))?,
        &a.options,
        Some(&a.out),
        ui,
    )?;
    let seconds = began.elapsed().as_secs_f64();
    // Time is no part of the file: a run that was killed and went on ends with the same bytes.
    let mut document = serde_json::to_value(&scores)?;
    document["seconds"] = seconds.into();
    ui.say(format!("scored in {}", pomona_report::units::seconds(seconds)));
    ui.result(&document, || text(&scores))
}

/// Scores a model, going on from the file where it holds an unfinished run.
pub fn score(
    model: &Model,
    criterion: Criterion,
    options: &ScoreOptions,
    out: Option<&Path>,
    ui: &Ui,
) -> Result<Scores> {
    if options.screen.is_some() && criterion != Criterion::Perplexity {
        bail!(Usage("--screen halves over samples: it goes with --criterion perplexity".to_owned()));
    }
    if criterion != Criterion::Random {
        model.weights("scoring")?;
    }
    if criterion.needs_data() {
        check_runs(model)?;
    }
    let graph = model.graph()?;
    let device = Device::by_name(&options.run_on)?;
    let (parts, _) = units(graph, options.unit)?;
    let needed = if criterion == Criterion::Perplexity { sweep_bytes } else { activation_bytes };
    let activations = needed(model, options.windows(), options.tokens, parts.len());
    let residence = match criterion {
        Criterion::Random => Residence::Streamed,
        // Each part is read once: keeping all of them would serve nothing.
        Criterion::Magnitude => residence(model.only()?, true, 0, ui)?,
        _ => residence(model.only()?, options.streamed, activations, ui)?,
    };
    let weights = ModelWeights::new(model.only()?, &device, residence);
    let objective: Option<NextToken> = match criterion.needs_data() {
        true => {
            let size = (options.windows(), options.tokens, options.seed);
            let windows = calibration(model, &weights, &device, options.data.as_ref(), size, ui)?;
            Some(next_token(windows)?)
        }
        false => None,
    };
    // What the data turned out to be: a file of token windows brings its own sizes.
    let ids = objective.as_ref().map(|o| &o.windows().ids);
    let size = ids.map_or((0, 0), |ids| (ids.len(), ids.first().map_or(0, Vec::len)));
    let settings = Settings {
        criterion,
        unit: options.unit,
        protect: options.protect,
        iterative: options.iterative,
        screen: options.screen,
        samples: size.0,
        tokens: size.1,
        seed: options.seed,
    };
    let fingerprint = model.fingerprint()?;
    let on = Scoring {
        graph,
        weights: &weights,
        objective: objective.as_ref().map(|o| o as &dyn Objective),
        device: &device,
        fingerprint: &fingerprint,
        tool: TOOL,
        group: size.0.div_ceil(5).max(1),
        save_every: options.save_every,
    };
    let bar = ui.bar("scoring");
    let found = depth::score(&on, &settings, out, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        Ok(())
    });
    bar.finish_and_clear();
    Ok(found?)
}

fn text(scores: &Scores) -> String {
    let mut out = String::new();
    if let Some(data) = &scores.data {
        out += &format!("calibrated on {}\n", data.source);
    }
    if let Some(dense) = scores.dense {
        out += &format!("perplexity of the whole model {dense:.3}\n");
    }
    let order = scores.order(scores.settings.protect);
    for (rank, path) in order.iter().enumerate() {
        let round = scores.rounds.iter().find(|r| r.removed == *path).map(|r| r.score);
        let single = scores.parts.iter().find(|p| p.path == *path).and_then(|p| p.score);
        out += &format!("{:>4}  {path:<32} {:.6}\n", rank + 1, round.or(single).unwrap_or(f64::NAN));
    }
    out + &format!("{} parts, least important first\n", order.len())
}
