//! What a run leaves: the model, adapters, curves, a table.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use pomona_exec::peak_memory;
use pomona_graph::Recipe;
use pomona_models::{Change, Model, SaveOptions, save, stock_names};
use pomona_report::{Align, Line, LineChart, Table, line_chart, units};
use pomona_train::adapter;
use pomona_train::checkpoint::{self, AVERAGE, RUNNING, TENSORS, WEIGHT};
use pomona_train::log::read_lines;
use pomona_train::{Finished, Losses};
use serde_json::{Value, json};

use super::{Job, Trained, source_name};
use crate::context::open_model;
use crate::ui::Ui;

/// Points of a curve.
const POINTS: usize = 40;

/// A run that came to its end.
pub struct Written<'a> {
    pub job: &'a Job<'a>,
    pub model: &'a Model,
    pub trained: &'a Trained,
    pub identity: Value,
    pub folder: &'a Path,
}

impl Written<'_> {
    pub fn finish(&self, done: &Finished, unit: &str, ui: &Ui) -> Result<()> {
        let mut steps = read_lines(&self.folder.join("log.jsonl"))?;
        let held: Vec<f64> = steps.iter().filter_map(|v| v.get("valid")?.as_f64()).collect();
        let held = held.first().copied().zip(held.last().copied());
        steps.retain(|v| v.get("loss").is_some());
        let loss = |s: &[Value]| {
            let values: Vec<f64> = s.iter().filter_map(|v| v.get("loss")?.as_f64()).collect();
            values.iter().sum::<f64>() / values.len().max(1) as f64
        };
        let few = steps.len().div_ceil(10);
        let (first, last) = (loss(&steps[..few]), loss(&steps[steps.len() - few..]));
        let p = &done.progress;
        let speed = p.units as f64 / p.seconds.max(1e-9);
        let record = json!({"tool": crate::context::TOOL, "from": source_name(self.model), "settings": self.identity,
            "steps": p.step, unit: p.units, "loss_first": first, "loss_last": last});
        let saved = self.save(&done.checkpoint.join(TENSORS), record, ui)?;
        let ran = super::super::verify::quick(&saved.path, ui)?;
        if let Some(out) = &self.job.train.adapter_out {
            self.adapters(out)?;
        }
        if !self.job.train.keep_checkpoints {
            for (_, old) in checkpoint::list(self.folder)? {
                std::fs::remove_dir_all(&old).with_context(|| old.display().to_string())?;
            }
        }
        let peak = peak_memory();
        let document = json!({"output": super::super::apply::document(&saved), "ran": ran, "steps": p.step,
            unit: p.units, "seconds": p.seconds, format!("{unit}_per_second"): speed, "loss_first": first, "loss_last": last,
            "held_out_first": held.map(|h| h.0), "held_out_last": held.map(|h| h.1),
            "trained_parameters": self.trained.parameters.elements(), "peak_memory": peak, "resumed_at": done.resumed_at,
            "log": self.folder.join("log.jsonl"), "adapters": self.job.train.adapter_out});
        ui.result(&document, || {
            let mut table = Table::new(&[("", Align::Left), ("", Align::Right)]);
            let per_second = format!("{unit}/s");
            let both = held.map_or_else(String::new, |(a, b)| format!("{a:.4} to {b:.4}"));
            for (name, value) in [
                ("steps", units::exact(p.step)),
                (unit, units::exact(p.units)),
                ("time", units::seconds(p.seconds)),
                (&per_second, format!("{speed:.1}")),
                ("loss, first tenth", format!("{first:.4}")),
                ("loss, last tenth", format!("{last:.4}")),
                ("held out", both),
                ("peak memory", peak.map_or_else(|| "-".to_owned(), units::bytes)),
            ] {
                if !value.is_empty() {
                    table.row([name.to_owned(), value]);
                }
            }
            let table = table.render(ui.style());
            let logs = format!("verified; log and curves in {}\n", self.folder.display());
            table.trim_start_matches('\n').to_owned() + &super::super::apply::describe(&saved) + &logs
        })
    }

    fn save(&self, file: &Path, record: Value, ui: &Ui) -> Result<pomona_models::SavedReport> {
        let averaged = self.job.train.ema.is_some();
        let group = if averaged { AVERAGE } else { WEIGHT };
        let changes: BTreeMap<String, Change> = match self.trained.low {
            Some(low) => adapter::merged(&self.trained.sites, low, group),
            None => {
                let of_graph = self.trained.parameters.of_graph.values();
                let names = of_graph.map(|i| &self.trained.parameters.list[*i].name);
                let learnt = names.map(|n| (n.as_str(), group));
                let followed = if averaged { AVERAGE } else { RUNNING };
                let followed = self.trained.parameters.running.names().map(|n| (n, followed));
                let all = learnt.chain(followed);
                all.map(|(n, group)| (n.to_owned(), Change::Replaced(format!("{group}{n}")))).collect()
            }
        };
        let mut model = open_model(self.job.model)?;
        let name = super::component(&model, self.job.train.component.as_deref())?.name.clone();
        let Some(at) = model.components.iter().position(|c| c.name == name) else {
            anyhow::bail!("the model has no component `{name}` any more");
        };
        model.components[at].take_trained(file, &changes, self.job.write.dtype.is_none())?;
        let graph = &model.components[at].graph;
        let recipe = Recipe::identity(graph.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())));
        let options =
            SaveOptions { training: Some(record), ..super::super::apply::options(self.job.write, None) };
        let bar = ui.byte_bar("writing");
        let saved = save(&model, graph, &recipe, &options, &self.job.write.out, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        Ok(saved?)
    }

    /// The adapters under the names that the model has for transformers.
    fn adapters(&self, out: &Path) -> Result<()> {
        let Some(low) = self.trained.low else { return Ok(()) };
        let component = super::component(self.model, self.job.train.component.as_deref())?;
        let stock = stock_names(self.model, &component.graph)?.unwrap_or_default();
        // The longest renamed prefix of a path decides.
        let rename = |path: &str| {
            let fits = |old: &&String| {
                path.strip_prefix(old.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.'))
            };
            match stock.keys().filter(fits).max_by_key(|k| k.len()) {
                Some(old) => format!("{}{}", stock[old], &path[old.len()..]),
                None => path.to_owned(),
            }
        };
        let causal = component.graph.output("logits").is_some();
        let base = self.job.model.display().to_string();
        let (sites, parameters) = (&self.trained.sites, &self.trained.parameters);
        Ok(adapter::save_peft(sites, low, parameters, (&base, causal), &rename, (out, self.job.write.force))?)
    }
}

