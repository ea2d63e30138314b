//! One line that shows where a run stands.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pomona_report::units;
use pomona_train::{Limit, StepReport};

use crate::ui::Ui;

/// Steps over which speed is averaged.
const RECENT: usize = 20;
/// Time between lines where there is no terminal to redraw one.
const PAUSE: Duration = Duration::from_secs(30);

pub struct Line<'a> {
    ui: &'a Ui,
    bar: ProgressBar,
    limit: Limit,
    unit: &'static str,
    recent: VecDeque<(usize, f64)>,
    said: Option<Instant>,
    held: Option<f64>,
}

impl<'a> Line<'a> {
    pub fn new(ui: &'a Ui, limit: Limit, unit: &'static str) -> Self {
        let shown = std::io::stderr().is_terminal() && !ui.is_quiet();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { ui, bar, limit, unit, recent: VecDeque::new(), said: None, held: None }
    }

    pub fn show(&mut self, report: &StepReport) {
        self.recent.push_back((report.units, report.seconds[0]));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let (n, seconds) = self.recent.iter().fold((0, 0.0), |a, r| (a.0 + r.0, a.1 + r.1));
        self.held = report.valid.or(self.held);
        let held = self.held.map(|v| format!("  held out {v:.4}")).unwrap_or_default();
        let line = describe(report, self.limit, (self.unit, n as f64 / seconds.max(1e-9)), &held);
        if !self.bar.is_hidden() {
            self.bar.set_message(line);
        } else if self.said.is_none_or(|s| s.elapsed() >= PAUSE) {
            self.ui.say(line);
            self.said = Some(Instant::now());
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn describe(r: &StepReport, limit: Limit, (unit, speed): (&str, f64), held: &str) -> String {
    let of = limit.steps.map(|n| format!("/{n}")).unwrap_or_default();
    let terms = match r.losses.len() {
        0 | 1 => String::new(),
        _ => {
            let each: Vec<String> = r.losses.iter().map(|(k, v)| format!("{k} {v:.4}")).collect();
            format!(" ({})", each.join(", "))
        }
    };
    let share = limit.share(r.step, r.seconds[1]);
    let left =
        if share > 0.0 { units::seconds(r.seconds[1] * (1.0 - share) / share) } else { "?".to_owned() };
    format!(
        "step {}{of}  epoch {:.2}  loss {:.4}{terms}{held}  lr {:.2e}  {speed:.0} {unit}/s  {left} left",
        r.step, r.epoch, r.loss, r.rate
    )
}