/// `curves.svg`: each term of the loss, averaged over stretches of steps.
pub fn curves(folder: &Path, losses: &Losses) -> Result<()> {
    let log = folder.join("log.jsonl");
    if !log.is_file() {
        return Ok(());
    }
    let steps = read_lines(&log)?;
    if steps.is_empty() {
        return Ok(());
    }
    let stretch = steps.len().div_ceil(POINTS);
    let parts: Vec<&[Value]> = steps.chunks(stretch).collect();
    let mean = |part: &[Value], pick: &dyn Fn(&Value) -> Option<f64>| {
        let values: Vec<f64> = part.iter().filter_map(pick).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let mut names: Vec<String> = steps
        .last()
        .and_then(|s| s.get("losses")?.as_object())
        .map(|o| o.keys().cloned().collect())
        .unwrap_or_default();
    let mut lines = Vec::new();
    if losses.terms().count() > 1 {
        let values = parts.iter().map(|p| mean(p, &|v| v.get("loss")?.as_f64())).collect();
        lines.push(Line { name: "weighted sum".to_owned(), values });
    }
    names.sort();
    for name in names {
        let values = parts.iter().map(|p| mean(p, &|v| v.get("losses")?.get(&name)?.as_f64())).collect();
        lines.push(Line { name, values });
    }
    let label = |p: &&[Value]| {
        let step = p.last().and_then(|v| v.get("step")?.as_u64()).unwrap_or(0);
        format!("step {step}")
    };
    let held: Vec<Option<f64>> = parts.iter().map(|p| mean(p, &|v| v.get("valid")?.as_f64())).collect();
    if held.iter().any(Option::is_some) {
        lines.push(Line { name: "held out".to_owned(), values: held });
    }
    let chart = LineChart {
        title: format!("loss, means over {stretch} steps"),
        unit: "loss".to_owned(),
        places: parts.iter().map(label).collect(),
        marks: Vec::new(),
        lines,
    };
    pomona_store::write_atomic(folder.join("curves.svg"), line_chart(&chart).as_bytes())?;
    Ok(())
}
